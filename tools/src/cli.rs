//! The command line: global flags, nouns and verbs, and what each verb is handed. Never: what a verb does.
//!
//! Invariant: a setting comes from its flag, else its `TIDEMARK_*` variable, else its default; nothing else reads the environment.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use jiff::Timestamp;
use tidemark_client::{Client, ClientOptions};

use crate::failure::{Exit, OrFail, Outcome};
use crate::output::{Format, Printer, Style};
use crate::time::{TsFormat, parse_span};
use crate::{
    alert, backup, cluster, completion, device, doctor, ingest, job, node, query, shard, top, types, version, watch,
};

/// Operates a Tidemark cluster: types, devices, data in, questions out
#[derive(Debug, Parser)]
#[command(name = "tidemark", version, max_term_width = 120, propagate_version = false, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    noun: Noun,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 cannot connect or unavailable (try again), 4 not found, 5 not permitted,
6 refused by a safety check, 7 partly done (rows rejected), 8 unhealthy, 124 timed out, 130 interrupted.
A job goes on after 124 and 130: `tidemark job watch` finds it again. Data goes to standard output, everything else to standard error.";

#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
struct Global {
    /// Where to connect: any nodes of the cluster (repeat, or separate by commas)
    #[arg(
        short,
        long,
        global = true,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        env = "TIDEMARK_ENDPOINT",
        default_value = "127.0.0.1:7777"
    )]
    endpoint: Vec<String>,
    /// Longest wait for one operation, retries included
    #[arg(long, global = true, value_name = "SPAN", env = "TIDEMARK_TIMEOUT", default_value = "30s", value_parser = parse_timeout)]
    timeout: Duration,
    /// For which application it asks: nodes keep the budgets of questions by application
    #[arg(long, global = true, value_name = "NAME", env = "TIDEMARK_APPLICATION")]
    application: Option<String>,
    /// Form of the answer
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        value_name = "FORM",
        env = "TIDEMARK_OUTPUT",
        default_value = "table"
    )]
    output: Format,
    /// Form of instants
    #[arg(long, global = true, value_enum, value_name = "FORM", default_value = "rfc3339")]
    ts_format: TsFormat,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    parse_span(text).map(|ns| Duration::from_nanos(ns.unsigned_abs()))
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Make, join and look at a cluster
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// Nodes: add them, look at them, take them out
    #[command(subcommand)]
    Node(node::Verb),
    /// Shards: where their replicas are, who leads, whether they are equal
    #[command(subcommand)]
    Shard(shard::Verb),
    /// Spread replicas and leaderships evenly over nodes and zones
    Rebalance(job::RebalanceArgs),
    /// Jobs that move replicas: find, follow and cancel them
    #[command(subcommand)]
    Job(job::Verb),
    /// Watch the cluster live
    Top(top::TopArgs),
    /// Check the cluster and its machines, and collect what a report of a defect needs
    Doctor(doctor::DoctorArgs),
    /// Device types: what devices measure
    #[command(subcommand)]
    Type(types::Verb),
    /// Devices: register and find them
    #[command(subcommand)]
    Device(device::Verb),
    /// Put the rows of a CSV file into the store
    Ingest(Box<ingest::IngestArgs>),
    /// Ask for records, aggregates or latest values
    #[command(subcommand)]
    Query(query::Verb),
    /// Alerts: levels that devices reached, and who has seen them
    #[command(subcommand)]
    Alert(alert::Verb),
    /// Print records, alerts and silence as they happen
    Watch(Box<watch::WatchArgs>),
    /// Copy a cluster into a folder while it serves, check copies, bring one back
    #[command(subcommand)]
    Backup(backup::Verb),
    /// Print a completion script for a shell
    Completion(completion::CompletionArgs),
    /// Print versions of this program and, where one answers, of the server
    Version(version::VersionArgs),
}

/// What every verb is handed.
#[derive(Debug)]
pub(crate) struct Context {
    endpoints: Vec<String>,
    application: Option<String>,
    /// Longest wait for one operation.
    pub(crate) timeout: Duration,
    /// Form of the answer.
    pub(crate) style: Style,
}

impl Context {
    /// Connects to the cluster.
    pub(crate) async fn connect(&self) -> Outcome<Client> {
        self.connect_for(Duration::ZERO).await
    }

    /// The same for operations that take long: waits for them at least so long, whatever the flag says.
    pub(crate) async fn connect_for(&self, at_least: Duration) -> Outcome<Client> {
        let options = ClientOptions {
            endpoints: self.endpoints.clone(),
            application: self.application.clone(),
            timeout: self.timeout.max(at_least),
            ..ClientOptions::default()
        };
        let what = format!("cannot connect to {}", self.endpoints.join(", "));
        let connected = Client::connect_with(options).await.or_fail(&what);
        connected.map_err(|failure| match failure.exit() {
            Exit::Unavailable => failure.next("start a node (tidemarkd), or name another with --endpoint HOST:PORT"),
            _ => failure,
        })
    }

    /// An answer on standard output.
    pub(crate) fn printer(&self, kind: &'static str) -> Printer {
        Printer::stdout(self.style, kind)
    }

    /// A remark for people, on standard error; scripts that read json get none.
    pub(crate) fn say(&self, text: &str) {
        if self.style.format.is_json() {
            return;
        }
        let _ = writeln!(std::io::stderr(), "{}", crate::output::escape(text));
    }

    /// True where a person reads standard output as a table.
    pub(crate) fn is_table(&self) -> bool {
        self.style.format == Format::Table
    }
}

/// Now, nanoseconds since the epoch.
pub(crate) fn now_ns() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// Runs the command line of this process.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let machine = cli.global.output.is_json();
    let outcome = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => {
            let outcome = runtime.block_on(Box::pin(dispatch(cli)));
            // A reader thread that waits for standard input must not hold the process.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print(machine);
            ExitCode::from(failure.exit() as u8)
        }
    }
}

async fn dispatch(cli: Cli) -> Outcome {
    let Cli { global, noun } = cli;
    let style = Style {
        format: global.output,
        ts: global.ts_format,
    };
    let context = Context {
        endpoints: global.endpoint,
        application: global.application.filter(|name| !name.is_empty()),
        timeout: global.timeout,
        style,
    };
    match noun {
        Noun::Cluster(verb) => cluster::run(&context, verb).await,
        Noun::Node(verb) => node::run(&context, verb).await,
        Noun::Shard(verb) => shard::run(&context, verb).await,
        Noun::Rebalance(args) => job::rebalance(&context, args).await,
        Noun::Job(verb) => job::run(&context, verb).await,
        Noun::Top(args) => top::run(&context, args).await,
        Noun::Doctor(args) => doctor::run(&context, args).await,
        Noun::Type(verb) => types::run(&context, verb).await,
        Noun::Device(verb) => device::run(&context, verb).await,
        Noun::Ingest(args) => ingest::run(&context, *args).await,
        Noun::Query(verb) => query::run(&context, verb).await,
        Noun::Alert(verb) => alert::run(&context, verb).await,
        Noun::Watch(args) => watch::run(&context, *args).await,
        Noun::Backup(verb) => backup::run(&context, verb).await,
        Noun::Completion(args) => completion::run(&args),
        Noun::Version(args) => version::run(&context, args).await,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// Every `tidemark NOUN VERB` that a message or a page of ours names is one.
    #[test]
    fn commands_that_are_advised_exist() {
        const IN_TEXT: [&str; 3] = ["`tidemark ", ": tidemark ", "\ntidemark "];
        const WHOLE: [&str; 1] = ["\"tidemark "];
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut files: Vec<_> = ["README.md", "CHANGELOG.md", "proto/README.md"]
            .map(|name| root.join(name))
            .into();
        let mut folders: Vec<_> = ["tools/src", "client/src", "node/src"]
            .map(|name| root.join(name))
            .into();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => files.push(path),
                }
            }
        }
        let mut named = 0;
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            // A node has other strings that begin with the name.
            let whole = if file.starts_with(root.join("node")) {
                &[][..]
            } else {
                &WHOLE[..]
            };
            for before in IN_TEXT.iter().chain(whole) {
                for found in text.split(before).skip(1) {
                    check_command(&file, found);
                    named += 1;
                }
            }
        }
        assert!(named > 40, "{named} commands");
    }

    fn check_command(file: &std::path::Path, words: &str) {
        let mut at = Cli::command();
        for word in words.split(' ') {
            let name: String = word
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '-')
                .collect();
            // A placeholder, a flag or nothing: the noun alone is meant.
            if !at.has_subcommands() || name.is_empty() || name.starts_with('-') {
                return;
            }
            let Some(found) = at.find_subcommand(&name) else {
                panic!("{}: no such command: {} {name}", file.display(), at.get_name());
            };
            at = found.clone();
            if name.len() < word.len() {
                return;
            }
        }
    }
}
