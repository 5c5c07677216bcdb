//! The planner of ELF images, from outside: what is refused and in which order, what is planned, and that no header
//! makes it do anything else.

mod build;
mod check;
mod errors;
mod fuzz;
mod layout;
mod mutate;
mod properties;
