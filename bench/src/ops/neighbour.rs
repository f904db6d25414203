//! A neighbour of the nodes on their disk, which writes a page and syncs it, over and over: how long the machine alone
//! makes everybody wait. Never here: what nodes do.
//! Invariant: it writes over the same few pages of a file of its own, so that it costs the nodes next to nothing.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::record::Record;

const PAGE: [u8; 4096] = [0x5a; 4096];
const PAGES: u64 = 64;
const EVERY: Duration = Duration::from_millis(10);

/// Works until dropped.
#[derive(Debug)]
pub(super) struct Neighbour {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Neighbour {
    /// Moves in beside the folders of the nodes.
    pub(super) fn beside_nodes(dir: &Path, record: Arc<Record>) -> Result<Neighbour> {
        let path = dir.join("neighbour");
        let file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
        for page in 0..PAGES {
            file.write_all_at(&PAGE, page * PAGE.len() as u64)?;
        }
        file.sync_all()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            for page in (0..PAGES).cycle() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                thread::sleep(EVERY);
                let began = Instant::now();
                let written = file.write_all_at(&PAGE, page * PAGE.len() as u64);
                if written.and_then(|()| file.sync_data()).is_ok() {
                    record.synced(began.elapsed());
                }
            }
        });
        Ok(Neighbour {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}
