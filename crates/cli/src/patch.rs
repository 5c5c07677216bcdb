//! `memobj patch`: standard input into a file, at an offset.

use std::io::{self, stdin};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, read};

use crate::engine::Engine;
use crate::failure::{Failure, complain};
use crate::interrupt::Interrupt;
use crate::output;
use crate::servers::Missing;
use crate::stats;
use crate::target::{Ending, Target};
use crate::write_args::PatchArguments;

/// Most bytes taken from standard input at once.
const PIECE_BYTES: usize = 256 << 10;
/// By how much a file can grow: so many addresses are set aside.
const ROOM_BYTES: u64 = 1 << 40;
/// Offsets behind this one have no addresses: a process has 128 TiB of them.
const MOST_AT: u64 = 64 << 40;
/// How long to wait for input before looking whether to go on.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Writes standard input into the file.
pub(crate) fn run(arguments: &PatchArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    let begin = Instant::now();
    let engine = Engine::new(arguments.common.settings())?;
    let result = patch(&engine, arguments, interrupt);
    stats::print(result, arguments.common.stats, &engine, begin)
}

fn patch(engine: &Engine, arguments: &PatchArguments, interrupt: &Interrupt) -> Result<(), Failure> {
    // Nothing at all is another thing than input without a byte.
    output::check_input()?;
    let (at, ending) = (arguments.at, arguments.common.ending());
    if at > MOST_AT {
        let name = arguments.file.display();
        return Err(Failure::Message(format!("write {name} at {at}: offsets past 64T cannot be mapped")));
    }
    let mut target =
        engine.open_target(&arguments.file, ending, at + ROOM_BYTES, Missing::IsAnError, interrupt)?;
    let mut end = at;
    let result = write_input(&mut target, &mut end, interrupt)
        .and_then(|()| target.finish(interrupt).map_err(|error| error.failure));
    result.map_err(|failure| {
        if failure == Failure::Reported {
            return failure;
        }
        failure.print();
        let name = arguments.file.display();
        match ending {
            Ending::Commit => complain(&format!("nothing of the patch is in {name}")),
            Ending::Sync => {
                let durable = target.rescue(at..end);
                complain(&format!("[{at}, {durable}) of {name} is patched and durable, the rest is not"));
            }
        }
        failure.reported()
    })
}

/// Writes all there is to read; `end` is where the next byte goes.
fn write_input(target: &mut Target, end: &mut u64, interrupt: &Interrupt) -> Result<(), Failure> {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        // From the second piece on these are whole pages.
        let room = PIECE_BYTES - (*end % PIECE_BYTES as u64) as usize;
        let count = fill(&mut buffer[..room], interrupt)?;
        if count == 0 {
            return Ok(());
        }
        let next = end.checked_add(count as u64).ok_or_else(|| {
            Failure::Message(format!("write [{end}, {end} + {count}): past the last offset there is"))
        })?;
        if next > target.length() {
            target.set_length(next, interrupt)?;
        }
        target.write(*end, &buffer[..count])?;
        *end = next;
    }
}

/// Reads until `buffer` is full or there is no more.
fn fill(buffer: &mut [u8], interrupt: &Interrupt) -> Result<usize, Failure> {
    let failed = |error: &io::Error| Failure::io("read standard input", error);
    let input = stdin();
    let mut done = 0;
    while done < buffer.len() {
        interrupt.check()?;
        // A read would wait on through an interrupt; this does not.
        match poll(&mut [PollFd::new(&input, PollFlags::IN)], Some(&LOOK_AGAIN)) {
            Ok(0) | Err(Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(failed(&error.into())),
        }
        match read(&input, &mut buffer[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(failed(&error.into())),
        }
    }
    Ok(done)
}
