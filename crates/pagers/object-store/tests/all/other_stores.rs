//! Google Cloud Storage and Azure: the forms of their requests, against a scripted server. No real server of theirs runs here.

use memobj::{
    Cache, CacheOptions, Delivery, EngineClock, ErrorKind, FailurePolicy, MapOptions, ObjectOptions, Writing,
};
use memobj_object_store::{ObjectStoreFolder, ObjectStoreOptions, ObjectStorePager, StoreEntryKind};
use memobj_sim::fixture::{MIB, check_sample, sample_bytes};

use crate::help::{BLOCK, cache, kind, map, message, options};
use crate::lists::ListServer;
use crate::scripted::{Scripted, Served};

const LENGTH: u64 = 4 * BLOCK;

fn azure(server: &Scripted, options: ObjectStoreOptions) -> ObjectStorePager {
    let options = options
        .setting("azure_endpoint", server.endpoint())
        .setting("azure_storage_account_name", "account")
        .setting("azure_storage_account_key", "c2VjcmV0");
    ObjectStorePager::open("az://container/folder/object", options).unwrap()
}

fn google(server: &Scripted, options: ObjectStoreOptions) -> ObjectStorePager {
    let options =
        options.setting("google_base_url", server.endpoint()).setting("google_bearer_token", "token");
    ObjectStorePager::open("gs://bucket/folder/object", options).unwrap()
}

type Open = fn(&Scripted, ObjectStoreOptions) -> ObjectStorePager;
const STORES: [(&str, Open, &str); 2] =
    [("azure", azure, "/container/folder/object"), ("google", google, "/bucket/folder")];

#[test]
fn objects_are_read_until_they_are_replaced() {
    for (name, open, path) in STORES {
        let server = Scripted::start(Served::new(sample_bytes(LENGTH), "one"));
        let clock = EngineClock::system();
        let mapping = map(&cache(&clock), &open(&server, options(&clock)), FailurePolicy::FailAtOnce);
        check_sample(0..BLOCK, &mapping.pin(0..BLOCK).unwrap(), name);
        let asked = server.asked();
        assert_eq!(asked[0].method, "HEAD");
        assert!(asked[0].target.contains(path), "{name}: {}", asked[0].target);
        assert_eq!(asked[1].header("if-match"), Some("\"one\""), "{name}");
        server.replace(Served::new(&vec![0xee; LENGTH as usize], "two"));
        let error = mapping.pin(2 * BLOCK..2 * BLOCK + 1).unwrap_err();
        assert_eq!(kind(&error), ErrorKind::Stale, "{name}: {}", message(&error));
    }
}

#[test]
fn objects_are_published_by_one_conditional_request() {
    for (name, open, _) in STORES {
        let server = Scripted::start(Served::new(sample_bytes(LENGTH), "one"));
        let pager = open(&server, ObjectStoreOptions::new().writable());
        let cache = Cache::new(CacheOptions::new().budget_bytes(64 * MIB)).unwrap();
        let object =
            cache.object(name, pager.clone(), ObjectOptions::new().writing(Writing::InPlace)).unwrap();
        let mapping = object.map(.., MapOptions::new().delivery(Delivery::PinOnly)).unwrap();
        let mut expected = sample_bytes(LENGTH).to_vec();
        for round in 0..2_u8 {
            let at = 4096 * usize::from(round);
            mapping.write_at(at as u64, &[round; 4096]).unwrap();
            mapping.sync(..).unwrap_or_else(|error| panic!("{name}: {}", message(&error)));
            expected[at..at + 4096].fill(round);
            let asked = server.asked();
            let put = asked.iter().rfind(|asked| asked.method == "PUT").unwrap();
            assert!(put.body == expected, "{name}");
            assert!(put.header("if-match").or(put.header("x-goog-if-generation-match")).is_some(), "{name}");
        }
        server.replace(Served::new(&expected, "two"));
        mapping.write_at(0, &[9; 4096]).unwrap();
        assert_eq!(mapping.sync(..).unwrap_err().kind(), ErrorKind::Stale, "{name}");
    }
}

const LIST_OF_AZURE: &str = "<?xml version=\"1.0\"?><EnumerationResults ServiceEndpoint=\"x\"><Blobs>\
    <Blob><Name>p q/a</Name><Properties><Last-Modified>Tue, 01 Dec 2026 04:06:08 GMT</Last-Modified><Etag>0x1</Etag>\
    <Content-Length>7</Content-Length></Properties></Blob><BlobPrefix><Name>p q/sub/</Name></BlobPrefix></Blobs>\
    <NextMarker /></EnumerationResults>";
const LIST_OF_GOOGLE: &str = "<?xml version='1.0'?><ListBucketResult xmlns='x'><IsTruncated>false</IsTruncated>\
    <Contents><Key>p q/a</Key><LastModified>2026-12-01T04:06:08.123Z</LastModified><ETag>\"0x1\"</ETag><Size>7</Size>\
    </Contents><CommonPrefixes><Prefix>p q/sub/</Prefix></CommonPrefixes></ListBucketResult>";

#[test]
fn folders_are_listed() {
    let azure = |server: &ListServer, options: ObjectStoreOptions| {
        let options = options.setting("azure_endpoint", server.url());
        options
            .setting("azure_storage_account_name", "account")
            .setting("azure_storage_account_key", "c2VjcmV0")
    };
    let google = |server: &ListServer, options: ObjectStoreOptions| {
        options.setting("google_base_url", server.url()).setting("google_bearer_token", "token")
    };
    type Lead = fn(&ListServer, ObjectStoreOptions) -> ObjectStoreOptions;
    let stores: [(&str, Lead, &str, &[&str]); 2] = [
        (
            "az://container/p%20q/",
            azure,
            LIST_OF_AZURE,
            &["/container?", "restype=container", "comp=list", "maxresults=1000"],
        ),
        ("gs://bucket/p%20q/", google, LIST_OF_GOOGLE, &["/bucket?", "list-type=2", "max-keys=1000"]),
    ];
    for (url, lead, list, words) in stores {
        let server = ListServer::of_names(0);
        server.answer_always(200, list);
        let folder = ObjectStoreFolder::open(url, lead(&server, ObjectStoreOptions::new())).unwrap();
        let entries = folder.entries("").unwrap().unwrap();
        for word in words.iter().chain(&["delimiter=%2F", "prefix=p+q%2F"]) {
            let last = server.last().replace("%20", "+");
            assert!(last.contains(word), "{url}: {word}: {last}");
        }
        assert_eq!(entries.len(), 2, "{url}");
        let StoreEntryKind::Object { length: 7, version: Some(version), .. } = &entries[0].kind else {
            panic!("{url}: {entries:?}")
        };
        assert_eq!((&entries[0].name[..], &version[..]), ("a", "\"0x1\""), "{url}");
        assert_eq!((&entries[1].name[..], &entries[1].kind), ("sub", &StoreEntryKind::Folder), "{url}");
    }
}
