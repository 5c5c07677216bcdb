use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::place::{Named, Names, Place};
use super::walk::{LastLink, Missing, Wanted, resolve, walk};
use crate::map_target::MapTarget;
use crate::options::NameMap;

fn names_of(all: &[(PathBuf, PathBuf)]) -> std::io::Result<Names> {
    let map = |(guest, object): &(PathBuf, PathBuf)| NameMap {
        guest: guest.clone(),
        target: MapTarget::Path(object.clone()),
    };
    let maps: Vec<_> = all.iter().map(map).collect();
    Names::new(&super::guests(&maps), &maps, None)
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Draws numbers; the same ones from the same seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % most as u64) as usize
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    /// Some components, as they may be written.
    fn path(&mut self, most: usize) -> String {
        let mut path = String::new();
        for at in 0..=self.below(most) {
            if at > 0 {
                path += self.of(&["/", "/", "/", "//", "/./"]);
            }
            path += match self.below(6) {
                0 => "..",
                1 if self.below(3) == 0 => ".",
                _ => self.of(&NAMES),
            };
        }
        path + self.of(&["", "", "", "", "/", "/.", "/..", "//"])
    }
}

/// A folder with `guest`, a tree of links, files and folders, and `outside` beside it.
struct Trees {
    base: PathBuf,
    _folder: tempfile::TempDir,
}

impl Trees {
    fn grow(draw: &mut Draw) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let base = folder.path().canonicalize().expect("its name");
        for top in ["guest", "outside"] {
            std::fs::create_dir(base.join(top)).expect("a folder");
        }
        let trees = Self { base, _folder: folder };
        for top in ["guest", "outside"] {
            trees.fill(draw, &trees.base.join(top), 0);
        }
        trees
    }

    fn fill(&self, draw: &mut Draw, folder: &Path, depth: usize) {
        for name in NAMES {
            let path = folder.join(name);
            match draw.below(9) {
                0 | 1 => std::fs::write(&path, name).expect("a file"),
                2 | 3 if depth < 3 => {
                    std::fs::create_dir(&path).expect("a folder");
                    self.fill(draw, &path, depth + 1);
                }
                4 | 5 => symlink(draw.path(4), &path).expect("a link"),
                6 => {
                    let top = draw.of(&["guest", "guest", "outside", ""]);
                    symlink(self.base.join(top).join(draw.path(3)), &path).expect("a link");
                }
                7 => symlink(
                    format!("{}{}/{}", "../".repeat(depth + 1), draw.of(&["guest", "outside"]), draw.path(2)),
                    &path,
                )
                .expect("a link"),
                _ => {}
            }
        }
    }

    /// A question, with the folder that it begins in, from the base.
    fn question(&self, draw: &mut Draw) -> Question {
        let name = match draw.below(4) {
            0 => format!("{}/guest/{}", self.base.display(), draw.path(5)),
            1 => format!("{}/outside/{}", self.base.display(), draw.path(5)),
            2 => draw.path(5),
            _ => format!("../guest/{}", draw.path(4)),
        };
        let start = self.base.join(["guest", "guest/a", "guest/b/c", "outside"][draw.below(4)]);
        // Without links, so that it is the same folder when the tree has moved.
        let start = start.canonicalize().ok().filter(|start| start.is_dir()).unwrap_or(self.base.clone());
        let start = start.strip_prefix(&self.base).map(Path::to_owned).unwrap_or_default();
        let ways = [
            0,
            0,
            0,
            resolve::NO_SYMLINKS,
            resolve::BENEATH,
            resolve::IN_ROOT,
            resolve::NO_MAGICLINKS,
            resolve::NO_XDEV,
        ];
        let last_link = if draw.below(2) == 0 { LastLink::Follow } else { LastLink::Keep };
        Question { name, start, resolve: ways[draw.below(ways.len())], last_link }
    }
}

#[derive(Debug)]
struct Question {
    name: String,
    start: PathBuf,
    resolve: u64,
    last_link: LastLink,
}

/// Device and number of what a name leads to.
type Answer = Result<(u64, u64), Errno>;

fn identity(file: &Named) -> (u64, u64) {
    (file.stat.st_dev, file.stat.st_ino)
}

/// What the kernel answers. The folder where it begins is looked at first.
fn by_kernel(folder: &Path, question: &Question) -> Answer {
    let folder = rustix::fs::openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    let keeps = question.last_link == LastLink::Keep;
    let flags = if keeps { OFlags::PATH | OFlags::NOFOLLOW } else { OFlags::PATH };
    let ways = ResolveFlags::from_bits_retain(question.resolve);
    let file = loop {
        match openat2(&folder, &question.name[..], flags, Mode::empty(), ways) {
            // Somebody has renamed something meanwhile, wherever.
            Err(Errno::AGAIN) => {}
            other => break other?,
        }
    };
    let stat = rustix::fs::fstat(&file)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// What programs are answered where `names` are mapped.
fn by_walk(names: &Names, folder: &Path, question: &Question) -> Answer {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
    let start = names.seen_by_programs(Named::open(folder).map_err(|_| Errno::IO)?);
    let is_scoped = question.resolve & (resolve::BENEATH | resolve::IN_ROOT) != 0;
    let begins_there = is_scoped || !question.name.starts_with('/');
    let wanted = Wanted {
        name: question.name.as_bytes(),
        start: begins_there.then_some(start),
        last_link: question.last_link,
        missing: Missing::Fails,
        resolve: question.resolve,
        caller: (1, 1),
    };
    let walked = walk(names, wanted);
    match walked.crossed {
        true => walked.found.and_then(|found| found.file.ok_or(Errno::NOENT)).map(|file| identity(&file)),
        false => by_kernel(folder, question),
    }
}

#[test]
fn mapped_names_lead_where_the_same_tree_does_natively() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("MEMOBJ_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("MEMOBJ_SEED={seed}");
    let mut draw = Draw(seed);
    let (mut found, mut crossed) = (0, 0);
    for _ in 0..30 {
        let trees = Trees::grow(&mut draw);
        let questions: Vec<Question> = (0..400).map(|_| trees.question(&mut draw)).collect();
        let natively: Vec<Answer> =
            questions.iter().map(|question| by_kernel(&trees.base.join(&question.start), question)).collect();
        // The same files, elsewhere.
        let (guest, object) = (trees.base.join("guest"), trees.base.join("deeper/object"));
        std::fs::create_dir(trees.base.join("deeper")).expect("a folder");
        std::fs::rename(&guest, &object).expect("the tree moves");
        std::fs::create_dir(&guest).expect("a place for it");
        let names = names_of(&[(guest, object)]).expect("names");
        for (question, natively) in questions.iter().zip(natively) {
            let start = question.start.strip_prefix("guest").map_or_else(
                |_| trees.base.join(&question.start),
                |rest| trees.base.join("deeper/object").join(rest),
            );
            assert_eq!(by_walk(&names, &start, question), natively, "seed {seed}: {question:?}");
            found += u32::from(natively.is_ok());
            crossed += u32::from(by_kernel(&start, question) != natively);
        }
    }
    assert!(found > 1000 && crossed > 1000, "{found} found, {crossed} are not the kernel's");
}

/// `name` with these names mapped: where it leads, and whether mapped names matter.
fn led(names: &Names, name: &str, resolve: u64) -> (Result<PathBuf, Errno>, bool) {
    let wanted = Wanted {
        name: Path::new(name).as_os_str().as_bytes(),
        start: None,
        last_link: LastLink::Follow,
        missing: Missing::Fails,
        resolve,
        caller: (1, 1),
    };
    let walked = walk(names, wanted);
    let file = walked.found.and_then(|found| found.file.ok_or(Errno::NOENT));
    (file.map(|file| file.name()), walked.crossed)
}

#[test]
fn the_longest_name_decides_and_names_need_not_be_there() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let base = folder.path().canonicalize().expect("its name");
    for file in ["a/x", "a/deep/z", "b/y", "c/two"] {
        std::fs::create_dir_all(base.join(file).parent().expect("a folder")).expect("folders");
        std::fs::write(base.join(file), file).expect("a file");
    }
    let map = |guest: &str, object: &str| (PathBuf::from(guest), base.join(object));
    let names = [map("/no-such/data", "a"), map("/no-such/data/deep", "b"), map("/no-such/one", "c/two")];
    let names = names_of(&names).expect("names");
    let is =
        |name: &str, object: &str| assert_eq!(led(&names, name, 0), (Ok(base.join(object)), true), "{name}");
    let fails = |name: &str, errno: Errno, crossed: bool| {
        assert_eq!(led(&names, name, 0), (Err(errno), crossed), "{name}");
    };
    is("/no-such/data/x", "a/x");
    is("/no-such/data", "a");
    is("/no-such/data/", "a");
    is("/no-such/data/deep/y", "b/y");
    is("//no-such/./data/deep/../x", "a/x");
    is("/no-such/one", "c/two");
    fails("/no-such/one/", Errno::NOTDIR, true);
    fails("/no-such/one/.", Errno::NOTDIR, true);
    fails("/no-such/data/x/../x", Errno::NOTDIR, true);
    fails("/no-such/data/missing/../x", Errno::NOENT, true);
    fails("/no-such/data/deep/z", Errno::NOENT, true);
    fails("/no-such/database", Errno::NOENT, false);
    fails("/no-such", Errno::NOENT, false);
    assert_eq!(led(&names, "/etc", 0), (Ok("/etc".into()), false));
    // No mount that the kernel knows.
    assert_eq!(led(&names, "/no-such/data/x", resolve::NO_XDEV), (Ok(base.join("a/x")), true));
    symlink("/proc/version", base.join("a/version")).expect("a link");
    assert_eq!(led(&names, "/no-such/data/version", resolve::NO_XDEV), (Err(Errno::XDEV), true));
}

#[test]
fn links_of_proc_are_those_of_the_caller() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let base = folder.path().canonicalize().expect("its name");
    symlink("/proc/self/status", base.join("status")).expect("a link");
    symlink("/proc/self/cwd", base.join("here")).expect("a link");
    let names = names_of(&[("/no-such".into(), base)]).expect("names");
    assert_eq!(led(&names, "/no-such/status", 0), (Ok("/proc/1/status".into()), true));
    let own = std::process::id() as i32;
    let wanted = Wanted {
        name: b"/no-such/here",
        start: None,
        last_link: LastLink::Follow,
        missing: Missing::Fails,
        resolve: 0,
        caller: (own, own),
    };
    let found = walk(&names, wanted).found.expect("a folder").file.expect("a folder");
    assert_eq!(found.name(), std::env::current_dir().expect("a folder"));
    let wanted = Wanted {
        name: b"/no-such/here",
        start: None,
        last_link: LastLink::Follow,
        missing: Missing::Fails,
        resolve: resolve::NO_MAGICLINKS,
        caller: (own, own),
    };
    assert_eq!(walk(&names, wanted).found.err(), Some(Errno::LOOP));
}

#[test]
fn a_name_that_is_a_link_is_mapped_where_it_leads() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let base = folder.path().canonicalize().expect("its name");
    for name in ["old", "new"] {
        std::fs::write(base.join(name), name).expect("a file");
    }
    symlink("old", base.join("link")).expect("a link");
    let names = names_of(&[(base.join("link"), base.join("new"))]).expect("names");
    for name in ["link", "old", "new"] {
        let name = base.join(name);
        let name = name.to_str().expect("text");
        assert_eq!(led(&names, name, 0).0, Ok(base.join("new")), "{name}");
    }
    assert_eq!(Place::of(Named::open(&base).expect("a folder")).at, base);
}
