//! `backup create|list|verify|prune|restore`. Never: what a shard's files hold (the server says).
//!
//! Invariant: a backup counts from the moment its manifest is there; nothing is restored before all of it was checked.

mod create;
mod folder;
mod held;
mod manifest;
mod progress;
mod restore;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use tidemark_client::v1;

use crate::cli::Context;
use crate::confirm::confirm_id;
use crate::failure::{Exit, Failure, Outcome};
use crate::human::parse_bytes;
use crate::output::{Cell, Printer};
use folder::{Folder, Found, invalid};
use manifest::Manifest;
use progress::Progress;

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Copy every shard and the catalog into DIR while the cluster serves; only what DIR does not have yet
    Create(CreateArgs),
    /// Show the backups of DIR
    List {
        /// Folder of backups
        dir: PathBuf,
    },
    /// Read backups whole and check every file; exit 8 when one is damaged
    Verify {
        /// Folder of backups
        dir: PathBuf,
        /// This backup only
        id: Option<String>,
    },
    /// Delete all backups of DIR but the newest, and the files that only they have
    Prune(PruneArgs),
    /// Bring a backup back into an empty cluster of any number of nodes
    Restore(RestoreArgs),
}

/// How to take a backup.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Folder of backups; made where it does not exist
    dir: PathBuf,
    /// Read what DIR has already, and copy anew what is damaged
    #[arg(long)]
    check: bool,
    /// Most bytes a second, for example 50M
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "0", hide_default_value = true)]
    limit_rate: u64,
}

/// Which ones to delete.
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Folder of backups
    dir: PathBuf,
    /// How many stay
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,
    /// Show which would go and stop
    #[arg(long)]
    dry_run: bool,
    /// Confirm: the first 8 characters of the id of the cluster of the newest backup, instead of being asked for them
    #[arg(long, value_name = "CLUSTER")]
    confirm: Option<String>,
}

/// How to restore one.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// Folder of backups
    dir: PathBuf,
    /// Which backup [default: the newest]
    id: Option<String>,
    /// First make a cluster of these peer addresses; the node at the first --endpoint must be among them
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    peers: Vec<String>,
    /// Replicas of each shard of that cluster: 1, 3 or 5 [default: 3, or 1 on fewer than three nodes]
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        hide_default_value = true,
        requires = "peers"
    )]
    replication: u32,
    /// Most bytes a second, for example 50M
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, default_value = "0", hide_default_value = true)]
    limit_rate: u64,
}

/// Runs a verb.
pub(crate) async fn run(context: &Context, verb: Verb) -> Outcome {
    match verb {
        Verb::Create(args) => create::run(context, args).await,
        Verb::List { dir } => list(context, &dir),
        Verb::Verify { dir, id } => verify(context, &dir, id.as_deref()),
        Verb::Prune(args) => prune(context, &args).await,
        Verb::Restore(args) => restore::run(context, args).await,
    }
}

fn list(context: &Context, dir: &Path) -> Outcome {
    let found = Folder::open(dir)?.backups()?;
    let mut printer = context.printer("backup_list");
    printer.section(
        "backups",
        &["id", "created_at", "cluster_id", "shards", "files", "bytes", "problem"],
    )?;
    for (id, manifest) in found {
        let id = Cell::Text(id);
        printer.row(match manifest {
            Ok(manifest) => vec![
                id,
                Cell::Time(manifest.created_at_ns),
                Cell::text(&manifest.cluster_id),
                Cell::Uint(manifest.data_shards().into()),
                Cell::Uint(manifest.files().len() as u64),
                Cell::Uint(manifest.bytes()),
                Cell::None,
            ],
            Err(why) => vec![
                id,
                Cell::None,
                Cell::None,
                Cell::None,
                Cell::None,
                Cell::None,
                Cell::Text(why),
            ],
        })?;
    }
    printer.finish(&[])
}

/// What is wrong with the files of a backup.
fn problems(folder: &Folder, manifest: &Manifest) -> Vec<String> {
    let progress = Progress::new(manifest.bytes(), 0);
    progress.message(format!("checking {}", manifest.id));
    let check = |file| folder.check(file, |bytes| progress.add(bytes)).err();
    let found = manifest.files().into_iter().filter_map(check).collect();
    progress.clear();
    found
}

fn verify(context: &Context, dir: &Path, id: Option<&str>) -> Outcome {
    let folder = Folder::open(dir)?;
    let found: Vec<Found> = match id {
        Some(id) => match folder.backup(Some(id)) {
            Err(failure) if failure.exit() != Exit::Refused => return Err(failure),
            _ => folder.backups()?.into_iter().filter(|(found, _)| found == id).collect(),
        },
        None => folder.backups()?,
    };
    if found.is_empty() {
        folder.backup(None)?;
    }
    let mut damaged = Vec::new();
    let mut printer = context.printer("backup_verify");
    printer.section("backups", &["id", "files", "bytes", "whole", "problems"])?;
    for (id, manifest) in found {
        let (files, bytes, problems) = match &manifest {
            Ok(manifest) => (
                Cell::Uint(manifest.files().len() as u64),
                Cell::Uint(manifest.bytes()),
                problems(&folder, manifest),
            ),
            Err(why) => (Cell::None, Cell::None, vec![why.clone()]),
        };
        if let Some(first) = problems.first() {
            damaged.push(format!("{id}: {first}"));
        }
        let whole = Cell::Bool(problems.is_empty());
        printer.row(vec![Cell::Text(id), files, bytes, whole, Cell::List(problems)])?;
    }
    printer.finish(&[])?;
    match damaged.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(
            Exit::Unhealthy,
            format!("{} backups are damaged", damaged.len()),
            damaged.join("; "),
            "tidemark backup create DIR --check: what is missing or damaged is copied anew, where the cluster still has it",
        )),
    }
}

async fn prune(context: &Context, args: &PruneArgs) -> Outcome {
    let dir = args.dir.as_path();
    Folder::open(dir)?;
    let folder = Folder::change(dir)?;
    let mut found = folder.backups()?;
    if let Some((id, Err(why))) = found.iter().find(|(_, manifest)| manifest.is_err()) {
        let what = format!("cannot prune: backup {id} does not read, so its files are not known");
        return Err(invalid(&what, why.clone()).next(format!("delete {}/backups/{id}, then prune", dir.display())));
    }
    let stay = found.split_off(found.len().saturating_sub(args.keep as usize));
    if args.dry_run {
        return print_pruned(context.printer("backup_prune"), "would_delete", stay.len(), &found);
    }
    let shown = dir.display().to_string();
    if let (false, Some((_, Ok(newest)))) = (found.is_empty(), stay.last()) {
        let ids: Vec<_> = found.iter().map(|(id, _)| id.as_str()).collect();
        let why = format!("{} backups would be gone for good: {}", ids.len(), ids.join(", "));
        context.say(&format!("warning: {why}"));
        let (given, look) = (args.confirm.as_deref(), format!("tidemark backup list {shown}"));
        confirm_id(context, &newest.cluster_id, "nothing was deleted", why, given, &look).await?;
    }
    let cannot = |error: io::Error| Failure::file("delete in", &shown, &error);
    for (id, _) in &found {
        folder.remove(id).map_err(cannot)?;
    }
    let kept = stay.iter().filter_map(|(_, manifest)| manifest.as_ref().ok());
    let used: BTreeSet<_> = kept
        .flat_map(|manifest| manifest.files())
        .map(|file| file.stored_name())
        .collect();
    let (files, bytes) = folder.sweep(&used).map_err(cannot)?;
    let mut printer = context.printer("backup_prune");
    printer.head("files_deleted", Cell::Uint(files))?;
    printer.head("bytes_deleted", Cell::Uint(bytes))?;
    print_pruned(printer, "deleted", stay.len(), &found)
}

fn print_pruned(mut printer: Printer, section: &'static str, kept: usize, gone: &[Found]) -> Outcome {
    printer.head("backups_kept", Cell::Uint(kept as u64))?;
    printer.section(section, &["id"])?;
    for (id, _) in gone {
        printer.row(vec![Cell::text(id)])?;
    }
    printer.finish(&[])
}

/// Where clients reach a node of the cluster.
fn address_of(status: &v1::StatusResponse, node_id: u64) -> Option<String> {
    let mut nodes = status.nodes.iter().filter_map(|node| node.node.as_ref());
    let address = nodes.find(|node| node.id == node_id)?.client_address.clone();
    (!address.is_empty()).then_some(address)
}

/// Runs work on files off the threads that wait for the network.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Between two tries of the same thing.
const AGAIN_AFTER: Duration = Duration::from_millis(300);

/// True for failures that another try, perhaps at another node, may not meet.
fn passes(error: &tidemark_client::Error) -> bool {
    let moved = ["NOT_LEADER", "UNKNOWN_BACKUP", "WRONG_CLUSTER"].contains(&error.reason.as_str());
    moved || error.kind == tidemark_client::ErrorKind::Retry
}
