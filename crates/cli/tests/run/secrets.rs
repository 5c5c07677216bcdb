//! What programs must not come by: descriptors that others were handed, and their supervisor.

use crate::build::{Kind, program};
use crate::test_folder::TestFolder;

#[test]
fn children_of_threads_that_map_files_find_no_descriptor_of_that() {
    let (Some(test_folder), Some(program)) = (TestFolder::new(), program("forks", Kind::Dynamic)) else {
        return;
    };
    test_folder.sample("sample", 4);
    let end =
        test_folder.same(&[program.as_os_str(), "leaks".as_ref(), "sample".as_ref()]).succeeded("leaks");
    assert_eq!(end.out, "0 children found descriptors\n");
}
