//! Replicas that have left this node for good: how their files go, and that they never come back. Never: who leaves
//! (the catalog says).
//!
//! ```text
//! <data>/groups/GONE            one line "<group>-<replica>" for each, only ever added to
//! ```
//!
//! Invariant: the line is on disk before the log of the replica goes. From then on nobody opens it again, whatever an
//! older catalog says after a crash: an empty log under a known replica id would vote without its memory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::host::Host;
use super::machine::blocking;
use super::replica::Replica;
use crate::catalog::{CATALOG_GROUP, Catalog};
use crate::clock::monotonic;
use crate::error::{Error, Result};

const FILE: &str = "GONE";
/// Readers that still answer from a replica are waited for this long before its files go.
const READERS_TIMEOUT: Duration = Duration::from_secs(10);
const READERS_POLL: Duration = Duration::from_millis(20);

/// Replicas of this node that have left.
pub(super) struct Gone {
    groups_dir: PathBuf,
    ids: BTreeSet<(u32, u64)>,
}

impl Gone {
    /// Reads them.
    pub(super) fn load(data_dir: &Path) -> io::Result<Gone> {
        let groups_dir = data_dir.join("groups");
        let text = match fs::read_to_string(groups_dir.join(FILE)) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(e),
        };
        // A line without its end was cut by a crash: its replica had not gone yet.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let ids = whole.lines().filter_map(parse).collect();
        Ok(Gone { groups_dir, ids })
    }

    pub(super) fn contains(&self, group: u32, replica: u64) -> bool {
        self.ids.contains(&(group, replica))
    }

    /// Notes one, on disk; known here only once it is there.
    pub(super) fn add(&mut self, group: u32, replica: u64) -> io::Result<()> {
        let mut ids = self.ids.clone();
        if ids.insert((group, replica)) {
            self.write(&ids)?;
            self.ids = ids;
        }
        Ok(())
    }

    fn write(&self, ids: &BTreeSet<(u32, u64)>) -> io::Result<()> {
        fs::create_dir_all(&self.groups_dir)?;
        let mut lines = String::new();
        for (group, replica) in ids {
            lines += &format!("{group}-{replica}\n");
        }
        let temporary = self.groups_dir.join("GONE.new");
        let mut file = File::create(&temporary)?;
        file.write_all(lines.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, self.groups_dir.join(FILE))?;
        File::open(&self.groups_dir)?.sync_all()
    }

    fn folder(&self, group: u32, replica: u64) -> PathBuf {
        self.groups_dir.join(format!("{group}-{replica}"))
    }

    /// Folders of replicas that are on disk.
    fn on_disk(&self) -> io::Result<Vec<(u32, u64)>> {
        let entries = match fs::read_dir(&self.groups_dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut found = Vec::new();
        for entry in entries {
            found.extend(entry?.file_name().to_str().and_then(parse));
        }
        Ok(found)
    }
}

fn parse(name: &str) -> Option<(u32, u64)> {
    let (group, replica) = name.split_once('-')?;
    Some((group.parse().ok()?, replica.parse().ok()?))
}

/// True where the catalog gave this replica id out and no longer places it on the node. A catalog that has not heard of
/// the id yet, after a crash, says nothing about it.
fn has_left(catalog: &Catalog, node: u64, group: u32, replica: u64) -> bool {
    let placed = catalog
        .shard(group)
        .is_some_and(|shard| shard.replicas.iter().any(|r| r.id == replica && r.node_id == node));
    group != CATALOG_GROUP && catalog.is_initialised() && replica < catalog.state().next_replica_id && !placed
}

impl Host {
    /// Stops the replicas that the catalog places elsewhere by now, and removes what they kept.
    pub(super) async fn drop_unplaced(self: &Arc<Self>, catalog: &Catalog) -> Result<()> {
        let node = self.identity()?.node_id;
        let on_disk = self.gone().on_disk().map_err(Error::internal)?;
        for (group, id) in on_disk {
            if !self.gone().contains(group, id) && !has_left(catalog, node, group, id) {
                continue;
            }
            tracing::info!(group, replica = id, "replica has left this node, its files go");
            let host = self.clone();
            blocking(move || host.gone().add(group, id).map_err(Error::internal)).await?;
            self.leaving().insert((group, id));
            let running = self.replica(group).filter(|replica| replica.id() == id);
            if running.is_some() {
                self.forget_running(group);
            }
            if let Some(replica) = running {
                replica.retire().await;
                close(replica).await?;
            }
            self.damaged().remove(&group);
            // Another replica of the group may run here by now only if this one's log had gone before.
            if self.replica(group).is_none() {
                self.log().forget(group).await.map_err(Error::internal)?;
            }
            let folder = self.gone().folder(group, id);
            blocking(move || fs::remove_dir_all(&folder).map_err(Error::internal)).await?;
            self.leaving().remove(&(group, id));
        }
        Ok(())
    }

    /// Replicas that no longer run and still have files.
    pub(super) fn leaving(&self) -> std::sync::MutexGuard<'_, BTreeSet<(u32, u64)>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn gone(&self) -> std::sync::MutexGuard<'_, Gone> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the state of a replica that has stopped, once nobody reads it any more. Closing a database takes its time:
/// whoever lets go last does it, and that must not be a task that others wait behind.
async fn close(replica: Arc<Replica>) -> Result<()> {
    let until = monotonic() + READERS_TIMEOUT;
    let state = replica.state().clone();
    drop(replica);
    while Arc::strong_count(&state) > 1 && monotonic() < until {
        tokio::time::sleep(READERS_POLL).await;
    }
    blocking(move || {
        drop(state);
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_could_not_be_noted_is_not_known() {
        let dir = tempfile::tempdir().unwrap();
        let mut gone = Gone::load(dir.path()).unwrap();
        gone.add(3, 17).unwrap();
        let in_the_way = dir.path().join("groups").join("GONE.new");
        fs::create_dir(&in_the_way).unwrap();
        for _ in 0..2 {
            gone.add(3, 29).unwrap_err();
            assert!(gone.contains(3, 17) && !gone.contains(3, 29));
        }
        fs::remove_dir(&in_the_way).unwrap();
        gone.add(3, 29).unwrap();
        let loaded = Gone::load(dir.path()).unwrap();
        assert!(loaded.contains(3, 17) && loaded.contains(3, 29));
    }

    #[test]
    fn what_has_left_is_remembered_and_a_cut_line_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut gone = Gone::load(dir.path()).unwrap();
        gone.add(3, 17).unwrap();
        gone.add(3, 29).unwrap();
        gone.add(3, 17).unwrap();
        let loaded = Gone::load(dir.path()).unwrap();
        assert!(loaded.contains(3, 17) && loaded.contains(3, 29) && !loaded.contains(3, 18));
        let path = dir.path().join("groups").join(FILE);
        fs::write(&path, "3-17\n3-2").unwrap();
        let loaded = Gone::load(dir.path()).unwrap();
        assert!(loaded.contains(3, 17) && !loaded.contains(3, 2));
    }
}
