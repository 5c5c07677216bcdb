//! The command from outside: what it prints, where, and with which exit status.

mod copy;
mod hash;
mod image;
mod interrupt;
mod kept_clients;
mod logs;
mod output;
mod patch;
mod read;
mod restarts;
mod serve;
mod serve_check;
mod server_folders;
mod servers;
mod test_folder;
mod top;
mod torture;
mod untold;
mod uploads;
mod usage;
mod web_server;
