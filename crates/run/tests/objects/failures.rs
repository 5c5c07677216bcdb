//! Ranges that cannot be supplied.

use crate::command::python;

/// read(2) answers an error, a touch traps, and a line names the object and the range: once.
#[test]
fn a_range_that_fails_is_an_error_of_reads() {
    for (kind, errno) in [("io", "EIO"), ("stale", "ESTALE"), ("denied", "EACCES"), ("timeout", "ETIMEDOUT")]
    {
        let object = format!("/data/m=1000003,seed=5,fail=409600-413696,kind={kind}");
        let program = "import errno\nfd = os.open('/data/m', os.O_RDONLY)\nfor _ in range(2):\n    try:\n        \
             os.pread(fd, 10, 409700)\n        print('no error')\n    except OSError as error:\n        \
             print(errno.errorcode[error.errno])\n\
             assert os.pread(fd, 4096, 413696) == data(413696, 417792, 5)\nassert os.pread(fd, 9, 0) == data(0, 9, 5)";
        let Some(end) = python(&["--map", &object], program) else { return };
        assert_eq!((end.code, &end.out[..]), (Some(0), &format!("{errno}\n{errno}\n")[..]), "{end:#?}");
        let lines: Vec<_> = end.err.lines().collect();
        assert!(lines.len() == 1 && lines[0].contains("supply [409600, 413696) of synthetic:"), "{end:#?}");
    }
}

#[test]
fn a_range_that_fails_traps_who_touches_it() {
    const SIGBUS: i32 = 7;
    let program = "fd = os.open('/data/m', os.O_RDONLY)\nm = mmap.mmap(fd, 0, prot=mmap.PROT_READ)\n\
        assert m[0:9] == data(0, 9, 5)\nprint('here', flush=True)\nm[409700]";
    let object = "/data/m=1000003,seed=5,fail=409600-413696";
    let Some(end) = python(&["--map", object], program) else { return };
    assert_eq!((end.signal, &end.out[..]), (Some(SIGBUS), "here\n"), "{end:#?}");
    assert!(end.err.contains("supply [409600, 413696) of synthetic:"), "{end:#?}");
}
