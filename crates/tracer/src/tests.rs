//! The mechanism on small programs of the machine.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd};

use super::wait::wait_for;
use super::*;

fn program(words: &[&str]) -> Program {
    Program::find(&words.iter().map(OsString::from).collect::<Vec<_>>()).unwrap()
}

/// The address of the vDSO of a process.
fn vdso(process: i32) -> u64 {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap();
    u64::from_str_radix(line.split('-').next().unwrap(), 16).unwrap()
}

/// Starts a program and brings it to where its execve(2) ends.
fn started(words: &[&str]) -> (Thread, Registers) {
    let begun = spawn(&program(words), Tracing::default(), Traced::No, Limits::raise().unwrap()).unwrap();
    let pid = begun.process;
    assert_eq!(wait_for(pid).unwrap(), Happened::Stopped(Stop::Program));
    let thread = Thread(pid);
    thread.resume(Resume::ToCallBorder).unwrap();
    assert_eq!(wait_for(pid).unwrap(), Happened::Stopped(Stop::CallBorder));
    (thread, thread.registers().unwrap())
}

/// Lets it run to its end.
fn finish(thread: Thread) -> Happened {
    thread.resume(Resume::Run).unwrap();
    loop {
        match wait_for(thread.0).unwrap() {
            Happened::Stopped(Stop::Signal(signal)) => thread.resume(Resume::Signal(signal)).unwrap(),
            Happened::Stopped(_) => thread.resume(Resume::Run).unwrap(),
            ended => return ended,
        }
    }
}

#[test]
fn a_program_runs_and_its_status_is_told() {
    let (thread, _) = started(&["sh", "-c", "exit 7"]);
    assert_eq!(finish(thread), Happened::Exited(7));
    let (thread, _) = started(&["sh", "-c", "kill -TERM $$"]);
    assert_eq!(finish(thread), Happened::Killed(libc::SIGTERM));
}

#[test]
fn calls_are_made_in_its_name_and_leave_it_as_it_was() {
    let (thread, registers) = started(&["sh", "-c", "exit 3"]);
    let site = CallSite::prepare(thread, vdso(thread.0)).unwrap().unwrap();
    let number = Call { number: libc::SYS_getpid, arguments: [0; 6] };
    assert_eq!(site.one(thread, &registers, number).unwrap(), i64::from(thread.0));

    // A list: open a file of the tracer, map it twice, close it.
    let file = memobj_linux::frame_file::FrameFile::new("list", 8192).unwrap();
    rustix::io::pwrite(&file, b"listed", 0).unwrap();
    let of = file.as_fd().as_raw_fd();
    let map = |offset| MapCall { address: 0, length: 4096, prot: 1, flags: libc::MAP_PRIVATE as u64, offset };
    let calls = [
        Call::ask_for_descriptor(),
        Call::map_that_file(map(0)),
        Call::map_that_file(map(4096)),
        Call::close_that_file(),
        number,
    ];
    let answers = site.list(thread, &registers, &calls, &[of], registers.stack() - 16384).unwrap();
    assert!(answers[0] >= 3 && answers[1] > 0 && answers[2] > 0, "{answers:?}");
    assert_eq!(answers[3..], [0, i64::from(thread.0)]);
    let maps = Maps::open(thread.0).unwrap();
    let mapped = maps.at(answers[2] as u64).unwrap().unwrap();
    assert_eq!((mapped.offset, mapped.prot, mapped.is_shared), (4096, 1, false));
    assert!(maps.name_at(answers[1] as u64).unwrap().unwrap().starts_with("/memfd:memobj:list"));
    let mut bytes = [0; 6];
    read_memory(thread.0, answers[1] as u64, &mut bytes).unwrap();
    assert_eq!(&bytes, b"listed");
    assert!(!std::path::Path::new(&format!("/proc/{}/fd/{}", thread.0, answers[0])).exists());

    // By registers alone.
    let at = site.map(thread, &registers, (of, By::Hand), map(0)).unwrap();
    let at = at.unwrap();
    assert_eq!(maps.at(at.answer as u64).unwrap().unwrap().inode, mapped.inode);

    let mut back = registers;
    back.skip_call(registers.answer());
    thread.set_registers(&back).unwrap();
    assert_eq!(finish(thread), Happened::Exited(3));
}

#[test]
fn faults_of_another_address_space_are_told_and_resolved() {
    if memobj_linux::uffd::probe().is_ok_and(|features| !features.kernel_faults) {
        println!("skipped: no userfaultfd that tells of faults inside system calls");
        return;
    }
    let (thread, registers) = started(&["true"]);
    let site = CallSite::prepare(thread, vdso(thread.0)).unwrap().unwrap();
    let number = site.one(thread, &registers, Call::userfaultfd()).unwrap();
    assert!(number >= 0, "{number}");
    let faults =
        memobj_linux::uffd::ForeignFaults::take(thread.0, number as i32, memobj_linux::uffd::Forks::Untold)
            .unwrap();
    assert_eq!(site.one(thread, &registers, Call::close(number as i32)).unwrap(), 0);
    let file = memobj_linux::frame_file::FrameFile::new("faults", 4096).unwrap();
    let of = file.as_fd().as_raw_fd();
    let map = MapCall { address: 0, length: 4096, prot: 1, flags: libc::MAP_PRIVATE as u64, offset: 0 };
    let at = site.map(thread, &registers, (of, By::Hand), map).unwrap().unwrap().answer as u64;
    faults.register(at, 4096, memobj_linux::uffd::Shows::ByItself).unwrap();
    let reader = std::thread::spawn(move || {
        let mut bytes = [0; 4];
        (read_memory(thread.0, at, &mut bytes).unwrap(), bytes)
    });
    let mut buffer = memobj_linux::uffd::EventBuffer::default();
    let event = loop {
        let first = faults.read(&mut buffer).unwrap().0.into_iter().next();
        match first {
            Some(event) => break event,
            None => std::thread::yield_now(),
        }
    };
    assert_eq!(event.address as u64, at);
    rustix::io::pwrite(&file, &[7; 4096], 0).unwrap();
    faults.wake(at, 4096);
    assert_eq!(reader.join().unwrap(), (4, [7; 4]));
    assert!(memobj_linux::uffd::address_space_lives(faults.as_fd().as_raw_fd()));
    let mut back = registers;
    back.skip_call(0);
    thread.set_registers(&back).unwrap();
    assert_eq!(finish(thread), Happened::Exited(0));
    assert!(!memobj_linux::uffd::address_space_lives(faults.as_fd().as_raw_fd()));
}
