//! Mappings of objects.

use crate::command::{python, run};

const OBJECT: &str = "/data/m=1000003,seed=5";

/// All mappings are of the frames of the object.
#[test]
fn mappings_are_served() {
    let Some(end) = python(
        &["--totals", "--map", OBJECT],
        r"
n = 1000003
whole = data(0, n, 5)
fd = os.open('/data/m', os.O_RDONLY)
def check(m):
    lines = [line for line in open('/proc/self/maps') if 'memobj:synthetic' in line]
    assert lines and not [line for line in open('/proc/self/maps') if line.endswith('/data/m\n')], lines
    assert m[:] == whole
check(mmap.mmap(fd, 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED))
check(mmap.mmap(fd, 0, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE))
check(mmap.mmap(fd, 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE))
m = mmap.mmap(fd, 0, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_PRIVATE)
m[5:8] = b'abc'
assert m[:] == whole[:5] + b'abc' + whole[8:] and os.pread(fd, 10, 0) == whole[:10]
os.close(fd)
assert m[500000:500100] == whole[500000:500100]
try:
    mmap.mmap(os.open('/data/m', os.O_RDONLY), 0, prot=mmap.PROT_READ | mmap.PROT_WRITE, flags=mmap.MAP_SHARED)
except PermissionError:
    print('right')
",
    ) else {
        return;
    };
    assert_eq!((end.code, &end.out[..]), (Some(0), "right\n"), "{end:#?}");
    // Reads and mappings of the object have its bytes once. The rest is Python.
    assert!(end.total("passed_through") <= 1, "{end:#?}");
}

/// What a program reads of an object, and maps, comes from its pager once.
#[test]
fn reads_and_mappings_have_the_same_frames() {
    let object = "/data/m=33554432,seed=5,block=65536";
    let with = |program: &str| python(&["--totals", "--map", object], program);
    let Some(end) = with(
        "fd = os.open('/data/m', os.O_RDONLY)\nwhile os.read(fd, 1 << 20): pass\n\
         m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)\nassert len(m[:]) == 33554432\nprint(1)",
    ) else {
        return;
    };
    assert_eq!((end.code, end.total("supplied_by_objects")), (Some(0), 33_554_432), "{end:#?}");
}

/// One tensor of a large file.
#[test]
fn a_part_of_a_large_object_moves_little_more_than_that() {
    let object = "/data/m=1073741824,seed=5,block=1048576";
    let with = |program: &str| python(&["--totals", "--map", object], program);
    let Some(end) = with(
        "fd = os.open('/data/m', os.O_RDONLY)\nos.pread(fd, 4096, 0)\n\
         m = mmap.mmap(fd, 0, prot=mmap.PROT_READ)\nat = 700 << 20\n\
         assert m[at:at + 4096] == data(at, at + 4096, 5) and len(m[at:at + (8 << 20)]) == 8 << 20\nprint(1)",
    ) else {
        return;
    };
    let moved = end.total("supplied_by_objects");
    assert!((8 << 20..1_073_741_824 / 20).contains(&moved), "{moved}: {end:#?}");
}

#[test]
fn the_budget_holds_for_several_processes() {
    let script = "cksum /data/m & python3 -c \"import mmap; f = open('/data/m', 'rb'); \
        m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ); print(len(m[:]))\" & cksum /data/m & wait";
    let maps = ["--budget", "8388608", "--totals", "--map", "/data/m=50000000,seed=3"];
    let Some(end) = run(&maps, &["bash", "-c", script]) else { return };
    let mut lines: Vec<_> = end.out.lines().collect();
    lines.sort_unstable();
    assert!(
        end.code == Some(0) && lines.len() == 3 && lines[1] == lines[0].max(lines[1]).min(lines[2]),
        "{end:#?}"
    );
    let sums: Vec<_> = lines.iter().filter(|line| line.ends_with("/data/m")).collect();
    assert!(sums.len() == 2 && sums[0] == sums[1] && end.out.contains("50000000\n"), "{end:#?}");
    assert!(end.total("peak_frame_bytes") <= 8_388_608, "{end:#?}");
}
