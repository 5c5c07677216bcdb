//! The control connection, against a server in the process of the test, and clients here and in other processes.

mod fixture;
mod script;
mod verbs;
