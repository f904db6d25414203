//! A store of another make as a process: start, stop, kill, start again. Never here: what it is asked. Invariant: no process
//! outlives its handle, and one that ended unasked is an error with the end of its log.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, Command};

use crate::ops::until;

/// Longest wait for a process to end by itself.
const LAST_WAIT: Duration = Duration::from_secs(120);

/// How to start it.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) variables: Vec<(&'static str, String)>,
    pub(crate) log: PathBuf,
    /// The signal that asks it to stop.
    pub(crate) stop: &'static str,
}

/// The process while it runs.
#[derive(Debug)]
pub(crate) struct Process {
    recipe: Recipe,
    child: Option<Child>,
}

impl Process {
    pub(crate) fn start(recipe: Recipe) -> Result<Process> {
        let mut process = Process { recipe, child: None };
        process.start_again()?;
        Ok(process)
    }

    pub(crate) fn start_again(&mut self) -> Result<()> {
        let recipe = &self.recipe;
        let log = File::options().create(true).append(true).open(&recipe.log)?;
        let child = Command::new(&recipe.program)
            .args(&recipe.arguments)
            .envs(recipe.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        self.child = Some(child.with_context(|| format!("start {}", recipe.program.display()))?);
        Ok(())
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Fails when it does not run any more.
    pub(crate) fn runs(&mut self) -> Result<()> {
        let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
        if let Some(status) = ended {
            let log = fs::read_to_string(&self.recipe.log).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(5).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            bail!(
                "{} ended ({status}): {}",
                self.recipe.program.display(),
                last.join(" | ")
            );
        }
        Ok(())
    }

    /// `kill -9` of it and of every process it started.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        let pid = child.id().context("it has ended")?;
        let tree = super::usage::tree(&[pid]);
        Command::new("kill")
            .arg("-KILL")
            .args(tree.iter().map(u32::to_string))
            .stderr(Stdio::null())
            .status()
            .await?;
        child.wait().await?;
        // What they held together is free only when the last one is gone.
        let gone = async || (!tree.iter().any(|pid| is_alive(*pid))).then_some(());
        until("killed processes are gone", LAST_WAIT, gone).await
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let pid = child.id().context("it has ended")?.to_string();
        let sent = Command::new("kill").args([self.recipe.stop, &pid]).status().await?;
        ensure!(sent.success(), "kill {} {pid}", self.recipe.stop);
        if tokio::time::timeout(LAST_WAIT, child.wait()).await.is_err() {
            bail!(
                "{} still runs after {} s",
                self.recipe.program.display(),
                LAST_WAIT.as_secs()
            );
        }
        Ok(())
    }
}

/// Whether a process has not ended yet, waited for or not.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    state.is_some_and(|state| !["Z", "X"].contains(&state))
}

/// Finds a program on the path, or in one of these folders.
pub(crate) fn find(name: &str, folders: &[&str]) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).collect::<Vec<_>>();
    let all = folders.iter().map(PathBuf::from).chain(on_path);
    let found = all.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is not installed; see bench/peers.sh"))
}

/// What a program prints of its version.
pub(crate) async fn version(program: &Path) -> Result<String> {
    let out = Command::new(program).arg("--version").output().await?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Version of a Debian package, which some programs do not say themselves.
pub(crate) async fn package_version(package: &str) -> Result<String> {
    let asked = Command::new("dpkg-query")
        .args(["-W", "-f", "${Version}", package])
        .output()
        .await;
    let version = asked
        .map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned())
        .unwrap_or_default();
    let known = if version.is_empty() {
        "of unknown version"
    } else {
        &version
    };
    Ok(format!("{package} {known}"))
}
