//! A file system whose server stops answering: whoever does not use its files goes on.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use memobj::{Delivery, ErrorKind, MapOptions, ObjectOptions};
use memobj_sim::fixture::{cache, check_sample, sample_bytes, sample_pager, wait_until, within};

const LENGTH: u64 = 64 * 4096;
/// The root of the file system, and its one file.
const ROOT: u64 = 1;
const FILE: u64 = 2;

/// A server of one file, in the protocol of FUSE (fuse(4), linux/fuse.h), that can be told to stop answering.
struct Server {
    folder: tempfile::TempDir,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    hangs: Mutex<bool>,
    goes_on: Condvar,
    /// Questions that wait for an answer because it hangs.
    held: AtomicUsize,
}

impl Shared {
    fn hang(&self, hangs: bool) {
        *self.hangs.lock().unwrap() = hangs;
        self.goes_on.notify_all();
    }
}

impl Server {
    /// `None`, with a reason, where this user cannot have one.
    fn start() -> Option<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let Ok(device) = device else {
            println!("skipped: /dev/fuse cannot be opened");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        rustix::io::fcntl_setfd(&device, rustix::io::FdFlags::empty()).unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_fd().as_raw_fd());
        let mut mount = Command::new("mount");
        mount.args(["-i", "-t", "fuse", "-o", &options, "memobj-test"]).arg(folder.path());
        // Mounting waits for nobody: the first question is answered later.
        let mounted = mount.output();
        if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
            println!("skipped: a file system of FUSE cannot be mounted: {mounted:?}");
            return None;
        }
        rustix::io::fcntl_setfd(&device, rustix::io::FdFlags::CLOEXEC).unwrap();
        let shared = Arc::new(Shared::default());
        let device = Arc::new(device);
        for _ in 0..2 {
            let (device, shared) = (Arc::clone(&device), Arc::clone(&shared));
            std::thread::spawn(move || serve(&device, &shared));
        }
        Some(Self { folder, shared })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("file")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.hang(false);
        unmount(self.folder.path());
    }
}

fn unmount(folder: &Path) {
    let _ = Command::new("umount").arg("-l").arg(folder).output();
}

fn serve(device: &File, shared: &Arc<Shared>) {
    let mut request = vec![0; 256 << 10];
    loop {
        let length = match (&*device).read(&mut request) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            // Unmounted.
            Err(_) => return,
        };
        let request = &request[..length];
        let (opcode, unique, node) = (word(request, 4) as u32, long(request, 8), long(request, 16));
        let is_metadata = [3, 52].contains(&opcode) && node == FILE;
        if is_metadata && *shared.hangs.lock().unwrap() {
            hold(device, shared, unique);
            continue;
        }
        if let Some(answer) = answer(opcode, node, request) {
            reply(device, unique, answer);
        }
    }
}

/// Answers once the server goes on.
fn hold(device: &File, shared: &Arc<Shared>, unique: u64) {
    let (device, shared) = (device.try_clone().unwrap(), Arc::clone(shared));
    shared.held.fetch_add(1, Ordering::SeqCst);
    std::thread::spawn(move || {
        let hangs = shared.hangs.lock().unwrap();
        drop(shared.goes_on.wait_while(hangs, |hangs| *hangs).unwrap());
        shared.held.fetch_sub(1, Ordering::SeqCst);
        reply(&device, unique, Ok(attributes_answer(FILE)));
    });
}

fn reply(device: &File, unique: u64, answer: Result<Vec<u8>, i32>) {
    let (error, body) = match answer {
        Ok(body) => (0, body),
        Err(error) => (-error, Vec::new()),
    };
    let mut bytes = Vec::new();
    bytes.extend((16 + body.len() as u32).to_le_bytes());
    bytes.extend(error.to_le_bytes());
    bytes.extend(unique.to_le_bytes());
    bytes.extend(body);
    // Whoever asked may have given up.
    let _ = (&*device).write(&bytes);
}

fn answer(opcode: u32, node: u64, request: &[u8]) -> Option<Result<Vec<u8>, i32>> {
    const ENOENT: i32 = 2;
    const ENOSYS: i32 = 38;
    Some(match opcode {
        // LOOKUP
        1 if request[40..].starts_with(b"file\0") => {
            let mut entry = Vec::new();
            // The node and its generation; how long name and attributes hold: not at all.
            [FILE, 0, 0, 0, 0].iter().for_each(|value: &u64| entry.extend(value.to_le_bytes()));
            entry.extend(attributes(FILE));
            Ok(entry)
        }
        1 => Err(ENOENT),
        // FORGET, BATCH_FORGET and INTERRUPT have no answer.
        2 | 36 | 42 => return None,
        // GETATTR
        3 => Ok(attributes_answer(node)),
        // OPEN, OPENDIR
        14 | 27 => Ok(vec![0; 16]),
        // READ
        15 => {
            let (offset, size) = (long(request, 48), word(request, 56));
            let end = (offset + size).min(LENGTH);
            Ok(sample_bytes(LENGTH)[offset.min(end) as usize..end as usize].to_vec())
        }
        // STATFS
        17 => Ok(vec![0; 80]),
        // RELEASE, FLUSH, RELEASEDIR
        18 | 25 | 29 => Ok(Vec::new()),
        // INIT: version 7.31, and no feature.
        26 => {
            let mut init = vec![0; 64];
            init[..4].copy_from_slice(&7_u32.to_le_bytes());
            init[4..8].copy_from_slice(&31_u32.to_le_bytes());
            init[8..12].copy_from_slice(&(128_u32 << 10).to_le_bytes());
            init[20..24].copy_from_slice(&(128_u32 << 10).to_le_bytes());
            Ok(init)
        }
        _ => Err(ENOSYS),
    })
}

fn attributes_answer(node: u64) -> Vec<u8> {
    let mut answer = vec![0; 16];
    answer.extend(attributes(node));
    answer
}

/// `struct fuse_attr`: times are zero.
fn attributes(node: u64) -> Vec<u8> {
    let (mode, size): (u32, u64) = if node == ROOT { (0o40_755, 0) } else { (0o100_644, LENGTH) };
    let mut bytes = Vec::new();
    [node, size, size / 512, 0, 0, 0].iter().for_each(|value| bytes.extend(value.to_le_bytes()));
    [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].iter().for_each(|value: &u32| bytes.extend(value.to_le_bytes()));
    bytes
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()).into()
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Faults of files of a server that hangs wait, as many as there are; those of other objects do not.
#[test]
fn a_server_that_hangs_stops_its_own_files_only() {
    let Some(server) = Server::start() else { return };
    for delivery in [Delivery::ReaderThread, Delivery::InThread, Delivery::PinOnly] {
        one_delivery(&server, delivery);
    }
}

fn one_delivery(server: &Server, delivery: Delivery) {
    let cache = cache(4 << 20);
    let options = ObjectOptions::new().supply_timeout(Duration::from_secs(1));
    let path = server.path();
    let (opener, opened) = (cache.clone(), options.clone());
    let remote = within(20, "open", move || opener.open_file(path, opened).unwrap());
    let map = MapOptions::new().delivery(delivery);
    let remote = remote.map(0..LENGTH, map).unwrap();
    check_sample(0..4096, &remote.pin(0..4096).unwrap(), "before it hangs");
    server.shared.hang(true);
    let readers: Vec<_> = (1..9)
        .map(|page| {
            let remote = remote.clone();
            std::thread::spawn(move || read(&remote, delivery, page * 7 * 4096))
        })
        .collect();
    wait_until("questions wait", || server.shared.held.load(Ordering::SeqCst) > 1);
    let local = cache.object("local", sample_pager(LENGTH), options).unwrap();
    let bytes = within(20, &format!("another object, {delivery:?}"), move || {
        let local = local.map(0..LENGTH, map).unwrap();
        (0..20).map(|page| read(&local, delivery, page * 4096).unwrap()).collect::<Vec<u8>>()
    });
    let right: Vec<u8> = (0..20).map(|page| sample_bytes(LENGTH)[page * 4096]).collect();
    assert_eq!(bytes, right, "{delivery:?}");
    // What waited fails by its own time-out.
    for reader in readers {
        let error = within(20, "a reader", move || reader.join().unwrap().unwrap_err());
        assert_eq!(error, ErrorKind::Timeout, "{delivery:?}");
    }
    server.shared.hang(false);
    within(20, "the end", move || drop((remote, cache)));
}

fn read(mapping: &memobj::Mapping, delivery: Delivery, offset: u64) -> Result<u8, ErrorKind> {
    let mut byte = [0];
    let read = match delivery {
        Delivery::PinOnly => mapping.pin(offset..offset + 1).map(|bytes| byte[0] = bytes[0]),
        _ => mapping.touch_at(offset, &mut byte),
    };
    read.map(|()| byte[0]).map_err(|error| error.page_error().unwrap().kind())
}
