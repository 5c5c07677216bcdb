//! Files mapped as images into this process.

mod build;
mod errors;
mod real;
mod reservations;
mod segments;
mod space;
