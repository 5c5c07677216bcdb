//! The pager and the proxy against real servers and a scripted one.

mod asking;
mod conformance;
mod fake;
mod folders;
mod hostile;
mod plain;
mod proxy;
mod restarts;
mod silence;
mod writing;
