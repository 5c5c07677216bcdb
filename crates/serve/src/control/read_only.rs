//! A pager of an object that other processes map, and nobody writes.
//!
//! Frames of objects that can be written are shown in a view only when the owner says so. That keeps one client from
//! another: who maps the frame file behind the owner's back can make the kernel put zeros into a hole of it, and these
//! zeros are never shown to others. Frames that are lent show by themselves, so one borrower could show zeros to all. So an
//! object that is only read is made as if it could be written, of a pager that takes no writes; its guests may load only.

use memobj::pagers::{
    Description, LengthRequest, Pager, PagerReports, SupplyRequest, SyncRequest, WriteRequest,
};
use memobj::{ErrorKind, SupplyError};

/// See the module.
pub(super) struct NeverWritten(pub(super) Box<dyn Pager>);

impl Pager for NeverWritten {
    fn describe(&self) -> Description {
        self.0.describe().writable()
    }

    fn attach(&self, reports: PagerReports) {
        self.0.attach(reports);
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        self.0.counters()
    }

    fn supply(&self, request: SupplyRequest) {
        self.0.supply(request);
    }

    fn write_back(&self, request: WriteRequest) {
        request.fail(SupplyError::new(ErrorKind::Denied));
    }

    /// There is never anything to make durable.
    fn sync(&self, request: SyncRequest) {
        request.done();
    }

    fn set_length(&self, request: LengthRequest) {
        request.fail(SupplyError::new(ErrorKind::Denied));
    }

    fn detach(&self) {
        self.0.detach();
    }
}
