//! Room on the disk of the data folder: how much is free, and whether the node may still fill it. Never: what is
//! refused for it.
//!
//! Invariant: between two looks the state is steady; a disk that was low is fine again only when there is a tenth more
//! than the reserve, so that the answer does not flicker.
//!
//! ```text
//! free    0 ... reserve / 8 ..... reserve / 2 ........ reserve ... reserve * 1.1 ........
//!         full: no entry is taken |  low: nothing is proposed  |  fine
//!         and no flush goes below reserve / 8
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::config::DiskReserve;
use crate::error::{Error, Reason, Result};

/// The disk of one node.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    wished: DiskReserve,
    /// In the place of what the file system says; only in tests.
    pretended: Option<Arc<AtomicU64>>,
    total: AtomicU64,
    free: AtomicU64,
    low: AtomicBool,
    full: AtomicBool,
}

/// What was seen at the last look, in bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// Size of the file system.
    pub total: u64,
    /// What this process may still fill.
    pub free: u64,
    /// What stays free.
    pub reserve: u64,
    /// Below the reserve.
    pub low: bool,
    /// Below half of it.
    pub full: bool,
}

impl Room {
    /// What is left alone even by the rest of what leaders had taken, and by flushes: a part of the reserve.
    pub fn floor(&self) -> u64 {
        self.reserve / 8
    }
}

impl Disk {
    /// The disk of a folder that exists, looked at once.
    pub fn new(dir: &Path, wished: DiskReserve, pretended: Option<Arc<AtomicU64>>) -> std::io::Result<Disk> {
        let disk = Disk {
            dir: dir.to_owned(),
            wished,
            pretended,
            total: AtomicU64::new(0),
            free: AtomicU64::new(0),
            low: AtomicBool::new(false),
            full: AtomicBool::new(false),
        };
        disk.look()?;
        Ok(disk)
    }

    /// Looks again; true where the disk became low or fine by it.
    pub fn look(&self) -> std::io::Result<bool> {
        let (total, free) = self.see()?;
        self.total.store(total, Ordering::Relaxed);
        self.free.store(free, Ordering::Relaxed);
        let reserve = self.wished.of(total);
        let step = |state: &AtomicBool, below: u64| {
            let was = state.load(Ordering::Relaxed);
            let bound = if was { below.saturating_add(below / 10) } else { below };
            let is = free < bound;
            state.store(is, Ordering::Relaxed);
            is != was
        };
        step(&self.full, reserve / 2);
        Ok(step(&self.low, reserve))
    }

    /// Size of the file system, and what is free.
    fn see(&self) -> std::io::Result<(u64, u64)> {
        let seen = rustix::fs::statvfs(&self.dir)?;
        let free = match &self.pretended {
            Some(free) => free.load(Ordering::Relaxed),
            None => seen.f_bavail.saturating_mul(seen.f_frsize),
        };
        Ok((seen.f_blocks.saturating_mul(seen.f_frsize), free))
    }

    /// Whether what is in memory, so many bytes, may go to the disk: as it is now, for one flush follows the other. Where it cannot
    /// be looked at, the flush finds out.
    pub fn has_room_to_flush(&self, bytes: u64) -> bool {
        let (floor, seen) = (self.room().floor(), self.see());
        seen.map_or(true, |(_, free)| free >= bytes.saturating_add(floor))
    }

    /// What was seen at the last look.
    pub fn room(&self) -> Room {
        let total = self.total.load(Ordering::Relaxed);
        Room {
            total,
            free: self.free.load(Ordering::Relaxed),
            reserve: self.wished.of(total),
            low: self.is_low(),
            full: self.is_full(),
        }
    }

    /// Less is free than the reserve: this node proposes nothing that fills it further.
    pub fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    /// Less is free than half of the reserve: this node takes no entries of other leaders either.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Refuses bytes, a checkpoint for example, that would fill the disk to its floor.
    pub fn check_room_for(&self, bytes: u64) -> Result<()> {
        let room = self.room();
        self.check_above(room.reserve / 2, bytes)
    }

    /// Refuses bytes that could as well come later, of a backup for example: where the disk is low, and where it would be
    /// by them.
    pub fn check_room_to_spare(&self, bytes: u64) -> Result<()> {
        let room = self.room();
        self.check_above(if room.low { u64::MAX } else { room.reserve }, bytes)
    }

    fn check_above(&self, floor: u64, bytes: u64) -> Result<()> {
        let room = self.room();
        if room.free.saturating_sub(floor) >= bytes || room.reserve == 0 {
            return Ok(());
        }
        let message = format!("{bytes} bytes would come, {} of the disk are free", room.free);
        Err(Error::new(Reason::DiskLow, message).hint("make room on the disk"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn low_and_fine_do_not_flicker() {
        let dir = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(1_000));
        let disk = Disk::new(dir.path(), DiskReserve::Bytes(1_000), Some(free.clone())).unwrap();
        let at = |bytes: u64| {
            free.store(bytes, Ordering::Relaxed);
            let changed = disk.look().unwrap();
            (disk.is_low(), disk.is_full(), changed)
        };
        assert_eq!(at(1_000), (false, false, false));
        assert_eq!(at(999), (true, false, true));
        assert_eq!(at(1_099), (true, false, false), "a tenth more than the reserve");
        assert_eq!(at(1_100), (false, false, true));
        assert_eq!(at(499), (true, true, true));
        assert_eq!(at(549), (true, true, false));
        assert_eq!(at(550), (true, false, false));
    }

    #[test]
    fn a_reserve_of_nothing_is_never_touched() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(dir.path(), DiskReserve::Bytes(0), Some(Arc::default())).unwrap();
        assert!(!disk.is_low() && !disk.is_full());
        disk.check_room_for(u64::MAX).unwrap();
    }

    #[test]
    fn the_real_disk_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(dir.path(), DiskReserve::Auto, None).unwrap();
        let room = disk.room();
        assert!(room.total > 0 && room.free <= room.total, "{room:?}");
    }

    #[test]
    fn what_would_fill_the_disk_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(1_500));
        let disk = Disk::new(dir.path(), DiskReserve::Bytes(1_000), Some(free)).unwrap();
        disk.check_room_for(1_000).unwrap();
        assert_eq!(disk.check_room_for(1_001).unwrap_err().reason(), Reason::DiskLow);
        disk.check_room_to_spare(500).unwrap();
        assert_eq!(disk.check_room_to_spare(501).unwrap_err().reason(), Reason::DiskLow);
    }

    #[test]
    fn a_flush_leaves_an_eighth_of_the_reserve_as_the_disk_is_now() {
        let dir = tempfile::tempdir().unwrap();
        let free = Arc::new(AtomicU64::new(1_500));
        let disk = Disk::new(dir.path(), DiskReserve::Bytes(1_000), Some(free.clone())).unwrap();
        assert!(disk.has_room_to_flush(1_375) && !disk.has_room_to_flush(1_376));
        free.store(130, Ordering::Relaxed);
        assert!(
            disk.has_room_to_flush(5) && !disk.has_room_to_flush(6),
            "without a look"
        );
    }
}
