//! The machine that a run is on, and what its disk can do. Never here: stores. Invariant: a report names where its figures
//! come from.

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::report::Latencies;

const FSYNCS: usize = 300;
const BLOCK: usize = 4_096;

/// Processor, cores, memory, kernel.
pub(crate) fn describe() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = field(&read("/proc/cpuinfo"), "model name").unwrap_or_default();
    let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
    let kib: f64 = memory.trim_end_matches(" kB").parse().unwrap_or(0.0);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} cores ({model}), {:.0} GiB, Linux {}",
        kib / f64::from(1 << 20),
        kernel.trim()
    )
}

/// How this program was called, without the path of this machine.
pub(crate) fn command() -> String {
    let name = |path: String| {
        Path::new(&path)
            .file_name()
            .map_or_else(|| path.clone(), |name| name.to_string_lossy().into_owned())
    };
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(first) = words.first_mut() {
        *first = name(std::mem::take(first));
    }
    words.join(" ")
}

pub(crate) fn date() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%d").to_string()
}

/// Median and 99th percentile of a write of 4 KiB and its fsync.
pub(crate) fn fsync_ms(dir: &Path) -> Result<(f64, f64)> {
    let path = dir.join("fsync");
    let mut file = File::create(&path)?;
    let mut all = Latencies::new()?;
    for _ in 0..FSYNCS {
        let began = Instant::now();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&[7; BLOCK])?;
        file.sync_data()?;
        all.record(began.elapsed());
    }
    fs::remove_file(path)?;
    Ok((all.quantile_ms(0.5), all.quantile_ms(0.99)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_machine_says_what_it_is_and_an_fsync_takes_time() {
        assert!(describe().contains("cores") && !command().contains('/'));
        let dir = tempfile::tempdir().unwrap();
        let (p50, p99) = fsync_ms(dir.path()).unwrap();
        assert!(p50 > 0.0 && p99 >= p50 && fs::read_dir(dir.path()).unwrap().next().is_none());
    }
}
