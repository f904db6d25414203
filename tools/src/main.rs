//! `tidemark`, the operators' command. One noun, one file. Never here: RocksDB, or a decision that the server should make.
//!
//! Invariant: data goes to standard output, everything else to standard error, and the exit code says what a script needs.

mod alert;
mod backup;
mod cli;
mod cluster;
mod completion;
mod confirm;
mod csv_text;
mod cursor;
mod device;
mod doctor;
mod failure;
mod fleet;
mod health;
mod human;
mod ingest;
mod job;
mod maintenance;
mod node;
mod output;
mod pairs;
mod query;
mod removal;
mod selector;
mod shard;
mod status;
mod terms;
mod thing_model;
mod time;
mod top;
mod types;
mod version;
mod watch;
mod words;

fn main() -> std::process::ExitCode {
    cli::run()
}
