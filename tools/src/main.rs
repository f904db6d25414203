//! `tidemark`, the operators' command. One noun, one file. Never here: RocksDB, or a decision that the server should make.
//!
//! Invariant: data goes to standard output, everything else to standard error, and the exit code says what a script needs.

mod backup;
mod cli;
mod cluster;
mod completion;
mod device;
mod failure;
mod fleet;
mod ingest;
mod output;
mod query;
mod selector;
mod thing_model;
mod time;
mod types;
mod version;

fn main() -> std::process::ExitCode {
    cli::run()
}
