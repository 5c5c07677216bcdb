//! Real servers on loopback, for tests: started on a free port, killed and started again at the same one, killed at the end.
//!
//! ```text
//!   Server::start(Kind::Nginx)      Some(server), or None and "skipped: nginx is not installed"
//!     program   where the program of a kind is, and how it is called
//!     listen    the port or the socket
//!     moments   when servers are killed
//!     passage   stands before a server and counts bytes
//!     s3        requests to a store, by hand: no other client is needed
//! ```
//!
//! A server's files are in a folder of its own: [`Server::path`] says where a file or an object is, [`Server::url`] how it is
//! named. Stores have one bucket, named [`BUCKET`].
//!
//! Programs are looked for in the folder that `MEMOBJ_SERVERS` names, in `target/servers/bin`, where `.ci/run` puts them, and
//! where the shell looks.

#![forbid(unsafe_code)]

mod listen;
mod moments;
mod passage;
mod program;
mod s3;
mod server;

pub use listen::Listen;
pub use moments::{moments, random};
pub use passage::Passage;
pub use program::{ACCESS_KEY, BUCKET, Kind, REGION, SECRET_KEY};
pub use server::Server;
