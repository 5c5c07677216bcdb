//! What programs must not come by: descriptors that others were handed, and their supervisor.

use crate::build::{Kind, program};
use crate::room::Room;

#[test]
fn children_of_threads_that_map_files_find_no_descriptor_of_that() {
    let (Some(room), Some(program)) = (Room::new(), program("forks", Kind::Dynamic)) else { return };
    room.sample("sample", 4);
    let end = room.same(&[program.as_os_str(), "leaks".as_ref(), "sample".as_ref()]).succeeded("leaks");
    assert_eq!(end.out, "0 children found descriptors\n");
}
