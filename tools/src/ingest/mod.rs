//! `ingest FILE.csv`: from flags to a running import. Never: cutting (`chunk`), bookkeeping (`flow`), sending (`run`).
//!
//! Invariant: nothing is sent before file, mapping, types and progress file all agree.

mod chunk;
mod flow;
mod lines;
mod mapping;
mod progress;
mod refused;
#[cfg(test)]
mod refused_tests;
mod register;
mod rejects;
mod request;
mod run;
mod state;
#[cfg(test)]
mod tests;
mod times;
mod values;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use clap::Args;
use tidemark_client::{Client, v1};

use self::chunk::{Cutter, Held};
use self::flow::Flow;
use self::lines::{Fields, Lines, Position};
use self::mapping::{KindArg, Mapping, MappingArgs, Shape};
use self::register::Registrar;
use self::rejects::Rejects;
use self::state::State;
use self::times::TimeForm;
use self::values::Typed;
use crate::cli::Context;
use crate::failure::{Failure, OrFail, Outcome};

/// What to put in, and how.
#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(crate) struct IngestArgs {
    /// CSV with a header, plain or zstd; - for standard input
    file: String,
    #[command(flatten)]
    mapping: MappingArgs,
    /// Most records in a batch
    #[arg(long, value_name = "ROWS", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    batch: u32,
    /// Most batches without an acknowledgement
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=128))]
    in_flight: u32,
    /// Register devices of the file that the store does not know
    #[arg(long)]
    register: bool,
    /// Tag of the devices that --register registers (repeat)
    #[arg(long = "tag", value_name = "KEY=VALUE", requires = "register", value_parser = crate::selector::parse_pair)]
    tags: Vec<(String, String)>,
    /// Go on, and list its rows as rejects, although the store refuses all of the first batch for one reason
    #[arg(long)]
    keep_going: bool,
    /// Where rejected rows go [default: FILE.rejected.csv]
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Progress file [default: FILE.tidemark-progress; none for standard input]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Go on where an earlier run of this command stopped (the default)
    #[arg(long, overrides_with = "restart")]
    resume: bool,
    /// Begin anew, whatever an earlier run left
    #[arg(long, overrides_with = "resume")]
    restart: bool,
}

const AFTER: &str = "\
Two forms are told apart by the header: long (device,property,timestamp,value) and wide (device,timestamp, then a column
per property). An interrupted or failed run goes on where it stopped when the same command is run again: every batch
keeps its number, so nothing is stored twice. Rows that cannot be read or that the store refuses go to the rejects
file with line number and reason; the run goes on and ends with exit code 7. Where the store refuses the whole first batch
for one reason (devices that are not registered, times in another unit), the run stops and says so (--keep-going does not).";

/// A file whose header is read.
struct Opened {
    lines: Lines,
    taken: Arc<AtomicU64>,
    header: Vec<u8>,
    first: Option<Held>,
}

/// Runs the verb.
pub(crate) async fn run(context: &Context, args: IngestArgs) -> Outcome {
    let opened = open(&args.file)?;
    let client = context.connect_for(GIVE_UP_AFTER).await?;
    let types = fetch_types(&client, &args.mapping).await?;
    let mut mapping = Mapping::new(&opened.header, &args.mapping, &types)
        .map_err(|why| Failure::usage(format!("cannot map the columns of {}", args.file), why))?;
    if !mapping.left_out.is_empty() {
        let columns = mapping.left_out.join(", ");
        context.say(&format!(
            "left out: {columns} (--map PROPERTY=COLUMN takes a column in)"
        ));
    }
    settle_times(context, &mut mapping, opened.first.as_ref())?;
    let fingerprint = fingerprint(&client, &args, &mapping, &opened).await?;
    let start = opened
        .first
        .as_ref()
        .map_or_else(|| opened.lines.position(), |(_, at)| *at);
    let (state, state_path) = earlier_state(context, &args, fingerprint, start)?;
    let registrar = match args.register {
        true => {
            let device_type = args.mapping.device_type.as_deref();
            let tags = args.tags.into_iter().collect();
            Some(Registrar::new(client.clone(), device_type, tags).await?)
        }
        false => None,
    };
    let rejects_path = args
        .rejects
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{}.rejected.csv", stem(&args.file))));
    let rejects = Rejects::open(rejects_path.clone(), state.rejects_bytes).map_err(|error| {
        Failure::file(
            "go on with the rejects file",
            &rejects_path.display().to_string(),
            &error,
        )
    })?;
    let (lines, held) = rewind(&args.file, opened.lines, opened.first, &opened.taken, state.position())?;
    let by_value = matches!(mapping.shape, Shape::Long { .. });
    let kind = report_kind(args.mapping.report_kind);
    let mut flow = Flow::new(Arc::new(types.clone()), kind, by_value, state, rejects);
    flow.begin_at(opened.taken.load(std::sync::atomic::Ordering::Relaxed));
    if args.keep_going {
        flow.keep_going();
    }
    let cutter = Cutter::new(lines, held, mapping, types.clone(), args.batch as usize).counting(opened.taken);
    let job = run::Job {
        client,
        flow,
        cutter,
        types,
        state_path,
        registrar,
        in_flight: args.in_flight as usize,
        give_up_after: context.timeout.max(GIVE_UP_AFTER),
        file: args.file,
    };
    Box::pin(run::run(context, job)).await
}

/// The leader of a shard may be gone for a while; a run waits at least this long before it stops, with batches, rests of
/// batches and devices to register alike.
const GIVE_UP_AFTER: std::time::Duration = std::time::Duration::from_secs(60);

/// What makes a later run the same as this one.
async fn fingerprint(client: &Client, args: &IngestArgs, mapping: &Mapping, opened: &Opened) -> Outcome<String> {
    let status = client.status().await.or_fail("cannot read the cluster's id")?;
    let mut words = vec![
        mapping.describe().into_bytes(),
        args.batch.to_string().into_bytes(),
        format!("{:?}", args.mapping.report_kind).into_bytes(),
        status.cluster_id.into_bytes(),
    ];
    if args.file == "-" {
        // Of a stream this is all that can be looked at before it is taken.
        words.push(opened.header.clone());
        words.extend(opened.first.as_ref().map(|(row, _)| row.clone()));
    }
    state::fingerprint(&args.file, &words).map_err(|error| Failure::file("read", &args.file, &error))
}

/// Name of the files beside the input.
fn stem(file: &str) -> &str {
    if file == "-" { "stdin" } else { file }
}

fn open(file: &str) -> Outcome<Opened> {
    let cannot = |error: std::io::Error| Failure::file("read", file, &error);
    let taken = Arc::new(AtomicU64::new(0));
    let mut lines = Lines::open(file, Arc::clone(&taken), Position::default()).map_err(cannot)?;
    let mut header = Vec::new();
    if lines.next_row(&mut header).map_err(cannot)?.is_none() {
        return Err(Failure::usage(
            format!("nothing to take in {file}"),
            "the file is empty; it must begin with a header",
        ));
    }
    let mut raw = Vec::new();
    let first = lines.next_row(&mut raw).map_err(cannot)?.map(|at| (raw, at));
    Ok(Opened {
        lines,
        taken,
        header,
        first,
    })
}

async fn fetch_types(client: &Client, args: &MappingArgs) -> Outcome<Vec<Typed>> {
    let ids = args.device_type.iter().cloned().collect();
    let types = client
        .list_device_types(ids)
        .await
        .or_fail("cannot learn the device type")?;
    Ok(types.iter().map(Typed::new).collect())
}

/// Where the run begins: at the first row, or where an earlier run stopped.
fn rewind(
    file: &str,
    mut lines: Lines,
    first: Option<Held>,
    taken: &Arc<AtomicU64>,
    position: Position,
) -> Outcome<(Lines, Option<Held>)> {
    let start = first.as_ref().map_or_else(|| lines.position(), |(_, at)| *at);
    if position == start {
        return Ok((lines, first));
    }
    let cannot = |error: std::io::Error| Failure::file("go on in", file, &error);
    if file == "-" {
        lines.skip_to(position).map_err(cannot)?;
    } else {
        taken.store(0, std::sync::atomic::Ordering::Relaxed);
        lines = Lines::open(file, Arc::clone(taken), position).map_err(cannot)?;
    }
    Ok((lines, None))
}

/// Settles how times are written, once, by the first row, and says what was assumed.
fn settle_times(context: &Context, mapping: &mut Mapping, first: Option<&Held>) -> Outcome {
    let mut fields = Fields::default();
    let text = first.and_then(|(raw, _)| fields.split(raw).ok().and_then(|()| fields.get(mapping.time)));
    let Some(text) = text else { return Ok(()) };
    if mapping.time_form.is_none() {
        let form = TimeForm::detect(text).map_err(|why| Failure::usage("cannot tell how times are written", why))?;
        mapping.time_form = Some(form);
        let name = match form {
            TimeForm::Rfc3339 => "calendar text",
            TimeForm::S => "seconds",
            TimeForm::Ms => "milliseconds",
            TimeForm::Us => "microseconds",
            TimeForm::Ns => "nanoseconds",
        };
        context.say(&format!(
            "times like {text} are read as {name} (--time-format says otherwise)"
        ));
    }
    if mapping.time_form == Some(TimeForm::Rfc3339) && !crate::time::has_zone(text) {
        context.say(&format!("times like {text} name no zone and are read as UTC"));
    }
    Ok(())
}

/// What an earlier run of the same command left, or a new beginning.
fn earlier_state(
    context: &Context,
    args: &IngestArgs,
    fingerprint: String,
    start: Position,
) -> Outcome<(State, Option<PathBuf>)> {
    let path = match (&args.state, args.file.as_str()) {
        (Some(path), _) => Some(path.clone()),
        (None, "-") => None,
        (None, file) => Some(PathBuf::from(format!("{file}.tidemark-progress"))),
    };
    let fresh = State::new(fingerprint, new_producer(), start);
    let Some(path) = path else { return Ok((fresh, None)) };
    let shown = path.display().to_string();
    if !args.restart {
        match State::load(&path) {
            Ok(Some(earlier)) if earlier.fingerprint == fresh.fingerprint => {
                context.say(&format!(
                    "going on after {} rows, as {shown} says (--restart begins anew)",
                    earlier.totals.rows
                ));
                return Ok((earlier, Some(path)));
            }
            Ok(Some(_)) => context.say(&format!(
                "{shown} is of another file, mapping or cluster: beginning anew"
            )),
            Ok(None) => {}
            Err(why) => {
                let what = format!("cannot go on from {shown}");
                return Err(
                    Failure::usage(what, why).or_next("the same command with --restart, or another --state FILE")
                );
            }
        }
    }
    match fresh.save(&path) {
        Ok(()) => Ok((fresh, Some(path))),
        Err(error) if args.state.is_none() => {
            context.say(&format!(
                "no progress is kept, a stopped run begins anew: cannot write {shown}: {error} (--state FILE)"
            ));
            Ok((fresh, None))
        }
        Err(error) => Err(Failure::file("write the progress file", &shown, &error)),
    }
}

/// A name that no other run has: 128 bits from the random keys that the standard library hashes with.
fn new_producer() -> String {
    let half = || RandomState::new().build_hasher().finish();
    format!("cli-{:016x}{:016x}", half(), half())
}

fn report_kind(kind: KindArg) -> v1::ReportKind {
    match kind {
        KindArg::Routine => v1::ReportKind::Routine,
        KindArg::Event => v1::ReportKind::Event,
        KindArg::Backfill => v1::ReportKind::Backfill,
        KindArg::Manual => v1::ReportKind::Manual,
        KindArg::Test => v1::ReportKind::Test,
        KindArg::Keepalive => v1::ReportKind::Keepalive,
    }
}
