//! The object whose bytes machines have, mapped once for all of them.

use std::sync::Arc;

use memobj::pagers::Pager;
use memobj::{
    Cache, Delivery, FailurePolicy, FrameSize, FrameVisibility, LentFrames, MapOptions, Mapping,
    ObjectOptions,
};

use super::options::StartError;

/// See the module.
#[derive(Debug)]
pub(super) struct ServedObject {
    pub(super) name: String,
    pub(super) length: u64,
    /// By which the event loop demands pages.
    pub(super) lent: LentFrames,
    /// By which their bytes are pinned.
    pub(super) mapping: Mapping,
}

impl ServedObject {
    pub(super) fn open(
        cache: &Cache,
        name: &str,
        pager: Arc<dyn Pager>,
        policy: FailurePolicy,
    ) -> Result<Self, StartError> {
        let options =
            ObjectOptions::new().frames(FrameSize::Small).visibility(FrameVisibility::Shared).policy(policy);
        let object = cache.object(name, pager, options).map_err(StartError::Object)?;
        if object.is_empty() {
            return Err(StartError::Empty(name.to_owned()));
        }
        // Before the mapping: what is only pinned has no file of frames.
        let lent = object.lend_frames().map_err(StartError::Map)?;
        let mapping =
            object.map_all(MapOptions::new().delivery(Delivery::PinOnly)).map_err(StartError::Map)?;
        Ok(Self { name: name.to_owned(), length: object.len(), lent, mapping })
    }
}
