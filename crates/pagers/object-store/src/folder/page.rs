//! One answer of a list: at most a thousand names.
//!
//! The answers are those of ListObjectsV2 of S3, which Google Cloud Storage has too, and of List Blobs of Azure. They are read
//! here and not by object_store, which fails where one name cannot be a path of its own.

use std::time::SystemTime;

use http::StatusCode;
use memobj::ErrorKind;

use super::entry::{StoreEntry, StoreEntryKind, can_be_a_name, time};
use crate::failure::Failure;
use crate::open::refused;
use crate::store::Store;
use crate::time::within;
use crate::transport::Transport;
use crate::xml;

/// Answers are no longer. Names have at most 1024 bytes, each of which can be written as six.
const LONGEST_ANSWER: usize = 10 << 20;

/// What one answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// What can be seen as a file or a folder.
    pub(super) entries: Vec<StoreEntry>,
    /// All names, also those that cannot.
    pub(super) names: usize,
    /// Where the list goes on, if it does.
    pub(super) next: Option<String>,
}

/// The elements of an answer.
struct Form {
    root: &'static str,
    object: &'static str,
    object_name: &'static str,
    folder: &'static str,
    folder_name: &'static str,
    length: &'static str,
    modified: &'static str,
    tag: &'static str,
    next: &'static str,
}

const S3: Form = Form {
    root: "ListBucketResult",
    object: "Contents",
    object_name: "Key",
    folder: "CommonPrefixes",
    folder_name: "Prefix",
    length: "Size",
    modified: "LastModified",
    tag: "ETag",
    next: "NextContinuationToken",
};

const AZURE: Form = Form {
    root: "EnumerationResults",
    object: "Blob",
    object_name: "Name",
    folder: "BlobPrefix",
    folder_name: "Name",
    length: "Content-Length",
    modified: "Last-Modified",
    tag: "Etag",
    next: "NextMarker",
};

/// Asks for at most `most` names that begin with `prefix`, from `token` on.
pub(super) async fn page(
    (store, transport): (&Store, &Transport),
    prefix: &str,
    token: Option<String>,
    most: usize,
) -> Result<Page, Failure> {
    let request = store.list(prefix, token.clone(), most).await?;
    let mut response = transport.send(request).await?;
    if response.status() != StatusCode::OK {
        return Err(refused(transport, response).await);
    }
    let body = transport.body(&mut response, LONGEST_ANSWER);
    let body = within(&transport.clock, transport.timeout, body).await;
    let body = body.ok_or_else(|| Failure::timeout(transport.timeout, "no end of a list"))??;
    let text =
        std::str::from_utf8(&body).map_err(|error| wrong(format!("a list that is no text: {error}")))?;
    let form = if matches!(store, Store::Azure(..)) { AZURE } else { S3 };
    let page = read(text, &form, prefix)?;
    match page.next {
        Some(_) if page.next == token => Err(endless()),
        _ => Ok(page),
    }
}

fn wrong(what: impl Into<String>) -> Failure {
    Failure::new(ErrorKind::Integrity, what)
}

/// A list that goes on without an end.
pub(super) fn endless() -> Failure {
    wrong("a list that does not end")
}

fn read(text: &str, form: &Form, prefix: &str) -> Result<Page, Failure> {
    if !text.contains(&format!("<{}", form.root)) {
        return Err(wrong("the answer is no list"));
    }
    if !text.trim_end().ends_with(&format!("</{}>", form.root)) {
        return Err(Failure::new(ErrorKind::Truncated, "the list ends early"));
    }
    let (objects, folders) = (xml::all(text, form.object), xml::all(text, form.folder));
    let next = xml::exact(text, form.next).filter(|next| !next.is_empty());
    if next.is_none() && xml::text(text, "IsTruncated").as_deref() == Some("true") {
        return Err(wrong("the list does not say where it goes on"));
    }
    let names = objects.len() + folders.len();
    let objects = objects.into_iter().filter_map(|element| object(element, form, prefix));
    let folders = folders.into_iter().filter_map(|element| folder(element, form, prefix));
    Ok(Page { entries: objects.chain(folders).collect(), names, next })
}

/// `None`: it cannot be seen as a file.
fn object(element: &str, form: &Form, prefix: &str) -> Option<StoreEntry> {
    let name = xml::exact(element, form.object_name)?;
    let name = name.strip_prefix(prefix).filter(|name| can_be_a_name(name))?;
    if xml::text(element, "ResourceType").as_deref() == Some("directory") {
        return Some(StoreEntry { name: name.to_owned(), kind: StoreEntryKind::Folder });
    }
    let modified = xml::text(element, form.modified).and_then(|text| time(&text));
    let kind = StoreEntryKind::Object {
        length: xml::text(element, form.length)?.parse().ok()?,
        modified: modified.unwrap_or(SystemTime::UNIX_EPOCH),
        version: xml::text(element, form.tag).and_then(|tag| version(&tag)),
    };
    Some(StoreEntry { name: name.to_owned(), kind })
}

/// The version that an object with this entity tag is. In lists of Azure the quotes are missing that its headers have.
fn version(tag: &str) -> Option<std::sync::Arc<str>> {
    match tag {
        "" => None,
        _ if tag.starts_with("W/") => None,
        _ if tag.starts_with('"') => Some(tag.into()),
        _ => Some(format!("\"{tag}\"").into()),
    }
}

fn folder(element: &str, form: &Form, prefix: &str) -> Option<StoreEntry> {
    let name = xml::exact(element, form.folder_name)?;
    let name = name.strip_prefix(prefix)?.strip_suffix('/').filter(|name| can_be_a_name(name))?;
    Some(StoreEntry { name: name.to_owned(), kind: StoreEntryKind::Folder })
}

#[cfg(test)]
mod tests;
