//! The tree as a file: leaves first, level upon level, the root in the last page. All nodes but the last of a level are
//! full. Keys and values follow from the index of their pair, so that every lookup can be checked.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::node::{FANOUT, Found, build};
use crate::data::{PAGE_BYTES, mix};
use crate::job::Failure;

/// The key of the pair with this index: ascending, with gaps.
#[inline]
pub fn key_of(index: u64) -> u64 {
    index * 16 + mix(index) % 16
}

/// The value beside `key`.
#[inline]
pub fn value_of(key: u64) -> u64 {
    mix(key ^ 0x6b65_795f_7661_6c75)
}

/// How many nodes there are, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    pairs: u64,
    /// Nodes of each level, the leaves first.
    levels: Vec<u64>,
}

impl Shape {
    /// The shape of a tree of so many pairs, at least one.
    pub fn of(pairs: u64) -> Self {
        assert!(pairs > 0, "a tree has pairs");
        let mut levels = vec![pairs.div_ceil(FANOUT)];
        while let Some(&nodes) = levels.last()
            && nodes > 1
        {
            levels.push(nodes.div_ceil(FANOUT));
        }
        Self { pairs, levels }
    }

    /// Pages of the file.
    pub fn pages(&self) -> u64 {
        self.levels.iter().sum()
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.pages() * PAGE_BYTES
    }

    /// The page of the root.
    pub fn root(&self) -> u64 {
        self.pages() - 1
    }

    /// Nodes from the root to a leaf.
    pub fn height(&self) -> u64 {
        self.levels.len() as u64
    }

    /// Leaves, which are the first pages.
    pub fn leaves(&self) -> u64 {
        self.levels[0]
    }

    /// The words of a node, by level and place in it.
    fn node(&self, level: usize, place: u64) -> [u64; super::node::NODE_WORDS] {
        let entries = |end: u64| place * FANOUT..end.min((place + 1) * FANOUT);
        if level == 0 {
            let pairs = entries(self.pairs).map(key_of);
            return build(0, pairs.map(|key| (key, value_of(key))));
        }
        let first_page: u64 = self.levels[..level - 1].iter().sum();
        // So many pairs are below one child.
        let pairs = FANOUT.pow(level as u32);
        let children = entries(self.levels[level - 1]);
        build(level as u64, children.map(|child| (key_of(child * pairs), first_page + child)))
    }
}

/// Looks `key` up from the root on, with `find` for what one node says, and checks the value.
#[inline]
pub fn check_lookup(
    shape: &Shape,
    key: u64,
    mut find: impl FnMut(u64, u64) -> Result<Found, Failure>,
) -> Result<(), Failure> {
    let mut node = shape.root();
    for _ in 0..shape.levels.len() {
        match find(node, key)? {
            Found::Child(child) => node = child,
            Found::Value(value) if value == value_of(key) => return Ok(()),
            other => return Err(wrong(key, node, other)),
        }
    }
    Err(wrong(key, node, Found::Child(node)))
}

#[cold]
fn wrong(key: u64, node: u64, found: Found) -> Failure {
    let expected = value_of(key);
    Failure::WrongData(format!("key {key:#x} in page {node}: {found:x?} instead of value {expected:#x}"))
}

/// Finds or makes the tree of `shape` in `directory`.
pub fn tree_file(directory: &Path, shape: &Shape) -> io::Result<PathBuf> {
    std::fs::create_dir_all(directory)?;
    let path = directory.join(format!("memobj-bench-index-{}.tree", shape.pairs));
    if !is_complete(&path, shape)? {
        eprintln!("writing {} ({} pairs, {} MiB)", path.display(), shape.pairs, shape.bytes() >> 20);
        write_tree(&path, shape)?;
    }
    path.canonicalize()
}

/// Makes the file durable before it has its name.
fn write_tree(path: &Path, shape: &Shape) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&partial)?);
    for (level, &nodes) in shape.levels.iter().enumerate() {
        for place in 0..nodes {
            for word in shape.node(level, place) {
                file.write_all(&word.to_ne_bytes())?;
            }
        }
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    std::fs::rename(partial, path)
}

/// Whether the file has its length, and the root and the first leaf are as they must be.
fn is_complete(path: &Path, shape: &Shape) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() != shape.bytes() {
        return Ok(false);
    }
    let mut page = [0; PAGE_BYTES as usize];
    for (level, number) in [(0, 0), (shape.levels.len() - 1, shape.root())] {
        file.read_exact_at(&mut page, number * PAGE_BYTES)?;
        if page[..] != shape.node(level, 0).map(u64::to_ne_bytes).concat() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::{Shape, check_lookup, key_of};
    use crate::index::node::{FANOUT, find};

    #[test]
    fn every_key_is_found_and_no_other() {
        for pairs in [1, 2, FANOUT, FANOUT + 1, FANOUT * FANOUT, FANOUT * FANOUT + 1, 200_000] {
            let shape = Shape::of(pairs);
            let levels = shape.levels.iter().enumerate();
            let nodes: Vec<_> = levels
                .flat_map(|(level, &nodes)| (0..nodes).map(move |place| (level, place)))
                .map(|(level, place)| shape.node(level, place))
                .collect();
            assert_eq!(nodes.len() as u64, shape.pages());
            let lookup =
                |key| check_lookup(&shape, key, |node, key| Ok(find(&nodes[node as usize], key))).is_ok();
            for index in (0..pairs).step_by(7).chain([pairs - 1]) {
                let key = key_of(index);
                assert!(lookup(key), "pair {index} of {pairs}");
                assert!(key_of(index + 1) == key + 1 || !lookup(key + 1), "beside pair {index} of {pairs}");
            }
            assert!(!lookup(key_of(pairs)));
        }
    }

    #[test]
    fn ten_million_pairs_have_three_levels() {
        let shape = Shape::of(10_000_000);
        assert_eq!((shape.height(), shape.leaves(), shape.root()), (3, 39_216, 39_370));
    }
}
