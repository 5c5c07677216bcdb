//! All that is tested through the public interface, one concept a module. One binary, because linking each file took
//! longer than running it. `cargo xtask test` gives each test a process of its own; those that need one also under
//! `cargo test` start it themselves (`memobj_sim::process`).

mod bad_input;
mod commit_crashes;
mod commit_discards;
mod commit_places;
mod commits;
mod debug_output;
mod dropped_memory;
mod failures;
mod fallback;
mod file_size_limit;
mod foreign_code;
mod glances;
mod guest_hostility;
mod guests;
mod hangs;
mod hung_server;
mod invariants;
mod large_shared;
mod lent_frames;
mod limits;
mod pin_only;
mod pins;
mod pins_new;
mod places;
mod prefetch_cut_off;
mod private_reads;
mod processors;
mod reads;
mod shared_writes;
mod small_stacks;
mod soundness;
mod streams;
mod tables;
mod traps;
mod umap;
mod write_failures;
mod write_files;
mod write_invariants;
mod write_lengths;
mod write_process;
mod writes;
