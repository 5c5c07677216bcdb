//! Plain loads of failed pages: they trap, and the trap reaches whoever had SIGBUS before.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use memobj::pagers::{Faulty, Inject, Injection};
use memobj_sim::fixture::{Reading, Way, sample_bytes, sample_pager, ways};
use memobj_sim::process::{child, part, show};

const SIGBUS: i32 = 7;
const BAD: u64 = 1;

/// Loads a word of a good page and then one of a failed page, both plainly.
fn load_failed(way: &Way, action: Inject) {
    let plan = vec![Injection::new(way.page(BAD), action)];
    let (_cache, mapping) = way.map(Faulty::new(sample_pager(3 * way.page), plan, 3));
    let words = mapping.words().unwrap();
    let good = words.load(1);
    assert_eq!(good.to_le_bytes(), sample_bytes(16)[8..], "{}", way.label);
    // Installs the handler whatever the delivery.
    assert!(Reading::Touch.read(&mapping, way.page(BAD)).is_err());
    println!("about to load");
    println!("loaded {:#x}", words.load(way.page / 8 + 7));
}

fn in_children(name: &str, body: impl Fn(&Way), ended: impl Fn(ExitStatus) -> bool) {
    if let Some(index) = part(name) {
        return body(&ways().nth(index.parse().unwrap()).unwrap());
    }
    for (index, way) in ways().enumerate() {
        let output = child(name, &index.to_string());
        let text = String::from_utf8_lossy(&output.stdout);
        let trapped = text.contains("about to load") && !text.contains("loaded 0x");
        if !(trapped && ended(output.status)) {
            show(&output);
            panic!("{}: {}", way.label, output.status);
        }
    }
}

#[test]
fn a_plain_load_of_a_failed_page_dies_by_sigbus() {
    let name = "a_plain_load_of_a_failed_page_dies_by_sigbus";
    in_children(name, |way| load_failed(way, Inject::Error), |status| status.signal() == Some(SIGBUS));
}

#[test]
fn a_plain_load_of_a_short_page_dies_by_sigbus() {
    let name = "a_plain_load_of_a_short_page_dies_by_sigbus";
    in_children(name, |way| load_failed(way, Inject::Short), |status| status.signal() == Some(SIGBUS));
}

#[test]
fn the_trap_reaches_the_handler_that_was_there_before() {
    let name = "the_trap_reaches_the_handler_that_was_there_before";
    let body = |way: &Way| {
        let always = Arc::new(AtomicBool::new(true));
        signal_hook::flag::register_conditional_shutdown(SIGBUS, 42, always).unwrap();
        load_failed(way, Inject::Error);
    };
    in_children(name, body, |status| status.code() == Some(42));
}

/// The first access of all is the plain load itself: no handler was installed by another call before.
#[test]
fn a_first_load_traps_too() {
    let body = |way: &Way| {
        let (_cache, mapping) = way.map(Faulty::failing(sample_pager(way.page), 0..1));
        println!("about to load");
        println!("loaded {:#x}", mapping.words().unwrap().load(0));
    };
    in_children("a_first_load_traps_too", body, |status| status.signal() == Some(SIGBUS));
}

/// A signal that somebody sends is not a fault and goes on. The runtime library's handler, which comes next, takes
/// the first as a sign that the process shall die, and leaves that to the second.
#[test]
fn a_sent_sigbus_still_kills() {
    let body = |way: &Way| {
        let (_cache, mapping) = way.map(sample_pager(way.page));
        Reading::Touch.read(&mapping, way.page(0)).unwrap();
        println!("about to load");
        signal_hook::low_level::raise(SIGBUS).unwrap();
        signal_hook::low_level::raise(SIGBUS).unwrap();
        println!("loaded 0x0");
    };
    in_children("a_sent_sigbus_still_kills", body, |status| status.signal() == Some(SIGBUS));
}

#[test]
fn as_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("as_an_ordinary_user");
}
