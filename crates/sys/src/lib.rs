//! The bytes-free edge.
