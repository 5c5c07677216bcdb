//! Tests of the pager against servers: scripted ones, nginx and moto. All of them are on loopback.

mod conformance;
mod faults;
mod folders;
mod help;
mod lists;
mod measure;
mod other_stores;
mod proxy;
mod publishing_faults;
mod restarts;
mod scripted;
mod servers;
mod writing;
