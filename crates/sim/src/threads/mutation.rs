//! Faults that are put in on purpose, to see that each is found.

/// What is done wrongly. The protocol itself is right: its host or its callers break the rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// The host says that a frame is there, without looking.
    FrameAlwaysThere,
    /// The host says that a frame is gone, without looking.
    FrameNeverThere,
    /// Nobody is woken.
    NobodyWoken,
    /// Sleepers on the faults of a view are not woken.
    FaultsNotWoken,
    /// Protection is forgotten.
    NotProtected,
    /// Pages are put in place open to stores.
    PlacedOpen,
    /// Views show pages open to stores.
    ShownOpen,
    /// A page that fails does not trap.
    NotPoisoned,
    /// Poison stays when a page is asked for again.
    PoisonStays,
    /// Frames go whatever the words say.
    DropsUnasked,
    /// A fault that finds no frame has the page dropped, without holding it for the look.
    LooksWithoutHolding,
    /// A page is Clean before its pager has the bytes.
    WrittenTooEarly,
    /// Bytes for a write are copied after stores were let go on.
    CopiedTooLate,
    /// An optimistic read does not look at the version afterwards.
    NeverLooksAgain,
    /// A pin for writing does not wait for touches that began before.
    TouchesForgotten,
    /// A whole page is shown while half of it is filled, by who does not hold it.
    ShownHalf,
    /// A page is filled without room in the budget.
    NoRoomAsked,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::FrameAlwaysThere,
        Self::FrameNeverThere,
        Self::NobodyWoken,
        Self::FaultsNotWoken,
        Self::NotProtected,
        Self::PlacedOpen,
        Self::ShownOpen,
        Self::NotPoisoned,
        Self::PoisonStays,
        Self::DropsUnasked,
        Self::LooksWithoutHolding,
        Self::WrittenTooEarly,
        Self::CopiedTooLate,
        Self::NeverLooksAgain,
        Self::TouchesForgotten,
        Self::ShownHalf,
        Self::NoRoomAsked,
    ];
}
