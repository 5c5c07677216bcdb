//! Answers that real servers do not give: none becomes a byte, and none makes the client allocate.

use memobj::ErrorKind;
use memobj::pagers::Pager;
use memobj_9p::{NineOptions, NinePager, OpenStep};
use memobj_sim::fixture::{check_sample, sample_bytes, wait_until};
use memobj_sim::process::Usage;

use crate::asking::{counter, supply};
use crate::fake::{Act, Fake, TATTACH, TFSYNC, TGETATTR, TREAD, TVERSION, message, rlerror, rread};

const LENGTH: u64 = 300_000;

fn fake() -> (Fake, NinePager) {
    let fake = Fake::new(sample_bytes(LENGTH));
    let pager = NinePager::open(&fake.url(), NineOptions::new()).unwrap();
    (fake, pager)
}

/// What is done to the first Tread.
type Bad = fn(u16, u32) -> Act;

const BAD: [(&str, Bad); 14] = [
    ("another tag", |tag, count| Act::Send(rread(tag.wrapping_add(100), &vec![9; count as usize]))),
    ("the tag of Tversion", |_, count| Act::Send(rread(0xffff, &vec![9; count as usize]))),
    ("too long", |tag, count| Act::Send(rread(tag, &vec![9; count as usize + 1]))),
    ("another type", |tag, _| Act::Send(message(119, tag, &[0, 0, 0, 0]))),
    ("an unknown type", |tag, _| Act::Send(message(250, tag, &[]))),
    ("a request", |tag, _| Act::Send(message(TREAD, tag, &[0; 16]))),
    ("a count without bytes", |tag, _| Act::Send(message(117, tag, &[255, 255, 0, 0]))),
    ("bytes behind", |tag, _| Act::Send(message(117, tag, &[1, 0, 0, 0, 7, 7]))),
    ("a huge size", |_, _| Act::Send(vec![255, 255, 255, 255, 117, 0, 0])),
    ("a size above msize", |_, _| Act::Send(vec![1, 0, 1, 0, 117, 0, 0])),
    ("a tiny size", |_, _| Act::Send(vec![6, 0, 0, 0, 117, 0])),
    ("nothing", |_, _| Act::Cut(0)),
    ("half of the size", |_, _| Act::Cut(2)),
    ("half of the answer", |_, count| Act::Cut(count as usize / 2)),
];

/// The connection is made anew, and the right bytes are asked for again.
#[test]
fn a_bad_answer_ends_the_connection_and_never_becomes_a_byte() {
    for (what, bad) in BAD {
        let (fake, pager) = fake();
        let mut is_first = true;
        fake.script_for(TREAD, move |request| {
            if std::mem::take(&mut is_first) { bad(request.tag, request.count()) } else { Act::Normal }
        });
        let bytes = supply(&pager, 0..LENGTH).wait().unwrap_or_else(|error| panic!("{what}: {error:?}"));
        check_sample(0..LENGTH, &bytes, what);
        assert_eq!((fake.connections(), counter(&pager, "reconnects")), (2, 1), "{what}");
    }
}

#[test]
fn a_server_that_is_always_wrong_is_told_so() {
    let (fake, pager) = fake();
    fake.script_for(TREAD, |request| Act::Send(rread(request.tag, &vec![9; request.count() as usize + 1])));
    assert_eq!(supply(&pager, 0..4096).kind(), ErrorKind::Integrity);
    fake.script(|_| Act::Normal);
    check_sample(0..4096, &supply(&pager, 0..4096).wait().unwrap(), "later");
}

#[test]
fn a_size_makes_nobody_allocate() {
    let (fake, pager) = fake();
    let before = Usage::now().virtual_bytes;
    fake.script_for(TREAD, |_| Act::Send(vec![255, 255, 255, 127, 117, 0, 0]));
    assert_eq!(supply(&pager, 0..4096).kind(), ErrorKind::Integrity);
    assert!(Usage::now().virtual_bytes < before + (1 << 30));
}

#[test]
fn short_answers_are_completed() {
    let (fake, pager) = fake();
    let mut count = 0;
    fake.script_for(TREAD, move |request| {
        count = (count * 7 + 1) % 5000;
        let start = request.offset() as usize;
        let some = (1 + count).min(request.count() as usize);
        Act::Send(rread(request.tag, &sample_bytes(LENGTH)[start..start + some]))
    });
    check_sample(0..LENGTH, &supply(&pager, 0..LENGTH).wait().unwrap(), "short answers");
    assert_eq!(fake.connections(), 1);
}

#[test]
fn an_end_before_the_end_is_truncated_or_stale() {
    let (fake, pager) = fake();
    fake.script_for(TREAD, |request| Act::Send(rread(request.tag, &[])));
    assert_eq!(supply(&pager, 0..LENGTH).kind(), ErrorKind::Truncated);
    // It can be asked for again.
    fake.script(|_| Act::Normal);
    check_sample(0..4096, &supply(&pager, 0..4096).wait().unwrap(), "again");
    fake.lock().bytes.truncate(5);
    assert_eq!(supply(&pager, 4096..LENGTH).kind(), ErrorKind::Stale);
    assert_eq!(supply(&pager, 0..4096).kind(), ErrorKind::Stale);
}

#[test]
fn errors_of_the_server_have_their_kinds() {
    let kinds = [
        (5, ErrorKind::Io),
        (13, ErrorKind::Denied),
        (2, ErrorKind::Stale),
        (116, ErrorKind::Stale),
        (28, ErrorKind::NoSpace),
        (110, ErrorKind::Timeout),
    ];
    let (fake, pager) = fake();
    for (number, kind) in kinds {
        fake.script_for(TREAD, move |request| Act::Send(rlerror(request.tag, number)));
        assert_eq!(supply(&pager, 0..LENGTH).kind(), kind, "{number}");
    }
    // nfs-ganesha: Rerror with a number in 9P2000.L.
    fake.script_for(TREAD, |request| Act::Send(message(107, request.tag, &13u32.to_le_bytes())));
    assert_eq!(supply(&pager, 0..LENGTH).kind(), ErrorKind::Denied);
    fake.script(|_| Act::Normal);
    check_sample(0..LENGTH, &supply(&pager, 0..LENGTH).wait().unwrap(), "after errors");
    assert_eq!(fake.connections(), 1);
}

#[test]
fn an_answer_to_the_version_that_is_not_one_is_refused() {
    let rversion = |msize: u32, name: &str| {
        let count = u16::try_from(name.len()).unwrap();
        let body = [&msize.to_le_bytes()[..], &count.to_le_bytes(), name.as_bytes()].concat();
        message(101, 0xffff, &body)
    };
    let answers = [
        rversion(1 << 30, "9P2000.L"),
        rversion(100, "9P2000.L"),
        rversion(0, "9P2000"),
        rversion(8192, "unknown"),
        rversion(8192, "9P3000"),
        message(101, 0, &rversion(8192, "9P2000.L")[7..]),
        message(107, 0xffff, b"\x02\0no"),
        rlerror(0xffff, 5),
        vec![255; 9],
    ];
    for answer in answers {
        let fake = Fake::new(b"x");
        let shown = answer.clone();
        fake.script_for(TVERSION, move |_| Act::Send(answer.clone()));
        let error = NinePager::open(&fake.url(), NineOptions::new()).unwrap_err();
        assert_eq!(*error.step(), OpenStep::Version, "{shown:?}: {error}");
    }
    let fake = Fake::new(b"x");
    fake.script_for(TATTACH, |request| Act::Send(rlerror(request.tag, 1)));
    let error = NinePager::open(&fake.url(), NineOptions::new()).unwrap_err();
    assert_eq!((error.step(), error.kind()), (&OpenStep::Attach, ErrorKind::Denied));
    assert!(error.to_string().contains("attach: the server says: Operation not permitted"), "{error}");
    fake.script_for(TGETATTR, |request| Act::Send(message(TGETATTR + 1, request.tag, &[0; 153])));
    let error = NinePager::open(&fake.url(), NineOptions::new()).unwrap_err();
    assert_eq!(*error.step(), OpenStep::Stat, "no length: {error}");
}

/// A server that says nothing at first.
#[test]
fn a_step_of_opening_is_not_waited_for_longer_than_its_time() {
    let fake = Fake::new(b"x");
    fake.script_for(TVERSION, |_| Act::Keep);
    let options = NineOptions::new().connect_timeout(std::time::Duration::from_millis(50));
    let error = NinePager::open(&fake.url(), options).unwrap_err();
    assert_eq!((error.step(), error.kind()), (&OpenStep::Version, ErrorKind::Timeout), "{error}");
}

/// All that is asked is answered, and the threads end.
#[test]
fn detach_answers_all_and_ends_the_threads() {
    let (fake, pager) = fake();
    fake.script_for(TREAD, |_| Act::Keep);
    let waiting: Vec<_> =
        (0..200).map(|page| supply(&pager, page * 4096 % 8192..page * 4096 % 8192 + 4096)).collect();
    fake.kept(32);
    pager.detach();
    waiting.into_iter().for_each(|answer| assert_eq!(answer.kind(), ErrorKind::Detached));
    assert_eq!(supply(&pager, 0..4096).kind(), ErrorKind::Detached);
    assert_eq!(crate::asking::sync(&pager).wait().map_err(|error| error.kind), Ok(()), "nothing to sync");
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.starts_with("memobj-9p")).count()
    };
    // Other tests of this process have such threads too: theirs end as well.
    wait_until("its threads end", || threads() == 0 || std::env::var_os("MEMOBJ_ALONE").is_none());
    assert_eq!(fake.count(TFSYNC), 0);
}
