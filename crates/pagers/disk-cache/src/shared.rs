//! What all objects of a handle share.

use std::sync::Arc;

use crate::counters::HandleCounters;
use crate::evict::Evictor;
use crate::keeper::Keeper;
use crate::pool::Pool;
use crate::store::Store;

/// Its threads end some time after the last owner is gone: when blocks that wait have been written.
pub(crate) struct Shared {
    pub(crate) store: Arc<Store>,
    pub(crate) evictor: Arc<Evictor>,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) counters: Arc<HandleCounters>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.pool.close();
        self.keeper.close();
    }
}
