//! What the kernel says of a process.

use std::{fs, time::Duration};

use anyhow::Context as _;

/// What Linux counts processor time in for user space, on every architecture that matters.
const TICKS_PER_S: u64 = 100;

/// Bytes in memory, at this moment.
///
/// # Errors
/// If there is no such process.
pub fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    status_kib(pid, "VmRSS:").map(|kib| kib * 1024)
}

/// Most bytes that were ever in memory.
///
/// # Errors
/// If there is no such process.
pub fn peak_resident_bytes(pid: u32) -> anyhow::Result<u64> {
    status_kib(pid, "VmHWM:").map(|kib| kib * 1024)
}

fn status_kib(pid: u32, field: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number
        .and_then(|text| text.parse().ok())
        .with_context(|| format!("/proc/{pid}/status has no {field}"))
}

/// Time on the processor, in user and kernel mode, of all threads.
///
/// # Errors
/// If there is no such process.
pub fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses, which may contain anything.
    let (_, fields) = stat.rsplit_once(')').context("/proc stat without a name")?;
    let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let (Some(Ok(user)), Some(Ok(system))) = (ticks.next(), ticks.next()) else {
        anyhow::bail!("/proc/{pid}/stat has no times");
    };
    Ok(Duration::from_millis((user + system) * 1000 / TICKS_PER_S))
}
