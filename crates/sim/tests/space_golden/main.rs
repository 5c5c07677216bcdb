//! What Linux 6.18 on ext4 answered to fixed probes, recorded once, and what our address space answers.
//!
//! Each probe begins with an empty space and two files. It says words: an error number or `OK` for a call, `ok` or the
//! code of the signal for an access, a byte where one is asked for.

mod answers;
mod fixture;

use fixture::GoldenFixture;

/// A probe: what it is about, what it does, and the words that the kernel said.
struct Probe {
    about: &'static str,
    run: fn(&mut GoldenFixture),
    words: &'static str,
}

#[test]
fn recorded_answers_are_ours() {
    let mut failures = Vec::new();
    for Probe { about, run, words } in answers::PROBES {
        let mut fixture = GoldenFixture::new();
        run(&mut fixture);
        let said = fixture.end();
        if said != *words {
            failures.push(format!("{about}: the kernel said {words:?}, we said {said:?}"));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), answers::PROBES.len(), failures.join("\n"));
    assert!(answers::PROBES.len() > 90, "only {} probes", answers::PROBES.len());
}
