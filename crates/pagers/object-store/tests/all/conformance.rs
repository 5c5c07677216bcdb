//! The suite that every pager runs.

use memobj::EngineClock;
use memobj_object_store::{Manifest, ObjectStorePager};
use memobj_sim::fixture::sample_bytes;
use std::sync::Arc;

use crate::help::options;
use crate::scripted::{Scripted, Served};

fn pager_conforms(length: u64, block: Option<u64>) {
    let bytes = sample_bytes(length);
    let server = Scripted::start(Served::new(bytes, "a"));
    let manifest = block.map(|block| Arc::new(Manifest::make(bytes, block).unwrap()));
    let make = || {
        let options = options(&EngineClock::system()).manifest(manifest.clone());
        ObjectStorePager::open(&server.url(), options).unwrap()
    };
    memobj_sim::conformance::run_answering(make, bytes);
}

#[test]
fn a_pager_of_a_web_server_conforms() {
    for length in [0, 1, 4096, 100_000, 1 << 20] {
        pager_conforms(length, None);
    }
}

#[test]
fn a_pager_with_a_manifest_conforms() {
    pager_conforms(300_001, Some(16 << 10));
    pager_conforms(5000, Some(1 << 20));
}

#[test]
fn a_pager_of_a_file_conforms() {
    let sample = memobj_sim::fixture::Sample::new(300_001);
    let url = format!("file://{}", sample.path().display());
    let make = || ObjectStorePager::open(&url, options(&EngineClock::system())).unwrap();
    memobj_sim::conformance::run_answering(make, sample_bytes(300_001));
}
