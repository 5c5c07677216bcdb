use super::source::TableSource;
use super::{maps, print};
use crate::image_args::SegmentsFormat;

/// A run of two programs: files behind objects, a file of the kernel's, an object without a file.
const OBJECTS: &str = include_str!("objects.maps");

/// 25 areas of a program, as acid printed them.
const SAMPLE: &str = include_str!("umem-sample.txt");

/// The sample as Linux would have told it.
fn sample_as_maps() -> String {
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(' ').collect();
        let range = fields[1].replace("0x", "");
        match fields[2].strip_prefix("0x").and_then(|place| place.split_once('@')) {
            Some((offset, name)) => format!("{range} r-xp {offset} 08:01 42 {name}\n"),
            None if fields[0] == "2" => format!("{range} rw-p 00000000 00:00 0 [stack]\n"),
            None => format!("{range} rw-p 00000000 00:00 0 \n"),
        }
    };
    SAMPLE.lines().map(line).collect()
}

/// The text of a table in a file.
fn printed(text: &str, format: SegmentsFormat) -> String {
    String::from_utf8(printed_bytes(text.as_bytes(), format)).expect("UTF-8")
}

fn printed_bytes(text: &[u8], format: SegmentsFormat) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("maps");
    std::fs::write(&path, text).expect("a file");
    let mut out = Vec::new();
    print(&mut TableSource::file(&path).expect("a table"), format, &mut out).expect("rows");
    out
}

#[test]
fn umem_prints_the_sample() {
    assert_eq!(SAMPLE.lines().count(), 25);
    assert_eq!(printed(&sample_as_maps(), SegmentsFormat::Umem), SAMPLE);
}

#[test]
fn addresses_of_64_bits_have_16_digits() {
    let text = "7ffc0a1b2000-7ffc0a1d3000 rw-p 00000000 00:00 0 [stack]\n\
                00400000-00401000 r-xp 123456789000 fe:00 7 /x\n";
    assert_eq!(
        printed(text, SegmentsFormat::Umem),
        "2 0x00007ffc0a1b2000-0x00007ffc0a1d3000 *ANON*\n1 0x00400000-0x00401000 0x0000123456789000@/x\n"
    );
    assert_eq!(
        printed(text, SegmentsFormat::Plan9),
        "Stack     00007ffc0a1b2000 00007ffc0a1d3000    1\nText   R  0000000000400000 0000000000401000    1\n"
    );
}

#[test]
fn plan_9_has_the_stack_first_and_fixed_columns() {
    let text = "00001000-00020000 r-xp 00000000 fe:00 7 /bin/x\n\
                00020000-00029000 rw-p 0001f000 fe:00 7 /bin/x\n\
                00029000-00054000 rw-s 00000000 00:01 9 /dev/zero (deleted)\n\
                08048000-082c1000 rw-p 00000000 00:00 0 [heap]\n\
                b0000000-b0001000 r-xp 00000000 00:00 0 [vdso]\n\
                defff000-dffff000 rw-p 00000000 00:00 0 [stack]\n";
    let expected = "Stack     defff000 dffff000    1\n\
                    Text   R  00001000 00020000    1\n\
                    Data      00020000 00029000    1\n\
                    Shared    00029000 00054000    1\n\
                    Bss       08048000 082c1000    1\n\
                    Phys   R  b0000000 b0001000    1\n";
    assert_eq!(printed(text, SegmentsFormat::Plan9), expected);
}

#[test]
fn what_the_kernel_prints_comes_out_as_it_went_in() {
    let text = std::fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
    assert_eq!(printed(&text, SegmentsFormat::Linux), text);
    assert_eq!(printed(&text, SegmentsFormat::Umem).lines().count(), text.lines().count());
}

#[test]
fn objects_are_shown_as_their_files() {
    let golden = [
        (SegmentsFormat::Linux, include_str!("objects.linux")),
        (SegmentsFormat::Plan9, include_str!("objects.plan9")),
        (SegmentsFormat::Umem, include_str!("objects.umem")),
        (SegmentsFormat::Json, include_str!("objects.json")),
    ];
    for (format, expected) in golden {
        assert_eq!(printed(OBJECTS, format), expected, "{format:?}");
    }
}

#[test]
fn only_names_of_objects_are_taken_for_them() {
    let of = |name: &str| {
        let line = format!("1000-2000 r--p 00000000 00:01 5    {name}");
        let row = maps::parse(line.as_bytes()).expect("a row");
        (row.object, String::from_utf8(row.name).expect("text"))
    };
    let shown = |is_object, name: &str| (is_object, name.to_string());
    assert_eq!(of("/memfd:memobj:/a b (deleted) (deleted)"), shown(true, "/a b (deleted)"));
    assert_eq!(of("/memfd:memobj:/a"), shown(true, "/a"));
    assert_eq!(of("/memfd:memobj:/a\\\\x41\\x41\\x4 (deleted)"), shown(true, "/a\\x41A\\x4"));
    for other in
        ["/memfd:memobj:nothing (deleted)", "/memfd:x:/a (deleted)", "/tmp/memfd:memobj:/a", "/a (deleted)"]
    {
        assert_eq!(of(other), shown(false, other));
    }
}

#[test]
fn names_that_are_not_utf_8_keep_their_bytes() {
    let names: [&[u8]; 2] = [b"/a\xff\xfe b", b"/memfd:memobj:/caf\\xe9 (deleted)"];
    for (name, shown) in names.iter().zip([&b"/a\xff\xfe b"[..], b"/caf\xe9"]) {
        let begin = format!("{:73}", "00001000-00002000 r--p 00000000 00:01 5 ");
        let line = [begin.as_bytes(), name, b"\n"].concat();
        let lines = [begin.as_bytes(), shown, b"\n"].concat();
        assert_eq!(printed_bytes(&line, SegmentsFormat::Linux), lines);
        let umem = [&b"1 0x00001000-0x00002000 0x00000000@"[..], shown, b"\n"].concat();
        assert_eq!(printed_bytes(&line, SegmentsFormat::Umem), umem);
        let json: serde_json::Value =
            serde_json::from_slice(&printed_bytes(&line, SegmentsFormat::Json)).expect("JSON");
        let hex: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(json[0]["name_hex"], serde_json::Value::from(hex));
        assert_eq!(json[0]["name"], serde_json::Value::from(String::from_utf8_lossy(shown)));
    }
}

#[test]
fn other_lines_are_no_rows() {
    for line in ["", "1000-2000", "2000-1000 r-xp 0 0:0 0", "x-y r-xp 0 0:0 0 ", "1000-2000 r-x 0 0:0 0 "] {
        assert_eq!(maps::parse(line.as_bytes()), None, "{line:?}");
    }
    let row = maps::parse(b"1000-2000 r--p 00000000 00:00 5    a name  with blanks ").expect("a row");
    assert_eq!(row.name, b"a name  with blanks ");
}
