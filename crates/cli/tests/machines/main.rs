//! `memobj serve --firecracker`: monitors without machines restore memory and compare each page.

mod hostile;
mod keeping;
mod monitor;
mod server;
mod serving;
mod touches;
