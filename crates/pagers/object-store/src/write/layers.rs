//! What was written since the version that is published.
//!
//! ```text
//!   layers[n]    written to now
//!   layers[..n]  being published; do not change until that has ended
//!   base         the published version
//! ```
//!
//! A layer hides what is below it where it was written to, and from its `cut` on, where there are zeros: the object was
//! shorter for a time.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::ranges::RangeSet;
use super::spool::Spool;
use crate::fetch::Base;

/// So much is copied at once when layers are merged.
const PIECE: u64 = 256 << 10;

/// Where the bytes of a range are.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    Base(Base),
    Spool(Arc<Spool>),
    Zero,
}

/// A range whose bytes are in one place.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) range: Range<u64>,
    pub(crate) origin: Origin,
}

#[derive(Debug)]
struct Layer {
    spool: Arc<Spool>,
    written: RangeSet,
    /// The least length since the layer was made. What is below is hidden from here on.
    cut: u64,
    length: u64,
}

impl Layer {
    fn new(folder: &Option<PathBuf>, length: u64) -> io::Result<Self> {
        let spool = Arc::new(Spool::new(folder.as_deref())?);
        Ok(Self { spool, written: RangeSet::default(), cut: length, length })
    }
}

#[derive(Debug)]
struct State {
    base: Base,
    layers: Vec<Layer>,
}

/// The layers of one object.
#[derive(Debug)]
pub(crate) struct Layers {
    folder: Option<PathBuf>,
    /// Read by who writes into the top layer, written by who puts another one on it or takes it away.
    turn: RwLock<()>,
    state: Mutex<State>,
}

/// The layers that are being published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Snapshot {
    layers: usize,
    pub(crate) length: u64,
}

impl Layers {
    pub(crate) fn new(base: Base, folder: Option<PathBuf>) -> io::Result<Self> {
        let layers = vec![Layer::new(&folder, base.length)?];
        Ok(Self { folder, turn: RwLock::new(()), state: Mutex::new(State { base, layers }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn base(&self) -> Base {
        self.state().base.clone()
    }

    pub(crate) fn length(&self) -> u64 {
        let state = self.state();
        state.layers.last().map_or(state.base.length, |top| top.length)
    }

    /// Takes bytes. Blocks on a file.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let _same_top = self.turn.read().unwrap_or_else(PoisonError::into_inner);
        let spool = self.state().layers.last().map(|top| Arc::clone(&top.spool));
        let spool = spool.ok_or_else(|| io::Error::other("no layer"))?;
        spool.write(offset, bytes)?;
        let end = offset.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if let Some(top) = self.state().layers.last_mut() {
            top.written.add(offset..end.min(top.length));
        }
        Ok(())
    }

    pub(crate) fn set_length(&self, length: u64) {
        if let Some(top) = self.state().layers.last_mut() {
            top.written.truncate(length);
            top.cut = top.cut.min(length);
            top.length = length;
        }
    }

    /// Where the bytes of `range` are, in order.
    pub(crate) fn pieces(&self, range: Range<u64>) -> Vec<Piece> {
        let state = self.state();
        pieces(&state.base, &state.layers, range)
    }

    /// The same of what is being published.
    pub(crate) fn pieces_of(&self, snapshot: Snapshot, range: Range<u64>) -> Vec<Piece> {
        let state = self.state();
        pieces(&state.base, state.layers.get(..snapshot.layers).unwrap_or_default(), range)
    }

    /// What is there now, to be published; what is written from now on is not in it. `None` if it is published. Blocks
    /// while writes into the top layer end.
    pub(crate) fn begin(&self) -> io::Result<Option<Snapshot>> {
        let _alone = self.turn.write().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        let is_published = |layer: &Layer| {
            layer.written.is_empty() && layer.length == state.base.length && layer.cut == state.base.length
        };
        // One without a tag is not there yet.
        if state.base.version.tag().is_some() && state.layers.iter().all(is_published) {
            return Ok(None);
        }
        let length = state.layers.last().map_or(state.base.length, |top| top.length);
        let snapshot = Snapshot { layers: state.layers.len(), length };
        let fresh = Layer::new(&self.folder, length)?;
        state.layers.push(fresh);
        Ok(Some(snapshot))
    }

    /// `snapshot` is published as `base`.
    pub(crate) fn published(&self, snapshot: Snapshot, base: Base) {
        let mut state = self.state();
        let count = snapshot.layers.min(state.layers.len());
        state.layers.drain(..count);
        state.base = base;
    }

    /// `snapshot` was not published: what was written meanwhile goes into the layer below. Blocks on files. If that fails,
    /// the layers stay as they are, and nothing is lost.
    pub(crate) fn not_published(&self, snapshot: Snapshot) -> io::Result<()> {
        let _alone = self.turn.write().unwrap_or_else(PoisonError::into_inner);
        let copies = {
            let state = self.state();
            let [.., below, top] = state.layers.as_slice() else { return Ok(()) };
            if state.layers.len() != snapshot.layers + 1 {
                return Ok(());
            }
            let ranges: Vec<_> = top.written.iter().collect();
            (Arc::clone(&top.spool), Arc::clone(&below.spool), ranges)
        };
        let (from, to, ranges) = copies;
        ranges.iter().try_for_each(|range| copy(&from, &to, range))?;
        let mut state = self.state();
        let Some(top) = state.layers.pop() else { return Ok(()) };
        if let Some(below) = state.layers.last_mut() {
            below.written.truncate(top.cut);
            top.written.iter().for_each(|range| below.written.add(range));
            below.cut = below.cut.min(top.cut);
            below.length = top.length;
        }
        Ok(())
    }
}

fn copy(from: &Spool, to: &Spool, range: &Range<u64>) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let count = (range.end - at).min(PIECE);
        let mut piece = vec![0; usize::try_from(count).unwrap_or(0)];
        from.read(at, &mut piece)?;
        to.write(at, &piece)?;
        at += count;
    }
    Ok(())
}

fn pieces(base: &Base, layers: &[Layer], range: Range<u64>) -> Vec<Piece> {
    let mut all: Vec<Piece> = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let piece = first_piece(base, layers, at..range.end);
        at = piece.range.end;
        all.push(piece);
    }
    all
}

fn first_piece(base: &Base, layers: &[Layer], mut range: Range<u64>) -> Piece {
    for layer in layers.iter().rev() {
        let (stretch, is_written) = layer.written.first_stretch(&range);
        range = stretch;
        if is_written {
            return Piece { range, origin: Origin::Spool(Arc::clone(&layer.spool)) };
        }
        if range.start >= layer.cut {
            return Piece { range, origin: Origin::Zero };
        }
        range.end = range.end.min(layer.cut);
    }
    if range.start >= base.length {
        return Piece { range, origin: Origin::Zero };
    }
    range.end = range.end.min(base.length);
    Piece { range, origin: Origin::Base(base.clone()) }
}

#[cfg(test)]
mod tests;
