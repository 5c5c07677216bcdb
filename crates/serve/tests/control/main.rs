//! The control connection, against a server in the process of the test, and clients here and in other processes.

mod access;
mod by_hand;
mod errors;
mod fixture;
mod hostile;
mod lending;
mod looking;
mod script;
mod sharing;
mod verbs;
