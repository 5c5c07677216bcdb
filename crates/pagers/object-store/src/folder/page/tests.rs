use std::time::Duration;

use super::*;

fn object(name: &str, length: u64, version: &str) -> StoreEntry {
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1_796_097_968);
    let version = Some(version).filter(|version| !version.is_empty()).map(Into::into);
    StoreEntry { name: name.into(), kind: StoreEntryKind::Object { length, modified, version } }
}

fn folder(name: &str) -> StoreEntry {
    StoreEntry { name: name.into(), kind: StoreEntryKind::Folder }
}

fn s3(inside: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{inside}\
         </ListBucketResult>\n"
    )
}

fn contents(name: &str) -> String {
    format!(
        "<Contents><Key>{name}</Key><LastModified>2026-12-01T04:06:08.999Z</LastModified><ETag>&quot;e&quot;</ETag>\
         <Size>7</Size></Contents>"
    )
}

#[test]
fn a_list_of_s3_is_read() {
    let inside = [
        "<IsTruncated>true</IsTruncated><NextContinuationToken>a&amp;b=</NextContinuationToken>",
        &contents("p/ a&amp;&lt;b&gt; "),
        &contents("p/%41+\u{e9}"),
        "<CommonPrefixes><Prefix>p/sub/</Prefix></CommonPrefixes>",
    ];
    let page = read(&s3(&inside.concat()), &S3, "p/").unwrap();
    let expected = [object(" a&<b> ", 7, "\"e\""), object("%41+\u{e9}", 7, "\"e\""), folder("sub")];
    assert_eq!(page, Page { entries: expected.into(), names: 3, next: Some("a&b=".into()) });
}

/// They count, so that a list of nothing else has an end, too.
#[test]
fn names_that_no_file_has_are_left_out() {
    let mut inside: String =
        ["p/", "p/a&#10;b", "p//a", "p/..", "other", "p/a/b", "p/&unknown;"].map(contents).concat();
    for prefix in ["p//", "p/../", "p/./", "p/x", "q/"] {
        inside += &format!("<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>");
    }
    let page = read(&s3(&inside), &S3, "p/").unwrap();
    assert_eq!(page, Page { entries: Vec::new(), names: 12, next: None });
}

#[test]
fn a_list_of_azure_is_read() {
    let blob = |name: &str, more: &str| {
        format!(
            "<Blob>{name}<Properties><Last-Modified>Tue, 01 Dec 2026 04:06:08 GMT</Last-Modified><Etag>0x1</Etag>\
             <Content-Length>7</Content-Length>{more}</Properties><OrMetadata/></Blob>"
        )
    };
    let blobs = [
        blob("<Name>p/a</Name>", ""),
        blob("<Name>p/dir</Name>", "<ResourceType>directory</ResourceType>"),
        blob("<Name Encoded=\"true\">p/%EF%BF%BE</Name>", ""),
        "<BlobPrefix><Name>p/sub/</Name></BlobPrefix>".into(),
    ];
    let text = format!(
        "\u{feff}<?xml version=\"1.0\"?><EnumerationResults ServiceEndpoint=\"http://x/\"><Prefix>p/</Prefix><Blobs>{}</Blobs>\
         <NextMarker /></EnumerationResults>",
        blobs.concat()
    );
    let page = read(&text, &AZURE, "p/").unwrap();
    let expected = [object("a", 7, "\"0x1\""), folder("dir"), folder("sub")];
    assert_eq!(page, Page { entries: expected.into(), names: 4, next: None });
}

#[test]
fn an_answer_that_is_no_list_is_refused() {
    let kind = |text: &str| read(text, &S3, "").unwrap_err().kind;
    assert_eq!(kind(""), ErrorKind::Integrity);
    assert_eq!(kind("<html>hello</html>"), ErrorKind::Integrity);
    assert_eq!(kind("<ListBucketResult><Contents><Key>a</Key>"), ErrorKind::Truncated);
    assert_eq!(kind(&s3("<IsTruncated>true</IsTruncated>")), ErrorKind::Integrity);
}
