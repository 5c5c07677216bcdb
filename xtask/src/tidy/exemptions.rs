//! Where a rule does not hold, and why.

/// One place that is allowed to break one rule.
#[derive(Debug)]
pub(super) struct Exemption {
    /// The rule's name, as a finding prints it in brackets.
    pub(super) rule: &'static str,
    /// The file, from the workspace's root.
    pub(super) path: &'static str,
    /// The function, identifier or modules the finding is about; empty for a whole file.
    pub(super) item: &'static str,
    /// Why the rule would make this place worse.
    pub(super) reason: &'static str,
}

/// Every exemption in force.
pub(super) const EXEMPTIONS: &[Exemption] = &[];
