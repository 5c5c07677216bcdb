//! Places of an area that hold no page.

use std::sync::Arc;

use memobj_core::budget::Budget;

use super::{Area, AreaOptions, Frames, Writes};
use crate::signal::{self, Verdict};
use crate::uffd::{Announce, Userfaultfd};

#[test]
fn a_wild_load_of_an_empty_object_traps() {
    let uffd = match Userfaultfd::open(Announce::Queued) {
        Ok(uffd) => Arc::new(uffd),
        Err(error) => return println!("skipped: no userfaultfd: {error}"),
    };
    signal::install(|_, _| Verdict::Trap).unwrap();
    for frames in [Frames::LocalSmall, Frames::SharedSmall] {
        let area = Area::new(AreaOptions {
            name: "empty".into(),
            length: 0,
            capacity: 0,
            writes: Writes::No,
            unwritten: Arc::default(),
            frames,
            views: vec![Arc::clone(&uffd)],
            budget: Arc::new(Budget::new(1 << 20)),
            pin_budget: Arc::new(Budget::new(1 << 20)),
        })
        .unwrap();
        area.trap_outside(0);
        let mut buffer = [0xee; 16];
        let start = area.address(Announce::Queued, 0).unwrap();
        // SAFETY: the view of an empty object is one mapped page long.
        assert_eq!(unsafe { signal::copy_trapping(&mut buffer, start) }, 0);
        assert_eq!(buffer, [0xee; 16], "bytes of no page were handed out");
    }
}
