//! Reads of all kinds.

use crate::command::{python, run};

const OBJECT: &str = "/data/m=1000003,seed=5";

#[test]
fn an_object_is_a_file_of_its_length() {
    let script = "stat -c '%s %A %F' /data/m; cat /data/m | wc -c; readlink /proc/self/fd/0 < /data/m";
    let Some(end) = run(&["--map", OBJECT], &["sh", "-c", script]) else { return };
    end.says("1000003 -r--r--r-- regular file\n1000003\n/data/m\n");
}

#[test]
fn all_kinds_of_reads_see_its_bytes() {
    let Some(end) = python(
        &["--map", OBJECT],
        r"
n = 1000003
whole = data(0, n, 5)
f = open('/data/m', 'rb')
assert f.read() == whole
fd = f.fileno()
for start, size in [(0, 1), (4095, 2), (777, 10), (4096, 4096), (12345, 300001), (n - 5, 100), (n, 10), (n + 99, 10)]:
    assert os.pread(fd, size, start) == whole[start:start + size], (start, size)
    parts = [bytearray(7), bytearray(size)]
    got = os.preadv(fd, parts, start)
    assert b''.join(parts)[:got] == whole[start:start + got] and got == min(7 + size, max(0, n - start)), (start, size)
assert os.lseek(fd, -5, os.SEEK_END) == n - 5 and os.read(fd, 100) == whole[-5:]
assert os.lseek(fd, 100, os.SEEK_DATA) == 100 and os.lseek(fd, 100, os.SEEK_HOLE) == n
import tempfile, errno
with tempfile.TemporaryFile() as out:
    done = 0
    while done < n:
        done += os.sendfile(out.fileno(), fd, done, n - done)
    out.seek(0)
    assert out.read() == whole
    try:
        os.copy_file_range(fd, out.fileno(), 100)
    except OSError as error:
        # As between any two file systems: who copies goes on by reading.
        assert error.errno == errno.EXDEV
print('right')
",
    ) else {
        return;
    };
    end.says("right\n");
}

#[test]
fn odd_offsets_of_dd() {
    let script = "dd if=/data/m bs=1 skip=12345 count=7 2> /dev/null | od -An -tx1; \
        dd if=/data/m bs=4097 skip=3 count=1 2> /dev/null | wc -c; dd if=/data/m iflag=direct bs=64k 2> /dev/null | wc -c";
    let Some(end) = run(&["--map", OBJECT], &["sh", "-c", script]) else { return };
    end.says(" 23 c6 0d a8 0d 74 b7\n4097\n1000003\n");
}

#[test]
fn nothing_can_be_changed() {
    let script = "(echo x > /data/m) 2>&1; (echo x >> /data/m) 2>&1; truncate -s 1 /data/m 2>&1; \
        (echo x > /dir/new) 2>&1; stat -c %s /data/m";
    let maps = ["--map", OBJECT, "--map", "/dir=dir:a=5"];
    let Some(end) = run(&maps, &["bash", "-c", script]) else { return };
    assert_eq!((end.code, end.out.matches("Read-only file system").count()), (Some(0), 4), "{end:#?}");
    assert!(end.out.ends_with("1000003\n"), "{end:#?}");
}

/// An object of a TiB is opened, and read at its end, without memory for it.
#[test]
fn a_very_long_object_takes_the_memory_that_is_read() {
    let Some(end) = python(
        &["--budget", "8388608", "--totals", "--map", "/big=1099511627776,seed=9,block=1048576"],
        r"
f = open('/big', 'rb', buffering=0)
n = os.fstat(f.fileno()).st_size
assert n == 1 << 40
for at in (n - 100, n // 2 + 12345, 0):
    f.seek(at)
    assert f.read(100) == data(at, min(n, at + 100), 9), at
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE)
assert m[n - 5000:n - 4900] == data(n - 5000, n - 4900, 9)
resident = open('/proc/%d/status' % os.getppid()).read().split('VmRSS:')[1].split()[0]
assert int(resident) < 64 << 10, resident
print('right')
",
    ) else {
        return;
    };
    assert_eq!((end.code, &end.out[..]), (Some(0), "right\n"), "{end:#?}");
    assert!(end.total("peak_frame_bytes") <= 8_388_608, "{end:#?}");
    assert!(end.total("read_bytes") < 64 << 20, "{end:#?}");
}
