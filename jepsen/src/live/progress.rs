//! What a run looks like while it goes on.

use std::{
    io::{IsTerminal as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use seriatim_runtime::clock::{self, Instant};

use super::nemesis::Nemesis;
use crate::history::{Action, Kind, Op};

/// How often a line is written over the one before.
const EVERY: Duration = Duration::from_millis(500);
/// How often a line is written where lines stay.
const EVERY_PLAIN: Duration = Duration::from_secs(10);

/// Counts entries while they are made.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters {
    sent: Arc<AtomicU64>,
    read: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl Counters {
    /// One more entry.
    pub(super) fn note(&self, op: &Op) {
        let one = |of: &AtomicU64, count: usize| {
            let _before = of.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
        };
        match (op.kind, &op.action) {
            (Kind::Ok, Action::Send(send)) => one(&self.sent, send.values.len()),
            (Kind::Ok, Action::Poll(poll)) => {
                one(
                    &self.read,
                    poll.reads.values().map(|read| read.records.len()).sum(),
                );
            }
            (Kind::Fail | Kind::Info, Action::Send(_)) => one(&self.failed, 1),
            _ => {}
        }
    }
}

/// Writes lines to standard error until it is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) counters: Counters,
    pub(super) nemesis: Nemesis,
    pub(super) began: Instant,
    pub(super) time: Duration,
}

impl Progress {
    /// Never returns.
    pub(super) async fn show(self) {
        let plain = !std::io::stderr().is_terminal();
        let every = if plain { EVERY_PLAIN } else { EVERY };
        let (mut last_sent, mut last_at) = (0, clock::now());
        loop {
            clock::sleep(every).await;
            let sent = self.counters.sent.load(Ordering::Relaxed);
            let took = last_at.elapsed().as_secs_f64().max(0.001);
            let rate = f64::from(u32::try_from(sent - last_sent).unwrap_or(u32::MAX)) / took;
            (last_sent, last_at) = (sent, clock::now());
            let open = self.nemesis.open();
            let line = format!(
                "{:>4}/{} s  {rate:>6.0} acks/s  {sent} acknowledged, {} read, {} failed  {}",
                self.began.elapsed().as_secs(),
                self.time.as_secs(),
                self.counters.read.load(Ordering::Relaxed),
                self.counters.failed.load(Ordering::Relaxed),
                if open.is_empty() {
                    "-".to_owned()
                } else {
                    open.join("; ")
                },
            );
            let mut stderr = std::io::stderr().lock();
            // Nobody may be reading.
            let _written = if plain {
                writeln!(stderr, "{line}")
            } else {
                write!(stderr, "\r\x1b[2K{line}").and_then(|()| stderr.flush())
            };
        }
    }
}
