//! The few things taken from the process: tasks, the wall clock, randomness.

use std::{
    future::Future,
    time::{Duration, SystemTime},
};

use tokio::task::JoinHandle;

/// A task that ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Task(Option<JoinHandle<()>>);

impl Task {
    #[expect(
        clippy::disallowed_methods,
        reason = "the library has no simulated runtime"
    )]
    pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(tokio::spawn(future)))
    }
}

impl Task {
    /// Lets the task run to its own end.
    pub(crate) fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(running) = &self.0 {
            running.abort();
        }
    }
}

/// Milliseconds since the Unix epoch.
#[expect(
    clippy::disallowed_methods,
    reason = "the library has no simulated clock"
)]
pub(crate) fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// A random number below `n`; 0 if `n` is 0.
pub(crate) fn below(n: usize) -> usize {
    let mut rng: rand::rngs::SmallRng = rand::make_rng();
    if n == 0 {
        0
    } else {
        rand::RngExt::random_range(&mut rng, 0..n)
    }
}

/// A random UUID (version 4), as text.
pub(crate) fn uuid() -> String {
    let mut rng: rand::rngs::SmallRng = rand::make_rng();
    let bits: u128 = rand::RngExt::random(&mut rng);
    let bits = bits & !(0xf << 76) | (0x4 << 76);
    let bits = bits & !(0x3 << 62) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32];
    parts
        .map(|part| hex.get(part).unwrap_or_default().to_owned())
        .join("-")
}

/// Doubles from 20 ms to 200 ms with the number of attempts, and adds up to a quarter at random, so
/// that clients do not retry in step.
pub(crate) fn backoff(attempt: u32) -> Duration {
    let base = 20_u64 << attempt.min(4);
    let base = base.min(200);
    let jitter = below(usize::try_from(base / 4).unwrap_or(0) + 1);
    Duration::from_millis(base) + Duration::from_millis(u64::try_from(jitter).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_have_their_form() {
        let (a, b) = (uuid(), uuid());
        assert_ne!(a, b);
        let lengths: Vec<_> = a.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert!(
            a.as_bytes()[14] == b'4' && b"89ab".contains(&a.as_bytes()[19]),
            "{a}"
        );
    }
}
