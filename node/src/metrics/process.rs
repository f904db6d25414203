//! What the operating system says of this process: memory, open files, CPU time. Never: a failure; what is not known
//! reads 0.

use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// What this process takes.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// CPU time since it began, milliseconds.
    pub cpu_ms: u64,
    /// Resident memory.
    pub memory_bytes: u64,
    /// Open files.
    pub open_files: u64,
    /// Most files that may be open.
    pub open_files_max: u64,
}

impl Process {
    /// As it is now.
    pub fn read() -> Process {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let files = fs::read_dir("/proc/self/fd");
        Process {
            cpu_ms: u64::try_from(cpu.tv_sec * 1_000 + cpu.tv_nsec / 1_000_000).unwrap_or(0),
            memory_bytes: resident_bytes().unwrap_or(0),
            // Reading the folder opens one more.
            open_files: files.map_or(0, |files| files.count().saturating_sub(1) as u64),
            open_files_max: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        }
    }
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
