//! The command from outside: what it prints, where, and with which exit status.

mod hash;
mod interrupt;
mod read;
mod room;
mod usage;
