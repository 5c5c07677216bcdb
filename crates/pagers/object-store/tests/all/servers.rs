//! Real servers: nginx, and moto and s3s-fs as S3.

use std::ops::{Deref, DerefMut};

use memobj::{EngineClock, ErrorKind, FailurePolicy};
use memobj_object_store::{ComparedBy, ObjectStoreOptions, ObjectStorePager, conditions};
use memobj_servers::{ACCESS_KEY, Kind, REGION, SECRET_KEY, Server};
use memobj_sim::fixture::{check_sample, sample_bytes};

use crate::help::{BLOCK, cache, kind, map, message, options};

/// A store that speaks S3.
pub struct Store(Server);

/// moto, if it is installed.
pub fn moto() -> Option<Store> {
    Server::start(Kind::Moto).map(Store)
}

/// s3s-fs, if it is installed.
pub fn s3s_fs() -> Option<Store> {
    Server::start(Kind::S3sFs).map(Store)
}

impl Deref for Store {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl DerefMut for Store {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.0
    }
}

impl Store {
    /// Options that lead to it.
    pub fn options(&self, options: ObjectStoreOptions) -> ObjectStoreOptions {
        options
            .setting("aws_endpoint", format!("http://127.0.0.1:{}", self.port()))
            .setting("aws_access_key_id", ACCESS_KEY)
            .setting("aws_secret_access_key", SECRET_KEY)
            .setting("aws_region", REGION)
    }

    pub fn open(&self, key: &str, options: ObjectStoreOptions) -> ObjectStorePager {
        let options = self.options(options);
        ObjectStorePager::open(&self.url(key), options).unwrap()
    }
}

const LENGTH: u64 = 10 * BLOCK + 17;

/// What servers do with conditions is found out without a change.
#[test]
fn servers_are_asked_which_conditions_they_honour() {
    let asked = |store: &Store| {
        let options = match store.kind() {
            Kind::Nginx => ObjectStoreOptions::new(),
            _ => store.options(ObjectStoreOptions::new()),
        };
        let found = conditions(&store.url("object"), options).unwrap();
        assert_eq!((found.compared_by, found.ranges), (ComparedBy::EntityTag, true), "{:?}", store.kind());
        found.refuses_other_versions
    };
    if let Some(nginx) = Server::start(Kind::Nginx).map(Store) {
        nginx.file("object", sample_bytes(100));
        assert!(asked(&nginx));
    }
    if let Some(moto) = moto() {
        moto.put("object", sample_bytes(100));
        assert!(asked(&moto));
    }
    if let Some(store) = s3s_fs() {
        std::fs::write(store.path("object"), sample_bytes(100)).unwrap();
        assert!(!asked(&store), "it looks at no conditions of reads");
    }
}

#[test]
fn nginx_serves_an_object_until_it_is_replaced() {
    let Some(nginx) = Server::start(Kind::Nginx) else { return };
    let file = nginx.path("object");
    std::fs::write(&file, sample_bytes(LENGTH)).unwrap();
    let (clock, url) = (EngineClock::system(), format!("http://127.0.0.1:{}/object", nginx.port()));
    let open = || ObjectStorePager::open(&url, options(&clock));
    memobj_sim::conformance::run_answering(|| open().unwrap(), sample_bytes(LENGTH));
    let mapping = map(&cache(&clock), &open().unwrap(), FailurePolicy::WaitForEver);
    check_sample(0..1, &mapping.pin(0..1).unwrap(), "before");
    std::fs::write(&file, vec![0xee; LENGTH as usize + 1]).unwrap();
    let error = mapping.pin(5 * BLOCK..5 * BLOCK + 1).unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Stale, "{}", message(&error));
    std::fs::write(&file, b"").unwrap();
    assert_eq!(memobj::pagers::Pager::describe(&open().unwrap()).length(), 0);
    std::fs::remove_file(&file).unwrap();
    let error = open().unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Denied, Some(404)), "{error}");
}

#[test]
fn moto_serves_an_object_until_it_is_replaced() {
    let Some(moto) = moto() else { return };
    moto.put("a%20key/%2B%25/object", sample_bytes(LENGTH));
    let clock = EngineClock::system();
    let pager = moto.open("a key/+%25/object", options(&clock));
    let mapping = map(&cache(&clock), &pager, FailurePolicy::WaitForEver);
    check_sample(0..2 * BLOCK, &mapping.pin(0..2 * BLOCK).unwrap(), "before");
    moto.put("a%20key/%2B%25/object", &vec![0xee; LENGTH as usize]);
    let error = mapping.pin(5 * BLOCK..5 * BLOCK + 1).unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Stale, "{}", message(&error));
    let options = moto.options(ObjectStoreOptions::new());
    let error = ObjectStorePager::open("s3://bucket/missing", options).unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Denied, Some(404)), "{error}");
}

/// This server answers with the new version, whatever the condition says.
#[test]
fn another_version_of_a_server_without_conditions_is_stale() {
    let Some(store) = s3s_fs() else { return };
    std::fs::write(store.path("object"), sample_bytes(LENGTH)).unwrap();
    let clock = EngineClock::system();
    let pager = store.open("object", options(&clock));
    let mapping = map(&cache(&clock), &pager, FailurePolicy::WaitForEver);
    check_sample(0..BLOCK, &mapping.pin(0..BLOCK).unwrap(), "before");
    std::fs::write(store.path("object"), vec![0xee; LENGTH as usize]).unwrap();
    let error = mapping.pin(5 * BLOCK..5 * BLOCK + 1).unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Stale, "{}", message(&error));
    check_sample(0..BLOCK, &mapping.pin(0..BLOCK).unwrap(), "what was read stays");
}

#[test]
fn a_pager_of_s3s_fs_conforms() {
    let Some(store) = s3s_fs() else { return };
    std::fs::write(store.path("object"), sample_bytes(100_001)).unwrap();
    let make = || store.open("object", options(&EngineClock::system()));
    memobj_sim::conformance::run_answering(make, sample_bytes(100_001));
}

#[test]
fn a_pager_of_moto_conforms() {
    let Some(moto) = moto() else { return };
    moto.put("object", sample_bytes(100_001));
    let make = || moto.open("object", options(&EngineClock::system()));
    memobj_sim::conformance::run_answering(make, sample_bytes(100_001));
}
