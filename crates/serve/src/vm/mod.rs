//! Memory of virtual machines.
