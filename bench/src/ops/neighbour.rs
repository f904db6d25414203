//! A neighbour of the nodes on their disk, which writes a page and syncs it, over and over: how long the machine alone
//! makes everybody wait. Never here: what nodes do.
//! Invariant: it writes over the same few pages of a file of its own, so that it costs the nodes next to nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

use super::record::Record;

const PAGE: [u8; 4096] = [0x5a; 4096];
const PAGES: u64 = 64;
const EVERY: Duration = Duration::from_millis(10);

/// Works until dropped.
#[derive(Debug)]
pub(super) struct Neighbour(JoinHandle<()>);

impl Neighbour {
    /// Moves in beside the folders of the nodes.
    pub(super) fn beside_nodes(dir: &Path, record: Arc<Record>) -> Result<Neighbour> {
        let path = dir.join("neighbour");
        let file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
        for page in 0..PAGES {
            write(&file, page)?;
        }
        file.sync_all()?;
        Ok(Neighbour(tokio::spawn(write_and_sync(Arc::new(file), record))))
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn write_and_sync(file: Arc<File>, record: Arc<Record>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for page in (0..PAGES).cycle() {
        ticks.tick().await;
        let file = Arc::clone(&file);
        let synced = spawn_blocking(move || {
            let began = Instant::now();
            write(&file, page).and_then(|()| file.sync_data())?;
            io::Result::Ok(began.elapsed())
        });
        if let Ok(Ok(took)) = synced.await {
            record.synced(took);
        }
    }
}

fn write(file: &File, page: u64) -> io::Result<()> {
    file.write_all_at(&PAGE, page * PAGE.len() as u64)
}
