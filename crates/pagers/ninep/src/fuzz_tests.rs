//! Whatever comes from the network: it is taken apart or refused, without a panic, and within the memory that was agreed on.

use proptest::prelude::*;

use crate::dialect::Dialect;
use crate::folder::{can_be_a_name, read_entries, read_records};
use crate::frames::{FrameError, Frames};
use crate::message::{self, Answer, OpenMode, Reply, User, kind};
use crate::options::VersionCheck;

fn dialect() -> impl Strategy<Value = Dialect> {
    prop::sample::select(Dialect::ALL.to_vec())
}

/// A message of a type that exists, with a size that is right and a body that is anything.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop::sample::select(vec![
        7, 13, 25, 27, 41, 51, 101, 105, 107, 109, 111, 113, 117, 119, 121, 125, 127,
    ]);
    (kinds, any::<u16>(), prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(kind, tag, body)| {
        let size = u32::try_from(7 + body.len()).unwrap();
        [&size.to_le_bytes()[..], &[kind], &tag.to_le_bytes(), &body].concat()
    })
}

/// Gives a few bytes at once.
struct Pieces<'a>(&'a [u8], usize);

impl std::io::Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.1.min(self.0.len()).min(buffer.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_taken_apart_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), dialect in dialect()) {
        let _ = Answer::decode(&bytes, dialect);
    }

    #[test]
    fn any_body_is_taken_apart_or_refused(bytes in message(), dialect in dialect()) {
        if let Ok(answer) = Answer::decode(&bytes, dialect) {
            prop_assert_eq!(answer.kind, bytes[4]);
            prop_assert_eq!(answer.tag, u16::from_le_bytes([bytes[5], bytes[6]]));
            if let Reply::Read(data) | Reply::Entries(data) = answer.reply {
                prop_assert_eq!(data, &bytes[11..]);
            }
        }
    }

    /// Entries of folders: those that are seen have names that files can have, and are no more than the bytes have room for.
    #[test]
    fn any_entries_are_taken_apart_or_refused(
        names in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..6), 0..9),
        head in prop::collection::vec(any::<u8>(), 41),
        cut in 0usize..400,
    ) {
        let name = |name: &[u8]| [&(name.len() as u16).to_le_bytes()[..], name].concat();
        let linux: Vec<u8> = names.iter().flat_map(|one| [&head[..22], &name(one)].concat()).collect();
        let plan9: Vec<u8> = names
            .iter()
            .flat_map(|one| {
                let body = [&head[..39], &name(one)].concat();
                [&(body.len() as u16).to_le_bytes()[..], &body].concat()
            })
            .collect();
        let cut = |bytes: &[u8]| bytes[..cut.min(bytes.len())].to_vec();
        for read in [read_entries(7, &cut(&linux)), read_records(7, &cut(&plan9), VersionCheck::Mtime)] {
            let Ok((entries, count, _)) = read else { continue };
            prop_assert!(entries.len() <= count && count <= names.len());
            prop_assert!(entries.iter().all(|entry| can_be_a_name(&entry.name)));
        }
    }

    /// However the bytes come, the same messages come out; a size that is not allowed is refused at once.
    #[test]
    fn messages_are_cut_where_they_end(
        messages in prop::collection::vec(message(), 0..20),
        piece in 1usize..500,
        bad in prop::option::of(prop_oneof![0u32..7, 1000u32..u32::MAX]),
    ) {
        let mut bytes = messages.concat();
        bytes.extend(bad.into_iter().flat_map(u32::to_le_bytes));
        let (mut frames, mut pieces) = (Frames::new(999), Pieces(&bytes, piece));
        for message in &messages {
            prop_assert_eq!(frames.next(&mut pieces).unwrap(), &message[..]);
        }
        match (frames.next(&mut pieces), bad) {
            (Err(FrameError::Size(size)), Some(bad)) => prop_assert_eq!(size, bad),
            (Err(FrameError::Ended), None) => {}
            (other, _) => prop_assert!(false, "{:?}", other.map(<[u8]>::len)),
        }
    }

    /// What is sent has the size that it says.
    #[test]
    fn what_is_sent_is_whole(
        tag in any::<u16>(), offset in any::<u64>(), data in prop::collection::vec(any::<u8>(), 0..100), dialect in dialect(),
    ) {
        let user = User { name: "somebody".into(), number: 7 };
        let mut sent: Vec<Vec<u8>> = Vec::new();
        let mut add = |encode: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            encode(&mut out);
            sent.push(out);
        };
        add(&|out| message::version(out, 8192, dialect.name()));
        add(&|out| message::attach(out, tag, 1, (&user, "tree"), dialect));
        add(&|out| message::walk(out, tag, (1, 2), std::slice::from_ref(&data)));
        add(&|out| message::open(out, tag, 1, OpenMode::ReadWrite, dialect));
        add(&|out| message::read(out, tag, 1, offset, 7));
        add(&|out| message::write(out, tag, 1, offset, &data));
        add(&|out| message::readdir(out, tag, 1, offset, 7));
        add(&|out| message::clunk(out, tag, 1));
        add(&|out| message::flush(out, tag, 7));
        add(&|out| message::stat(out, tag, 1, dialect));
        add(&|out| message::sync(out, tag, 1, dialect));
        add(&|out| message::set_length(out, tag, 1, offset, dialect));
        for bytes in sent {
            prop_assert_eq!(u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len());
        }
    }
}

/// The bodies of Twstat, to the byte: stat(5), and with numbers behind in 9P2000.u.
#[test]
fn a_sync_of_plan_9_touches_nothing() {
    for (dialect, extra) in [(Dialect::Plan9, 0), (Dialect::Unix, 14)] {
        let mut out = Vec::new();
        message::sync(&mut out, 3, 9, dialect);
        let stat = 47 + extra;
        let mut expected = vec![0, 0, 0, 0, kind::TWSTAT, 3, 0, 9, 0, 0, 0];
        expected.extend(u16::to_le_bytes(stat + 2));
        expected.extend(u16::to_le_bytes(stat));
        expected.extend([255; 39]);
        expected.extend([0; 8]);
        if extra > 0 {
            expected.extend([0; 2]);
            expected.extend([255; 12]);
        }
        expected[0] = u8::try_from(expected.len()).unwrap();
        assert_eq!(out, expected, "{dialect}");
    }
}
