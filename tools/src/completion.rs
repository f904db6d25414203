//! `completion SHELL`. Never: asking a server.
//!
//! Invariant: the script describes the command line that this very program parses.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::Outcome;

/// What to print.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// Shell that will read it
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: &CompletionArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tidemark", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(())
}
