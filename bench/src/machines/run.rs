//! The parent: the ways in turns.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use super::monitor::Monitor;
use super::options::MachineOptions;
use crate::children;
use crate::machine::Machine;
use crate::network::servers::{Kind, Server, Way};
use crate::report::{Bar, Direction, bar_table, fixed, median};

/// What was measured, in seconds.
#[derive(Default)]
struct Line {
    what: &'static str,
    demand: Vec<f64>,
    replay: Vec<f64>,
    kernel: Vec<f64>,
}

/// `memobj-bench machines`.
pub fn machines(options: &MachineOptions) -> Result<ExitCode, String> {
    let options = options.settled();
    let folder = tempfile::tempdir_in(children::test_directory(options.dir.as_deref())?);
    let folder = folder.map_err(|error| format!("a folder: {error}"))?;
    let machine = Machine::find(folder.path());
    println!("{}\n", machine.line());
    let memory = memory_file(folder.path(), options.memory << 20)?;
    let bench = Bench {
        memobj: memobj(&options)?,
        socket: folder.path().join("socket"),
        record: folder.path().join("record"),
        monitor: Monitor::new(folder.path(), &memory, &options)?,
        budget: format!("{}M", options.memory + options.memory / 2),
        reps: options.reps,
    };
    let name = memory.display().to_string();
    bench.serve(&name, &["--record", &bench.record.display().to_string()])?.touch(&bench, &[])?;
    let mut lines = Vec::new();
    match drop_caches() {
        Ok(()) => lines.push(bench.cold(&name)?),
        Err(error) => println!("skipped: cold: the page cache cannot be dropped: {error}"),
    }
    match Server::start(Kind::Web, &memory, folder.path(), Duration::from_millis(options.delay)) {
        Ok(server) => lines.push(bench.far(&server.url(Way::Delayed))?),
        Err(reason) => println!("skipped: far: {reason}"),
    }
    let warm = bench.warm(&name)?;
    print(&lines, &warm);
    Ok(ExitCode::SUCCESS)
}

fn memobj(options: &MachineOptions) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("finding this program: {error}"))?;
    let memobj = options.memobj.clone().unwrap_or_else(|| own.with_file_name("memobj"));
    if memobj.is_file() { Ok(memobj) } else { Err(format!("no command {}", memobj.display())) }
}

fn memory_file(folder: &Path, length: u64) -> Result<PathBuf, String> {
    let path = folder.join("memory");
    let make = || {
        let mut file = File::create(&path)?;
        let mut piece = vec![0; 1 << 20];
        for number in 0..length >> 20 {
            for (at, word) in piece.chunks_exact_mut(8).enumerate() {
                let value = (number << 17 | at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                word.copy_from_slice(&value.to_le_bytes());
            }
            file.write_all(&piece)?;
        }
        file.sync_all()
    };
    make().map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

fn drop_caches() -> std::io::Result<()> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3")
}

struct Bench {
    memobj: PathBuf,
    socket: PathBuf,
    record: PathBuf,
    monitor: Monitor,
    budget: String,
    reps: u32,
}

impl Bench {
    fn serve(&self, object: &str, more: &[&str]) -> Result<Serving, String> {
        let mut child = Command::new(&self.memobj)
            .args(["serve", "--quiet", "--budget", &self.budget, "--firecracker"])
            .arg(&self.socket)
            .args(["--memory", object])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("memobj serve: {error}"))?;
        let mut line = String::new();
        let output = child.stdout.take().map(BufReader::new);
        let began = output.is_some_and(|mut output| output.read_line(&mut line).is_ok_and(|count| count > 0));
        let mut serving = Serving(child);
        if began { Ok(serving) } else { Err(format!("memobj serve: {}", serving.end())) }
    }

    fn replay(&self) -> [String; 2] {
        ["--replay".into(), self.record.display().to_string()]
    }

    /// Demand and replay of `object`, in turns.
    fn turn(
        &self,
        object: &str,
        line: &mut Line,
        before: &dyn Fn() -> Result<(), String>,
    ) -> Result<(), String> {
        before()?;
        line.demand.push(self.serve(object, &[])?.touch(self, &[])?);
        before()?;
        let replay = self.replay();
        line.replay.push(self.serve(object, &[&replay[0], &replay[1]])?.touch(self, &[])?);
        Ok(())
    }

    fn cold(&self, object: &str) -> Result<Line, String> {
        let mut line = Line { what: "cold", ..Line::default() };
        let cold = || drop_caches().map_err(|error| error.to_string());
        for _ in 0..self.reps {
            self.turn(object, &mut line, &cold)?;
            cold()?;
            line.kernel.push(self.monitor.touch(None, &[])?);
        }
        Ok(line)
    }

    fn far(&self, url: &str) -> Result<Line, String> {
        let mut line = Line { what: "far", ..Line::default() };
        for _ in 0..self.reps {
            self.turn(url, &mut line, &|| Ok(()))?;
        }
        Ok(line)
    }

    /// What the server says of its faults when nearly all were of pages in frames, one at a time.
    fn warm(&self, object: &str) -> Result<String, String> {
        let mut serving = self.serve(object, &[])?;
        for _ in 0..self.reps * 4 {
            self.monitor.touch(Some(&self.socket), &["threads=1"])?;
        }
        Ok(serving.end())
    }
}

/// A server, which is killed when it is dropped.
struct Serving(Child);

impl Serving {
    fn touch(mut self, bench: &Bench, more: &[&str]) -> Result<f64, String> {
        let seconds = bench.monitor.touch(Some(&bench.socket), more)?;
        self.end();
        Ok(seconds)
    }

    /// Ends it; its last words.
    fn end(&mut self) -> String {
        if let Some(process) = rustix::process::Pid::from_raw(self.0.id() as i32) {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        }
        let mut text = String::new();
        if let Some(errors) = &mut self.0.stderr {
            let _ = errors.read_to_string(&mut text);
        }
        let _ = self.0.wait();
        text.lines().last().unwrap_or("it says nothing").to_string()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn print(lines: &[Line], warm: &str) {
    println!("| seconds | demand | replay | kernel |\n|---|--:|--:|--:|");
    let mut bars = Vec::new();
    for line in lines {
        let middle = |values: &[f64]| median(values.to_vec());
        let (demand, replay, kernel) = (middle(&line.demand), middle(&line.replay), middle(&line.kernel));
        println!("| {} | {} | {} | {} |", line.what, fixed(demand, 3), fixed(replay, 3), fixed(kernel, 3));
        let mut bar = |what: &str, other: Option<f64>, required: f64| {
            if let (Some(other), Some(replay)) = (other, replay) {
                let what = format!("{}: {what} / replay", line.what);
                bars.push(Bar { what, direction: Direction::AtLeast, required, measured: other / replay });
            }
        };
        bar("demand", demand, if line.what == "far" { 8.0 } else { 3.0 });
        bar("kernel", kernel, 2.0);
    }
    println!("\nwarm, one thread: {warm}\n");
    print!("{}", bar_table(&bars));
}
