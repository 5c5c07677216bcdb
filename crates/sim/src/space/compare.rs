//! One history, here and there.

use super::machine::{EXECUTE_ONLY, FILES, LOCKED_BYTES, Machine, WINDOW_START, file_bytes};
use super::{DIFFERENCES, Difference, History, RealObjects, RealSpace, table};
use memobj_linux::capability::loads;
use memobj_linux::oracle::{self, Answer, Detail, Order, Process, Rights, Signal, Window};
use rustix::fs::MemfdFlags;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// After how long the kernel's side is given up.
const LIMIT_SECONDS: u32 = 60;

/// How a comparison ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// All answers are the same.
    Same,
    /// They are up to this order, where a declared difference shows; what follows is not comparable.
    Declared(&'static str),
}

/// A difference that is not declared.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// What was done, up to the order whose answers differ.
    pub history: History,
    /// What we answered.
    pub ours: String,
    /// What the kernel answered.
    pub kernel: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { history, ours, kernel } = self;
        write!(
            f,
            "the last order of this history has other answers\n{history}ours:   {ours}\nkernel: {kernel}"
        )
    }
}

impl std::error::Error for Mismatch {}

/// Why the kernel of this machine cannot be the oracle, if so.
///
/// What becomes of bytes past the end of a file is the file system's affair, and ours is ext4's; remaps across several
/// mappings came with Linux 6.17.
pub fn unfit() -> Option<String> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < (6, 17) {
        return Some(format!("Linux {release} is older than 6.17"));
    }
    directory().is_none().then(|| "neither the temporary nor the current directory is on ext4".into())
}

/// A directory on ext4.
fn directory() -> Option<PathBuf> {
    const EXT4: i64 = 0xef53;
    let candidates = [Some(std::env::temp_dir()), std::env::current_dir().ok()];
    let fits = |path: &PathBuf| rustix::fs::statfs(path).is_ok_and(|found| found.f_type == EXT4);
    candidates.into_iter().flatten().find(fits)
}

/// Runs `history` on the machine and on the kernel, each page and mapping being looked at in the end.
pub fn compare(history: &History) -> Result<Outcome, Box<Mismatch>> {
    let orders = completed(&history.orders);
    let mut machine = Machine::new(history.pages, loads());
    let answer = |&(who, order): &(Process, Order)| (machine.carry_out(who, order), machine.parted());
    let (ours, parted): (Vec<Answer>, Vec<Option<&str>>) = orders.iter().map(answer).unzip();
    machine.end();
    let theirs = match kernel(history.pages, &orders, &ours) {
        Ok(answers) => answers,
        Err(error) => {
            let history = History { pages: history.pages, orders };
            return Err(Box::new(Mismatch { history, ours: "an end".into(), kernel: error.to_string() }));
        }
    };
    for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        if ours == theirs {
            continue;
        }
        let so_far = &orders[..=index];
        let shows =
            |known: &&Difference| parted[index] == Some(known.name) || (known.applies)(so_far, ours, theirs);
        if let Some(known) = DIFFERENCES.iter().find(shows) {
            return Ok(Outcome::Declared(known.name));
        }
        let history = History { pages: history.pages, orders: so_far.to_vec() };
        let show = |answer: &Answer| text(so_far, answer);
        return Err(Box::new(Mismatch { ours: show(ours), kernel: show(theirs), history }));
    }
    Ok(Outcome::Same)
}

/// Runs `history`, one of [`space_histories`](super::space_histories), on all three sides: the machine, the kernel, and a
/// space of this process.
pub fn compare_three(history: &History, objects: &RealObjects) -> Result<Outcome, Box<Mismatch>> {
    let outcome = compare(history)?;
    if outcome != Outcome::Same {
        return Ok(outcome);
    }
    let looks = [Order::Digest, Order::Table { detail: Detail::Lines }];
    let orders: Vec<Order> = history.orders.iter().map(|&(_, order)| order).chain(looks).collect();
    let (mut machine, mut real) = (Machine::new(history.pages, loads()), RealSpace::new(objects, history));
    for (index, &order) in orders.iter().enumerate() {
        let ours = machine.carry_out(0, order);
        let mut theirs = real.carry_out(harmless(order, &ours));
        as_executed(order, &ours, &mut theirs);
        if ours != theirs {
            let so_far: Vec<_> = orders[..=index].iter().map(|&order| (0, order)).collect();
            let kernel = format!("{}\n(that is a space of this process)", text(&so_far, &theirs));
            let ours = text(&so_far, &ours);
            let history = History { pages: history.pages, orders: so_far };
            return Err(Box::new(Mismatch { history, ours, kernel }));
        }
    }
    machine.end();
    Ok(Outcome::Same)
}

/// The orders that make sense, with a look at everything in the end.
fn completed(orders: &[(Process, Order)]) -> Vec<(Process, Order)> {
    let mut forked = false;
    let mut complete = Vec::with_capacity(orders.len() + 6);
    for &(who, order) in orders {
        let makes_sense = match (who, order) {
            (0, Order::Fork) => !forked,
            (0, Order::Exit) | (1, Order::Fork) => false,
            (0, _) => true,
            _ => forked,
        };
        if makes_sense {
            forked = (forked || order == Order::Fork) && order != Order::Exit;
            complete.push((who, order));
        }
    }
    let look = [Order::Digest, Order::Table { detail: Detail::Flags }];
    complete.extend(look.map(|order| (0, order)));
    if forked {
        complete.extend(look.map(|order| (1, order)));
        complete.push((1, Order::Exit));
    }
    complete
}

fn kernel(pages: u64, orders: &[(Process, Order)], ours: &[Answer]) -> io::Result<Vec<Answer>> {
    let made = [make_file(0)?, make_file(1)?];
    let reopen = |file: &File, write: bool| {
        OpenOptions::new().read(!write).write(write).open(format!("/proc/self/fd/{}", file.as_raw_fd()))
    };
    let others = [reopen(&made[0], false)?, reopen(&made[0], true)?];
    let scratch = rustix::fs::memfd_create("scratch", MemfdFlags::CLOEXEC)?;
    let files = [&made[0], &others[0], &others[1], &made[1]].map(File::as_raw_fd);
    assert_eq!(files.len(), FILES.len());
    let files: Vec<RawFd> = files.into_iter().chain([scratch.as_raw_fd()]).collect();
    let asked: Vec<(Process, Order)> =
        orders.iter().zip(ours).map(|(&(who, order), ours)| (who, harmless(order, ours))).collect();
    let window = Window { start: WINDOW_START, length: pages * 4096 };
    let rights = Rights { locked_bytes: LOCKED_BYTES, limit_seconds: LIMIT_SECONDS };
    let inodes = [made[0].metadata()?.ino(), made[1].metadata()?.ino()];
    let mut answers = oracle::run(window, rights, &asked, &files)?;
    for ((answer, &(_, order)), ours) in answers.iter_mut().zip(orders).zip(ours) {
        if matches!(order, Order::Table { .. }) {
            let text = table::of_kernel(&answer.data, pages, &inodes);
            answer.data =
                text.ok_or_else(|| io::Error::other("the kernel's table was cut off"))?.into_bytes();
        }
        as_executed(order, ours, answer);
    }
    Ok(answers)
}

/// What we let pass is not executed, but loaded: nobody knows what is there.
fn harmless(order: Order, ours: &Answer) -> Order {
    match order {
        Order::Execute { address } if ours.signal.is_none() => Order::Load { address },
        other => other,
    }
}

/// What is executed was loaded: what it was does not matter, nor that memory may be executed only.
fn as_executed(order: Order, ours: &Answer, theirs: &mut Answer) {
    let Order::Execute { address } = order else { return };
    let denied = Signal { number: 11, code: 2, address };
    if ours.value == EXECUTE_ONLY && theirs.signal == Some(denied) {
        theirs.signal = None;
    }
    theirs.value = ours.value;
}

/// A file without a name, on a disk: on a file system in memory, what is stored past the end of a file stays there.
fn make_file(which: u64) -> io::Result<File> {
    let mut file = tempfile::tempfile_in(directory().unwrap_or_else(std::env::temp_dir))?;
    file.write_all(&file_bytes(which))?;
    Ok(file)
}

fn text(orders: &[(Process, Order)], answer: &Answer) -> String {
    let Answer { value, signal, data } = answer;
    let data = match orders.last() {
        Some((_, Order::Table { .. })) => format!("\n{}", String::from_utf8_lossy(data)),
        Some((_, Order::Digest)) => data
            .chunks_exact(8)
            .enumerate()
            .map(|(page, mark)| {
                let mark = mark.iter().rev().fold(0, |all, &byte| all << 8 | u64::from(byte));
                format!(" {page}:{mark:x}")
            })
            .collect(),
        _ => format!("{} bytes {:x?}", data.len(), &data[..data.len().min(40)]),
    };
    format!("{value} {signal:x?} {data}")
}
