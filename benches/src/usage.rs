//! Processor time and memory of a process, as the kernel tells them.

use std::{fs, time::Duration};

/// Processor time of a process and its threads, in user and kernel mode; `None` if it is not there.
pub(crate) fn cpu(process: &str) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    parse_cpu(&stat, rustix::param::clock_ticks_per_second())
}

/// The most memory that a process has had resident, in bytes.
pub(crate) fn peak_resident_bytes(process: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    parse_peak(&status)
}

fn parse_cpu(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    // The name, in parentheses, may contain anything; the state follows it as field 3.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(14 - 3);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let nanos = (user + system).checked_mul(1_000_000_000)?;
    Some(Duration::from_nanos(nanos.checked_div(ticks_per_second)?))
}

fn parse_peak(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_user_and_system() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 7 7 20 0 9 0 1000 1 2 3";
        assert_eq!(parse_cpu(stat, 100), Some(Duration::from_secs(2)));
        assert_eq!(parse_cpu("42 (short) S 1", 100), None);
        assert_eq!(parse_cpu("", 100), None);
    }

    #[test]
    fn peak_memory_is_in_bytes() {
        let status = "Name:\tx\nVmPeak:\t  900 kB\nVmHWM:\t     200 kB\nVmRSS:\t 100 kB\n";
        assert_eq!(parse_peak(status), Some(204_800));
        assert_eq!(parse_peak("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_can_be_seen() {
        assert!(cpu("self").is_some());
        assert!(peak_resident_bytes("self").unwrap() > 1 << 20);
        assert_eq!(cpu("0"), None);
    }
}
