//! The pager and the proxy against real servers and a scripted one.

mod conformance;
mod servers;
