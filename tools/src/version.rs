//! `version`. Never: judging whether two versions fit.
//!
//! Invariant: without `--server` no connection is made.

use clap::Args;

use crate::cli::Context;
use crate::failure::{OrFail, Outcome};
use crate::output::Cell;

/// What to print.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Ask the server for its version too
    #[arg(long)]
    server: bool,
}

/// Prints the versions.
pub(crate) async fn run(context: &Context, args: VersionArgs) -> Outcome {
    let mut rows = vec![vec![Cell::text("tidemark"), Cell::text(env!("CARGO_PKG_VERSION"))]];
    if args.server {
        let status = context
            .connect()
            .await?
            .status()
            .await
            .or_fail("cannot read the server's version")?;
        rows.push(vec![Cell::text("server"), Cell::Text(status.version)]);
    }
    let mut printer = context.printer("version");
    printer.section("versions", &["program", "version"])?;
    for row in rows {
        printer.row(row)?;
    }
    printer.finish(&[])
}
