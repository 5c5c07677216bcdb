//! Tests of the pager against servers: scripted ones, nginx and moto. All of them are on loopback.

mod conformance;
mod faults;
mod help;
mod scripted;
mod servers;
