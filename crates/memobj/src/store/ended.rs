//! What follows for claims when the cache supplies nothing any more.

use memobj_sys::area::FillClaim;

use super::{Asked, FrameStore};

impl FrameStore {
    /// Fails what is claimed if the cache supplies nothing any more; else gives the claim back.
    pub(crate) fn refuse(&self, claim: FillClaim, asked: Asked) -> Option<FillClaim> {
        let Some(error) = self.cache.health.refusal() else { return Some(claim) };
        if asked != Asked::InAdvance {
            for claim in split(claim) {
                let bytes = claim.bytes();
                self.fail(claim, &error, 0, bytes);
            }
        }
        None
    }
}

/// The pages of a claim one by one, in order.
pub(crate) fn split(mut claim: FillClaim) -> Vec<FillClaim> {
    let mut singles: Vec<FillClaim> = claim.pages().iter().rev().map(|page| claim.split_off(page)).collect();
    singles.reverse();
    singles
}
