//! `--map`: names lead where they would lead were the mapped ones bind mounts. A tree is looked at natively; then it
//! moves, and is looked at by its old name.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::build::{Kind, program};
use crate::ends::{End, run};
use crate::test_folder::TestFolder;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

struct Draw(u64);

impl Draw {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % most as u64) as usize
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len())]
    }

    fn path(&mut self, most: usize) -> String {
        let components = (0..=self.below(most)).map(|_| match self.below(7) {
            0 => "..",
            1 => ".",
            _ => self.of(&NAMES),
        });
        components.collect::<Vec<_>>().join("/")
    }
}

/// Files, folders, FIFOs and links of all kinds.
fn fill(draw: &mut Draw, base: &Path, folder: &Path, depth: usize) {
    for name in NAMES {
        let path = folder.join(name);
        match draw.below(9) {
            0 | 1 => std::fs::write(&path, path.as_os_str().as_encoded_bytes()).expect("a file"),
            2 | 3 if depth < 3 => {
                std::fs::create_dir(&path).expect("a folder");
                fill(draw, base, &path, depth + 1);
            }
            4 | 5 => symlink(draw.path(4), &path).expect("a link"),
            6 => {
                let top = draw.of(&["guest", "guest", "outside"]);
                symlink(base.join(top).join(draw.path(3)), &path).expect("a link");
            }
            7 => {
                let up = "../".repeat(depth + 1);
                symlink(format!("{up}{}/{}", draw.of(&["guest", "outside"]), draw.path(2)), &path)
                    .expect("a link");
            }
            _ => {}
        }
    }
}

/// Everything below the folder.
fn all_below(folder: &Path, all: &mut BTreeSet<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        all.insert(entry.path());
        if entry.file_type().expect("a type").is_dir() {
            all_below(&entry.path(), all);
        }
    }
}

struct Tree {
    test_folder: TestFolder,
    program: PathBuf,
    base: PathBuf,
}

impl Tree {
    fn grow(draw: &mut Draw) -> Option<Tree> {
        let test_folder = TestFolder::new()?;
        let program = program("names", Kind::Dynamic)?;
        // So deep that no name leads out of it.
        let base = test_folder.path("").canonicalize().expect("a name").join("deep/".repeat(16));
        std::fs::create_dir_all(&base).expect("folders");
        for top in ["guest", "outside"] {
            std::fs::create_dir(base.join(top)).expect("a folder");
            fill(draw, &base, &base.join(top), 0);
        }
        let fifo = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, base.join("guest/fifo"), fifo, mode, 0).expect("a FIFO");
        Some(Tree { test_folder, program, base })
    }

    fn names(&self, draw: &mut Draw, count: usize) -> String {
        let (guest, outside) = (self.base.join("guest"), self.base.join("outside"));
        let mut name = |at: usize| {
            let end = draw.of(&["", "", "", "/", "//", "/.", "/.."]).to_string();
            let path = draw.path(4) + &end;
            match at % 4 {
                0 | 1 => guest.join(path).display().to_string(),
                2 => outside.join(path).display().to_string(),
                _ => path,
            }
        };
        let fifo = guest.join("fifo");
        let names = (0..count).map(|at| name(at) + "\n").collect::<String>();
        format!("{names}{}\n{0}/\n", fifo.display())
    }

    /// Runs the program natively, moves the tree, and runs it with the old name mapped.
    fn both(&self, names: &str, more: &[&str]) -> (End, End) {
        let (guest, object) = (self.base.join("guest"), self.base.join("deeper/object"));
        std::fs::write(self.base.join("names"), names).expect("a file");
        let list = self.base.join("names");
        let mut words = [&self.program, &guest, &list].map(|path| path.to_str().expect("text")).to_vec();
        words.extend(more);
        let mut before = BTreeSet::new();
        all_below(&self.test_folder.path(""), &mut before);
        let native = run(self.test_folder.native(&words));
        let mut after = BTreeSet::new();
        all_below(&self.test_folder.path(""), &mut after);
        after.difference(&before).for_each(|made| std::fs::remove_file(made).expect("a file that was made"));
        std::fs::create_dir(self.base.join("deeper")).expect("a folder");
        std::fs::rename(&guest, &object).expect("the tree moves");
        std::fs::create_dir(&guest).expect("a place for it");
        let map = format!("{}={}", guest.display(), object.display());
        (native, run(self.test_folder.memobj(&["--map", &map], &words)))
    }
}

fn seed() -> u64 {
    let given = std::env::var("MEMOBJ_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
    println!("MEMOBJ_SEED={seed}");
    seed
}

fn compare(native: &End, mapped: &End, seed: u64) {
    for (native, mapped) in native.out.lines().zip(mapped.out.lines()) {
        let differ = native.split(' ').zip(mapped.split(' ')).filter(|(native, mapped)| native != mapped);
        let differ: Vec<_> = differ.collect();
        assert!(native == mapped, "seed {seed}: {differ:?}\nnative {native}\nmapped {mapped}");
    }
    assert_eq!((native.code(), &native.err[..]), (mapped.code(), &mapped.err[..]));
    assert_eq!((mapped.code(), native.out.lines().count()), (0, mapped.out.lines().count()));
}

#[test]
fn all_calls_that_name_files_answer_as_in_the_tree_itself() {
    let mut draw = Draw(seed());
    let seed = draw.0;
    for _ in 0..3 {
        let Some(tree) = Tree::grow(&mut draw) else { return };
        let (native, mapped) = tree.both(&tree.names(&mut draw, 150), &[]);
        compare(&native, &mapped, seed);
        assert!(native.out.contains("ENOENT") && native.out.contains("ENOTDIR"), "{native:?}");
    }
}

#[test]
fn files_are_made_in_the_folder_that_a_name_stands_for() {
    let mut draw = Draw(seed());
    let seed = draw.0;
    for _ in 0..3 {
        let Some(tree) = Tree::grow(&mut draw) else { return };
        let long = "x".repeat(255);
        symlink(&long, tree.base.join("guest/long")).expect("a link");
        let names = format!(
            "{}{}/guest/long\n{}/guest/z\n",
            tree.names(&mut draw, 60).replace("fifo", "a"),
            tree.base.display(),
            tree.base.display()
        );
        let (native, mapped) = tree.both(&names, &["makes"]);
        compare(&native, &mapped, seed);
        assert_eq!(std::fs::read_dir(tree.base.join("guest")).expect("a folder").count(), 0);
        assert!(tree.base.join("deeper/object").join(&long).exists());
    }
}
