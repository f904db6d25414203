//! What server processes use, from outside: CPU, memory, bytes written, as the kernel counts them. Never here: what they do
//! with it. Invariant: children count with their parent, living or gone, and what a killed process used is not forgotten.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::task::JoinHandle;

/// Ticks of a second in `/proc/PID/stat`, the same on every Linux that this runs on.
const TICKS: f64 = 100.0;
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// Used since the meter began.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    pub(crate) written_bytes: u64,
}

/// One look.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sample {
    pub(crate) second: f64,
    pub(crate) cpu_s: f64,
    pub(crate) memory_bytes: u64,
}

/// Looks at processes four times a second.
#[derive(Debug)]
pub(crate) struct Meter {
    book: Arc<Mutex<Book>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Book {
    began: Instant,
    /// The processes, and what each has used, children included.
    roots: BTreeMap<u32, Usage>,
    /// What those used that are followed no more.
    gone: Usage,
    peak_bytes: u64,
    samples: Vec<Sample>,
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Meter {
    pub(crate) fn new(roots: Vec<u32>) -> Meter {
        let book = Arc::new(Mutex::new(Book {
            began: Instant::now(),
            roots: fresh(roots),
            gone: Usage::default(),
            peak_bytes: 0,
            samples: Vec::new(),
        }));
        let shared = Arc::clone(&book);
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(SAMPLE_EVERY);
            loop {
                tick.tick().await;
                lock(&shared).look();
            }
        });
        Meter { book, task }
    }

    /// These processes from now on: the store may have been started again, or not.
    pub(crate) fn follow(&self, roots: Vec<u32>) {
        lock(&self.book).follow(roots);
    }

    /// Used so far.
    pub(crate) fn now(&self) -> Usage {
        let mut book = lock(&self.book);
        book.look();
        book.used()
    }

    /// The most memory since this was last asked.
    pub(crate) fn take_peak(&self) -> u64 {
        let mut book = lock(&self.book);
        book.look();
        std::mem::take(&mut book.peak_bytes)
    }

    /// All looks so far.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        lock(&self.book).samples.clone()
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fresh(roots: Vec<u32>) -> BTreeMap<u32, Usage> {
    roots.into_iter().map(|root| (root, Usage::default())).collect()
}

impl Book {
    fn follow(&mut self, roots: Vec<u32>) {
        let mut before = std::mem::replace(&mut self.roots, fresh(roots));
        for (root, used) in &mut self.roots {
            *used = before.remove(root).unwrap_or_default();
        }
        self.gone = before.into_values().fold(self.gone, Usage::plus);
    }

    fn used(&self) -> Usage {
        self.roots.values().copied().fold(self.gone, Usage::plus)
    }

    fn look(&mut self) {
        let mut all = Vec::new();
        let mut children = children();
        for (root, used) in &mut self.roots {
            let pids = descendants(&[*root], &mut children);
            let now = pids
                .iter()
                .map(|pid| usage_of(*pid))
                .fold(Usage::default(), Usage::plus);
            // A process that is gone reads as nothing; what it had used stays.
            if now.cpu_s >= used.cpu_s {
                *used = now;
            }
            all.extend(pids);
        }
        let memory_bytes = memory(&all);
        self.peak_bytes = self.peak_bytes.max(memory_bytes);
        self.samples.push(Sample {
            second: self.began.elapsed().as_secs_f64(),
            cpu_s: self.used().cpu_s,
            memory_bytes,
        });
    }
}

impl Usage {
    fn plus(self, other: Usage) -> Usage {
        Usage {
            cpu_s: self.cpu_s + other.cpu_s,
            written_bytes: self.written_bytes + other.written_bytes,
        }
    }

    pub(crate) fn minus(self, before: Usage) -> Usage {
        Usage {
            cpu_s: (self.cpu_s - before.cpu_s).max(0.0),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}

/// These processes and all their descendants.
pub(crate) fn tree(roots: &[u32]) -> Vec<u32> {
    descendants(roots, &mut children())
}

/// Children of every process.
fn children() -> BTreeMap<u32, Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_string_lossy().parse::<u32>();
        if let (Ok(pid), Some(stat)) = (pid.as_ref(), pid.as_ref().ok().and_then(|pid| stat(*pid))) {
            children.entry(stat.parent).or_default().push(*pid);
        }
    }
    children
}

/// These processes and all their descendants, who are taken out of `children`.
fn descendants(roots: &[u32], children: &mut BTreeMap<u32, Vec<u32>>) -> Vec<u32> {
    let mut all: Vec<u32> = roots.to_vec();
    let mut at = 0;
    while let Some(pid) = all.get(at).copied() {
        all.extend(children.remove(&pid).unwrap_or_default());
        at += 1;
    }
    all
}

struct Stat {
    parent: u32,
    ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Own time and that of children that were waited for; the name, in brackets, may hold anything.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        ticks: number(11)? + number(12)? + number(13)? + number(14)?,
    })
}

fn usage_of(pid: u32) -> Usage {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    Usage {
        cpu_s: stat(pid).map_or(0.0, |stat| stat.ticks as f64 / TICKS),
        written_bytes: field(&io, "write_bytes:").unwrap_or(0),
    }
}

/// Resident memory of one process; of several, which may share pages, each page once.
fn memory(all: &[u32]) -> u64 {
    let read = |pid: &u32, file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let kib = match all {
        [one] => field(&read(one, "status"), "VmRSS:").unwrap_or(0),
        several => several
            .iter()
            .filter_map(|pid| field(&read(pid, "smaps_rollup"), "Pss:"))
            .sum(),
    };
    kib * 1024
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes of all files under a folder.
pub(crate) fn folder_bytes(path: &Path) -> u64 {
    crate::ops::folder_bytes(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_the_name() {
        let line = "42 (a ) b) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 9 0 1 2 3";
        let stat = parse_stat(line).unwrap();
        assert_eq!((stat.parent, stat.ticks), (7, 124));
        assert!(parse_stat("42 (x").is_none());
    }

    #[test]
    fn whoever_is_followed_again_counts_once_and_whoever_is_gone_still_counts() {
        let used = |cpu_s| Usage {
            cpu_s,
            written_bytes: cpu_s as u64,
        };
        let mut book = Book {
            began: Instant::now(),
            roots: BTreeMap::from([(1, used(10.0)), (2, used(20.0))]),
            gone: Usage::default(),
            peak_bytes: 0,
            samples: Vec::new(),
        };
        book.follow(vec![1, 2]);
        assert_eq!(book.used(), used(30.0));
        book.follow(vec![2, 3]);
        assert_eq!(book.used(), used(30.0));
        assert_eq!(book.roots.get(&3), Some(&Usage::default()));
    }

    #[test]
    fn fields_are_found_by_name() {
        let io = "rchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n";
        assert_eq!(field(io, "write_bytes:"), Some(4096));
        assert_eq!(field("VmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
    }

    #[test]
    fn this_process_uses_memory_and_is_in_its_own_tree() {
        let me = std::process::id();
        assert!(tree(&[me]).contains(&me) && memory(&[me]) > 0 && memory(&[me, u32::MAX]) > 0);
    }
}
