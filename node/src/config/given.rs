//! What was given: a file, the environment, flags, each over the one before it; and the settings that come of it.
//! Never: what a key means.
//!
//! Invariant: nothing that was given is passed over in silence. An unknown key of the file is refused, and so is a
//! variable that is all but a known one.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::de::{DeTable, DeValue};

use super::keys::{KEYS, Key, Kind};
use super::{Config, addresses};

const FILE_ENV: &str = "TIDEMARK_CONFIG";
const ENV_PREFIX: &str = "TIDEMARK_";
/// Letters in which a typing error differs from what was meant.
const SLIP_MAX: usize = 2;

/// What a process is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Serve.
    Serve,
    /// Ask a running node whether it serves.
    Health {
        /// Client address of the node.
        endpoint: String,
    },
    /// Show every setting and where it comes from.
    PrintConfig,
    /// Only say whether the settings are good.
    CheckConfig,
}

/// What a process was called with.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// What to do.
    pub action: Action,
    /// How.
    pub settings: Settings,
}

/// Settings, each with its origin.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The values.
    pub config: Config,
    origins: BTreeMap<&'static str, Origin>,
}

#[derive(Clone, Debug)]
enum Origin {
    File(PathBuf, usize),
    Env(&'static str),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Env(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// Why a process does not begin.
#[derive(Debug)]
pub enum Refused {
    /// The command line; help and version come this way too.
    Usage(clap::Error),
    /// The settings: one line for each fault.
    Settings(Vec<String>),
}

impl From<clap::Error> for Refused {
    fn from(error: clap::Error) -> Self {
        Refused::Usage(error)
    }
}

/// Reads arguments and environment, and the file that they name.
pub fn read(
    args: impl IntoIterator<Item = OsString>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Invocation, Refused> {
    let matches = command().try_get_matches_from(args)?;
    let mut faults = Vec::new();
    let env = own_variables(env, &mut faults);
    let mut given: Vec<(&'static Key, String, Origin)> = Vec::new();
    let file = matches.get_one::<PathBuf>("config").cloned();
    if let Some(path) = file.or_else(|| env.get(FILE_ENV).map(PathBuf::from)) {
        read_file(&path, &mut given, &mut faults);
    }
    for key in KEYS {
        if let Some(text) = env.get(key.env) {
            given.push((key, text.clone(), Origin::Env(key.env)));
        }
    }
    for key in KEYS {
        if let Some(texts) = matches.get_many::<String>(key.name) {
            let text = texts.map(String::as_str).collect::<Vec<_>>().join(",");
            given.push((key, text, Origin::Flag(key.flag)));
        }
    }
    let (mut config, mut origins) = (Config::default(), BTreeMap::new());
    for (key, text, origin) in given {
        if !(key.set)(&mut config, &text) {
            faults.push(format!("{origin}: {} = {text:?}, must be {}", key.name, key.allowed));
        }
        origins.insert(key.name, origin);
    }
    let action = action(&matches, &config);
    // Values that are not good have consequences that nobody need read. And asking a node takes no settings but its address.
    if faults.is_empty() && !matches!(action, Action::Health { .. }) {
        let said = |(key, fault): (&str, String)| format!("{}: {fault}", origin_of(&origins, key));
        faults.extend(addresses::faults(&config).into_iter().map(said));
    }
    if !faults.is_empty() {
        return Err(Refused::Settings(faults));
    }
    let settings = Settings { config, origins };
    Ok(Invocation { action, settings })
}

fn origin_of(origins: &BTreeMap<&'static str, Origin>, key: &str) -> String {
    origins
        .get(key)
        .map_or_else(|| "default".to_string(), Origin::to_string)
}

fn action(matches: &ArgMatches, config: &Config) -> Action {
    if let Some((_, health)) = matches.subcommand() {
        let endpoint = health.get_one::<String>("endpoint").cloned();
        return Action::Health {
            endpoint: endpoint.unwrap_or_else(|| config.listen.clone()),
        };
    }
    if matches.get_flag("print-config") {
        return Action::PrintConfig;
    }
    if matches.get_flag("check-config") {
        return Action::CheckConfig;
    }
    Action::Serve
}

fn command() -> Command {
    let file = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("File of settings, TOML; environment and flags win over it [env: TIDEMARK_CONFIG]");
    let only = |name: &'static str, help: &'static str| {
        let arg = Arg::new(name).long(name).action(ArgAction::SetTrue);
        arg.help(help)
    };
    let endpoint = Arg::new("endpoint")
        .long("endpoint")
        .value_name("HOST:PORT")
        .help("Client address of the node; where this configuration listens unless given");
    Command::new("tidemarkd")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A node of a Tidemark cluster")
        .args_conflicts_with_subcommands(false)
        .arg(file)
        .args(KEYS.iter().map(flag))
        .arg(only(
            "print-config",
            "Prints every setting with its origin, as a file of settings, and ends",
        ))
        .arg(only(
            "check-config",
            "Says whether the settings are good, and ends: exit code 0 or 2",
        ))
        .subcommand(
            Command::new("health")
                .about("Asks a running node whether it serves; exit code 0 or 1")
                .arg(endpoint),
        )
}

fn flag(key: &'static Key) -> Arg {
    let default = (key.show)(&Config::default());
    let help = format!("{} [env: {}] [default: {default}]", key.about, key.env);
    let arg = Arg::new(key.name).long(key.flag).help(help);
    match key.kind {
        Kind::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Kind::List => arg.action(ArgAction::Append).value_name("HOST:PORT,..."),
        Kind::Text | Kind::Number | Kind::Size => arg.value_name("VALUE"),
    }
}

/// The variables that are meant for this program. An empty one counts as not set; those of the tools are passed over.
fn own_variables(
    env: impl IntoIterator<Item = (OsString, OsString)>,
    faults: &mut Vec<String>,
) -> BTreeMap<String, String> {
    let mut own = BTreeMap::new();
    let names: Vec<&str> = KEYS.iter().map(|key| key.env).chain([FILE_ENV]).collect();
    for (name, value) in env {
        let Some(name) = name.to_str().filter(|name| name.starts_with(ENV_PREFIX)) else {
            continue;
        };
        if !names.contains(&name) {
            if let Some(near) = nearest(name, &names).filter(|near| slip(name, near) <= SLIP_MAX) {
                faults.push(format!("environment: unknown variable {name}; did you mean {near}?"));
            }
            continue;
        }
        match value.into_string() {
            Ok(text) if text.is_empty() => {}
            Ok(text) => drop(own.insert(name.to_string(), text)),
            Err(_) => faults.push(format!("environment {name}: the value is not UTF-8")),
        }
    }
    own
}

fn read_file(path: &Path, given: &mut Vec<(&'static Key, String, Origin)>, faults: &mut Vec<String>) {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) => return faults.push(format!("{}: {e}", path.display())),
    };
    let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
    let at = |start: usize| format!("{}:{}", path.display(), line(start));
    let table = match DeTable::parse(&text) {
        Ok(table) => table,
        Err(e) => {
            return faults.push(format!(
                "{}: {}",
                at(e.span().map_or(0, |span| span.start)),
                e.message()
            ));
        }
    };
    let names: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    for (name, value) in table.get_ref() {
        let here = at(name.span().start);
        let name = name.get_ref().as_ref();
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            let near = nearest(name, &names);
            let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
            faults.push(format!("{here}: unknown key `{name}`{near}"));
            continue;
        };
        match as_text(key.kind, value.get_ref()) {
            Some(text) => given.push((key, text, Origin::File(path.to_owned(), line(value.span().start)))),
            None => {
                let kind = value.get_ref().type_str();
                faults.push(format!(
                    "{here}: {name} is of the wrong type ({kind}), must be {}",
                    key.allowed
                ));
            }
        }
    }
}

/// A value of a file as a flag would have it; `None` where TOML has another type for such a value.
fn as_text(kind: Kind, value: &DeValue<'_>) -> Option<String> {
    match (kind, value) {
        (Kind::Text | Kind::Size | Kind::List, DeValue::String(text)) => Some(text.to_string()),
        (Kind::Switch, DeValue::Boolean(on)) => Some(on.to_string()),
        (Kind::Number | Kind::Size, DeValue::Integer(number)) => Some(number.to_string()),
        (Kind::List, DeValue::Array(items)) => {
            let texts = items.iter().map(|item| item.get_ref().as_str());
            Some(texts.collect::<Option<Vec<_>>>()?.join(","))
        }
        _ => None,
    }
}

/// The known name that is most like this one, where any is like it at all.
fn nearest<'n>(name: &str, known: &[&'n str]) -> Option<&'n str> {
    let near = known.iter().copied().min_by_key(|known| slip(name, known))?;
    (slip(name, near) <= SLIP_MAX.max(name.len() / 3)).then_some(near)
}

/// How many letters apart two names are; a hyphen is as good as an underscore, and case does not matter.
fn slip(a: &str, b: &str) -> usize {
    let plain = |name: &str| name.to_ascii_lowercase().replace('-', "_");
    strsim::osa_distance(&plain(a), &plain(b))
}

impl Settings {
    /// Every key with its value, what it is for and where it comes from, as a file of settings.
    pub fn to_toml(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let mut out = format!(
            "# Settings of tidemarkd {version}, for `tidemarkd --config FILE`. Environment and flags win over a file.\n"
        );
        for key in KEYS {
            let origin = origin_of(&self.origins, key.name);
            let value = (key.show)(&self.config);
            // Writing to a string does not fail.
            let _ = write!(out, "\n# {}\n# {} = {}\n", key.about, key.env, key.allowed);
            let _ = write!(out, "# from: {origin}\n{} = {value}\n", key.name);
        }
        out
    }
}
