//! The pager and the proxy against real servers and a scripted one.

mod asking;
mod conformance;
mod fake;
mod hostile;
mod plain;
mod proxy;
mod restarts;
mod silence;
mod writing;
