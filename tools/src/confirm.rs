//! The question before something that cannot be undone: the first characters of the cluster id. Never: what is dangerous.
//!
//! Invariant: without a terminal nothing is asked, and nothing is done that the flag did not confirm.

use std::io::{BufRead, IsTerminal, Write};

use tidemark_client::Client;

use crate::cli::Context;
use crate::failure::{Exit, Failure, OrFail, Outcome};

/// Characters of the cluster id that confirm.
const CONFIRM_CHARS: usize = 8;

/// The name of the cluster shows that the operator is where he thinks he is. `undone` says what happens without it, `why`
/// what there is to confirm, `given` what the flag said.
pub(crate) async fn confirm(
    context: &Context,
    client: &Client,
    undone: &str,
    why: String,
    given: Option<&str>,
) -> Outcome {
    let map = client.shard_map().await.or_fail("cannot read the id of the cluster")?;
    confirm_id(context, &map.cluster_id, undone, why, given, "tidemark cluster status").await
}

/// The same where the id is known; `look` says where it can be seen.
pub(crate) async fn confirm_id(
    context: &Context,
    cluster_id: &str,
    undone: &str,
    why: String,
    given: Option<&str>,
    look: &str,
) -> Outcome {
    let prefix: String = cluster_id.chars().take(CONFIRM_CHARS).collect();
    let typed = match given {
        Some(text) => text.to_owned(),
        None if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() => {
            if context.style.format.is_json() {
                // Somebody is there after all, and must see what he is asked about.
                let _ = writeln!(std::io::stderr(), "warning: {}", crate::output::escape(&why));
            }
            ask(undone, &prefix).await?
        }
        None => {
            return Err(Failure::new(
                Exit::Refused,
                format!("{undone}: this has to be confirmed"),
                why,
                format!("if that is meant, the same command with --confirm {prefix}"),
            ));
        }
    };
    let typed = typed.trim();
    if typed.chars().count() >= CONFIRM_CHARS.min(cluster_id.chars().count()).max(1) && cluster_id.starts_with(typed) {
        context.say("confirmed");
        return Ok(());
    }
    Err(Failure::new(
        Exit::Refused,
        format!("{undone}: not confirmed"),
        format!("the id of this cluster begins with {prefix}"),
        look,
    ))
}

async fn ask(undone: &str, prefix: &str) -> Outcome<String> {
    let mut err = std::io::stderr().lock();
    write!(
        err,
        "type the first {CONFIRM_CHARS} characters of the cluster id ({prefix}) to go on: "
    )?;
    err.flush()?;
    drop(err);
    let read = || {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    };
    tokio::select! {
        line = tokio::task::spawn_blocking(read) => Ok(line.map_err(std::io::Error::other)??),
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Interrupted, format!("interrupted: {undone}"), "", "")),
    }
}
