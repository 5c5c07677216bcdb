//! Address spaces in this process: what segments show, what stores do, what fails, and what is left in the end.

mod bytes;
mod copies;
mod ends;
mod failures;
mod fixture;

#[test]
fn as_an_ordinary_user() {
    memobj_sim::process::rerun_as_ordinary_user("as_an_ordinary_user");
}
