//! What the files hold, so that a lost, torn or misplaced write is seen when they are read back.
//!
//! *Counters* (`rmw`): every word is the word of the read benchmark plus the number of times it was updated. The sum
//! of these numbers over the file grows by exactly the updates that were made; a lost one is missed in it.
//!
//! *Stamped pages* (`seqwrite`, `commit`): a page begins with the stamp of whoever wrote it last; the other words
//! follow from its index and that stamp, so that a page that is half one and half another is seen. A digest over
//! indices and stamps says whether each page is the newest.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::data::{self, PAGE_BYTES, PAGE_WORDS, WORD_BYTES, expected_word, mix};
use crate::job::Failure;

/// Updates of one word that are believed; more than that is a wrong word.
const MOST_UPDATES: u64 = 1 << 40;
/// Bytes of one read of a whole file.
const CHUNK_BYTES: usize = 1 << 20;

/// How often the word with this index was updated, if it holds `found`.
#[inline]
pub fn updates_of(word_index: u64, found: u64) -> Result<u64, Failure> {
    let updates = found.wrapping_sub(expected_word(word_index));
    if updates < MOST_UPDATES { Ok(updates) } else { Err(data::wrong_word(word_index, found)) }
}

/// The updates of all words of the file at `path`, read from the device.
pub fn updates_of_file(path: &Path) -> Result<u64, Failure> {
    let mut sum: u64 = 0;
    read_chunks(path, |offset, bytes| {
        for (index, word) in (offset / WORD_BYTES..).zip(words(bytes)) {
            sum = sum.wrapping_add(updates_of(index, word)?);
        }
        Ok(())
    })?;
    Ok(sum)
}

/// Makes `bytes` the page with this index and stamp.
pub fn fill_page(page: u64, stamp: u64, bytes: &mut [u8]) {
    let base = body(page, stamp);
    let (words, _) = bytes.as_chunks_mut::<{ WORD_BYTES as usize }>();
    for (index, word) in words.iter_mut().enumerate() {
        let value = if index == 0 { stamp } else { base.wrapping_add(index as u64) };
        *word = value.to_ne_bytes();
    }
}

/// The stamp of a page, or an error if its words do not belong together.
pub fn stamp_of(page: u64, bytes: &[u8]) -> Result<u64, Failure> {
    let stamp = words(bytes).next().unwrap_or(0);
    let base = body(page, stamp);
    let fits = |(index, word): (usize, u64)| index == 0 || word == base.wrapping_add(index as u64);
    if bytes.len() as u64 == PAGE_BYTES && words(bytes).enumerate().all(fits) {
        return Ok(stamp);
    }
    Err(Failure::WrongData(format!("page {page} is torn or is another one (stamp {stamp:#x})")))
}

fn body(page: u64, stamp: u64) -> u64 {
    mix(mix(page.wrapping_add(1)) ^ stamp)
}

/// What a page contributes to the digest; contributions are added.
pub fn page_digest(page: u64, stamp: u64) -> u64 {
    mix(body(page, stamp).wrapping_add(page))
}

/// The digest of the file of stamped pages at `path`, read from the device.
pub fn digest_of_file(path: &Path) -> Result<u64, Failure> {
    let mut digest: u64 = 0;
    read_chunks(path, |offset, bytes| {
        for (page, bytes) in (offset / PAGE_BYTES..).zip(bytes.chunks(PAGE_BYTES as usize)) {
            digest = digest.wrapping_add(page_digest(page, stamp_of(page, bytes)?));
        }
        Ok(())
    })?;
    Ok(digest)
}

/// Makes a file of stamped pages, all with stamp 0, durable.
pub fn write_stamped_file(path: &Path, len_bytes: u64) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(CHUNK_BYTES, File::create(path)?);
    let mut bytes = [0; PAGE_BYTES as usize];
    for page in 0..len_bytes / PAGE_BYTES {
        fill_page(page, 0, &mut bytes);
        file.write_all(&bytes)?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<{ WORD_BYTES as usize }>().0.iter().map(|word| u64::from_ne_bytes(*word))
}

fn read_chunks(path: &Path, mut see: impl FnMut(u64, &[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
    data::drop_page_cache(path)?;
    let file = File::open(path)?;
    let len_bytes = file.metadata()?.len();
    let mut chunk = vec![0; CHUNK_BYTES];
    for offset in (0..len_bytes).step_by(CHUNK_BYTES) {
        let wanted = (CHUNK_BYTES as u64).min(len_bytes - offset) as usize;
        file.read_exact_at(&mut chunk[..wanted], offset)?;
        see(offset, &chunk[..wanted])?;
    }
    Ok(())
}

/// The index of the first word of a page.
pub fn first_word(page: u64) -> u64 {
    page * PAGE_WORDS
}

#[cfg(test)]
mod tests {
    use super::{fill_page, stamp_of, updates_of};
    use crate::data::{PAGE_BYTES, expected_word};

    #[test]
    fn a_torn_or_misplaced_page_is_seen() {
        let (mut old, mut new) = ([0; PAGE_BYTES as usize], [0; PAGE_BYTES as usize]);
        fill_page(7, 1, &mut old);
        fill_page(7, 2, &mut new);
        assert_eq!(stamp_of(7, &new).unwrap(), 2);
        assert!(stamp_of(8, &new).is_err());
        new[512..].copy_from_slice(&old[512..]);
        assert!(stamp_of(7, &new).is_err());
        assert!(stamp_of(7, &[0; PAGE_BYTES as usize]).is_err());
        assert!(stamp_of(7, &old[..512]).is_err());
    }

    #[test]
    fn updates_are_counted_and_wrong_words_seen() {
        assert_eq!(updates_of(3, expected_word(3) + 5).unwrap(), 5);
        assert!(updates_of(3, 0).is_err());
        assert!(updates_of(3, expected_word(4)).is_err());
    }
}
