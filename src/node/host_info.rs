//! What the machine gives the node: processor, memory, open files, disk.
//!
//! Values are of the whole process; in a devnet all nodes share one. Everything is read from
//! `/proc`, the file system and the process clock, each no more often than it costs, and is `None`
//! where the system does not tell. Reading touches the disk, so it belongs on a blocking thread.

use crate::telemetry::snapshot::HostInfo;
use rustix::time::{ClockId, clock_gettime};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the processor share and memory are read.
const FAST_US: u64 = 1_000_000;
/// How often open files are counted and free disk space is read.
const MEDIUM_US: u64 = 10_000_000;
/// How often the data directory is added up.
const SLOW_US: u64 = 60_000_000;
/// Most files of the data directory added up; sled keeps few, logs are rotated.
const FILES_MAX: usize = 10_000;

/// Reads [`HostInfo`] and remembers it between readings.
#[derive(Debug)]
pub struct HostProbe {
    data_dir: PathBuf,
    info: HostInfo,
    fast_us: Option<u64>,
    medium_us: Option<u64>,
    slow_us: Option<u64>,
    cpu: Option<(u64, Duration)>,
}

impl HostProbe {
    /// A probe for a node whose files are in `data_dir`.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> Self {
        Self { data_dir, info: HostInfo::default(), fast_us: None, medium_us: None, slow_us: None, cpu: None }
    }

    /// The newest values, read again where they are due at `now_us`. The clock and standstills
    /// are left to whoever knows the peers.
    pub fn read(&mut self, now_us: u64) -> HostInfo {
        if due(&mut self.fast_us, now_us, FAST_US) {
            self.info.cpu_percent = self.cpu_percent(now_us);
            self.info.rss_bytes = rss_bytes();
        }
        if due(&mut self.medium_us, now_us, MEDIUM_US) {
            self.info.open_files =
                std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64);
            self.info.disk_free_bytes = disk_free_bytes(&self.data_dir);
        }
        if due(&mut self.slow_us, now_us, SLOW_US) {
            self.info.data_bytes = data_bytes(&self.data_dir);
        }
        self.info.clone()
    }

    fn cpu_percent(&mut self, now_us: u64) -> Option<f32> {
        let used = process_cpu();
        let (before_us, before) = self.cpu.replace((now_us, used))?;
        let wall_us = now_us.checked_sub(before_us).filter(|wall_us| *wall_us > 0)?;
        let used_us = used.saturating_sub(before).as_micros();
        #[expect(clippy::cast_possible_truncation, reason = "a percentage needs no more digits")]
        let percent = (used_us as f64 * 100.0 / wall_us as f64) as f32;
        Some(percent)
    }
}

fn due(last_us: &mut Option<u64>, now_us: u64, every_us: u64) -> bool {
    let due = last_us.is_none_or(|last_us| now_us.saturating_sub(last_us) >= every_us);
    if due {
        *last_us = Some(now_us);
    }
    due
}

/// Processor time this process has used so far, all threads.
#[must_use]
pub fn process_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Memory of this process that is resident, in bytes.
#[must_use]
pub fn rss_bytes() -> Option<u64> {
    status_kib("VmRSS:")
}

/// Most memory of this process that was resident at once, in bytes.
#[must_use]
pub fn rss_peak_bytes() -> Option<u64> {
    status_kib("VmHWM:")
}

fn status_kib(field: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Bytes an unprivileged process may still write to the file system of `path`.
#[must_use]
pub fn disk_free_bytes(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

/// Bytes of the files under `directory`, links not followed; `None` when it cannot be read or holds
/// more files than it ever should.
fn data_bytes(directory: &Path) -> Option<u64> {
    let mut open = vec![directory.to_path_buf()];
    let (mut bytes, mut files) = (0u64, 0usize);
    while let Some(next) = open.pop() {
        // A file may vanish while we look: rotation, compaction. Only the root must be there.
        let entries = match std::fs::read_dir(&next) {
            Ok(entries) => entries,
            Err(_) if next != directory => continue,
            Err(_) => return None,
        };
        for entry in entries.flatten() {
            files += 1;
            if files > FILES_MAX {
                return None;
            }
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => open.push(entry.path()),
                Ok(metadata) => bytes = bytes.saturating_add(metadata.len()),
                Err(_) => {}
            }
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_share_of_a_busy_second_is_that_of_the_process_clock() {
        let mut probe = HostProbe::new(PathBuf::from("/"));
        assert_eq!(probe.cpu_percent(0), None, "one reading is no share");
        let before = process_cpu();
        let mut sum = 0u64;
        while process_cpu().saturating_sub(before) < Duration::from_millis(20) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let share = probe.cpu_percent(40_000).expect("two readings");
        assert!(share >= 50.0, "20 ms of work in 40 ms were shown as {share} %");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_probe_adds_up_the_data_directory_and_reads_it_again_only_when_due() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(directory.path().join("db")).expect("created");
        std::fs::write(directory.path().join("db/one"), [0; 1000]).expect("written");
        std::fs::write(directory.path().join("two"), [0; 234]).expect("written");
        let mut probe = HostProbe::new(directory.path().to_path_buf());
        let first = probe.read(0);
        assert_eq!(first.data_bytes, Some(1234));
        assert!(first.rss_bytes.is_some_and(|bytes| bytes > 100_000));
        assert!(first.open_files.is_some_and(|files| files >= 3));
        assert!(first.disk_free_bytes.is_some());
        std::fs::write(directory.path().join("three"), [0; 10]).expect("written");
        assert_eq!(probe.read(SLOW_US - 1).data_bytes, Some(1234));
        assert_eq!(probe.read(SLOW_US).data_bytes, Some(1244));
    }

    #[test]
    fn a_missing_data_directory_is_unknown_rather_than_empty() {
        let mut probe = HostProbe::new(PathBuf::from("/nonexistent/masternode"));
        let info = probe.read(0);
        assert_eq!((info.data_bytes, info.disk_free_bytes), (None, None));
    }
}
