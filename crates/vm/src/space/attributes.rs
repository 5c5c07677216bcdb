//! What may be done with a segment, and what becomes of it.

use core::fmt;
use memobj_core::prot::Prot;

/// Who sees the stores into a segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Sharing {
    /// Everybody who has the object.
    Shared,
    /// Only this segment, from the first store into a page on; until then it follows the object.
    #[default]
    Private,
    /// Only this segment, and it shows the object as it was when it was mapped.
    Copy,
}

/// Whether the pages of a segment have to stay resident.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Lock {
    /// They need not.
    #[default]
    Unlocked,
    /// All of them do.
    Locked,
    /// Those do that were touched.
    OnFault,
}

/// Whether a segment can become longer by itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Growth {
    /// It cannot.
    #[default]
    Fixed,
    /// Downward, by an access below its start: a stack.
    Down,
}

/// Whether memory is set aside for what can be stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Charge {
    /// It is, within [`Limits::charged_bytes`](super::Limits::charged_bytes).
    #[default]
    Counted,
    /// It is not.
    Uncounted,
}

/// What a forked child has in place of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum OnFork {
    /// The same.
    #[default]
    Inherit,
    /// Nothing.
    Drop,
    /// The segment without its contents: zeros.
    Wipe,
    /// Nothing; once that is taken back, the segment without its contents.
    DropWiped,
}

impl OnFork {
    /// Whether a child has the segment at all.
    pub const fn is_inherited(self) -> bool {
        matches!(self, OnFork::Inherit | OnFork::Wipe)
    }

    /// This for segments that a child is not to have.
    pub const fn dropped(self) -> Self {
        match self {
            OnFork::Inherit | OnFork::Drop => OnFork::Drop,
            OnFork::Wipe | OnFork::DropWiped => OnFork::DropWiped,
        }
    }

    /// This for segments that a child is to have.
    pub const fn inherited(self) -> Self {
        match self {
            OnFork::Inherit | OnFork::Drop => OnFork::Inherit,
            OnFork::Wipe | OnFork::DropWiped => OnFork::Wipe,
        }
    }

    /// This for segments whose contents a child is not to have.
    pub const fn wiped(self) -> Self {
        if self.is_inherited() { OnFork::Wipe } else { OnFork::DropWiped }
    }

    /// This for segments whose contents a child is to have.
    pub const fn kept(self) -> Self {
        if self.is_inherited() { OnFork::Inherit } else { OnFork::Drop }
    }
}

/// What becomes of a segment when another program is loaded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum OnExec {
    /// It goes.
    #[default]
    Drop,
    /// It stays.
    Keep,
}

/// In which order a segment is expected to be used.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Pattern {
    /// Nothing is known.
    #[default]
    Normal,
    /// Any.
    Random,
    /// That of its addresses.
    Sequential,
}

/// Whether a dump of the process holds the segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Dump {
    /// It does.
    #[default]
    Included,
    /// It does not.
    Excluded,
}

/// Whether guards lie over pages. They belong to pages, as contents do, and split no segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Guard {
    /// None do.
    Open,
    /// One lies over each: every access is a trap, as if nothing were mapped.
    Guarded,
}

/// All that segments have beside a place and something behind them. Neighbours that differ here stay apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Attributes {
    /// What the bytes may be used for now.
    pub prot: Prot,
    /// The most that `prot` can be changed to.
    pub max_prot: Prot,
    /// Who sees the stores.
    pub sharing: Sharing,
    /// Whether the pages have to stay resident.
    pub lock: Lock,
    /// Whether it can become longer by itself.
    pub growth: Growth,
    /// Whether memory is set aside.
    pub charge: Charge,
    /// What a forked child has.
    pub on_fork: OnFork,
    /// What a new program has.
    pub on_exec: OnExec,
    /// In which order it is expected to be used.
    pub pattern: Pattern,
    /// Whether a dump holds it.
    pub dump: Dump,
}

impl Attributes {
    /// Whether stores stay in the segment.
    pub const fn is_private(&self) -> bool {
        !matches!(self.sharing, Sharing::Shared)
    }

    /// Whether it can be stored to, and the stores stay in the segment.
    pub const fn is_private_writable(&self) -> bool {
        self.is_private() && self.prot.contains(Prot::WRITE)
    }
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sharing = match self.sharing {
            Sharing::Shared => "s",
            Sharing::Private => "p",
            Sharing::Copy => "c",
        };
        write!(f, "{}{sharing}", self.prot)
    }
}
