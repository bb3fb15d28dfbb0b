//! What a link is like while it is neither whole nor cut.

use std::time::Duration;

use rand::{RngExt as _, rngs::SmallRng};

/// How long the sender waits before it sends again what was lost, the first time; then twice as long, and
/// so on.
const RESEND: Duration = Duration::from_millis(200);

/// Most times that the same bytes are lost.
const LOST_MAX: u32 = 5;

/// What a link adds to its [`LinkOptions`](super::LinkOptions).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quality {
    /// What everything takes in addition.
    pub delay: Duration,
    /// Bytes per second of one connection, one after the other.
    pub bytes_per_s: Option<u64>,
    /// Packets that are lost, of a hundred. A connection loses nothing by it but time; an attempt to connect
    /// is made again.
    pub loss_percent: u8,
    /// Attempts to connect that arrive twice, of a hundred: the second one becomes a connection that
    /// only its listener believes in.
    pub ghost_percent: u8,
}

impl Quality {
    /// That of a link whose ends are like `self` and `other`.
    pub(super) fn and(self, other: Self) -> Self {
        let slower = self.bytes_per_s.into_iter().chain(other.bytes_per_s).min();
        Self {
            delay: self.delay + other.delay,
            bytes_per_s: slower,
            loss_percent: self.loss_percent.max(other.loss_percent),
            ghost_percent: self.ghost_percent.max(other.ghost_percent),
        }
    }

    /// What a message takes in addition.
    pub(super) fn adds(self, rng: &mut SmallRng) -> Duration {
        let (mut adds, mut resend) = (self.delay, RESEND);
        for _ in 0..LOST_MAX {
            if !hits(rng, self.loss_percent) {
                break;
            }
            adds += resend;
            resend *= 2;
        }
        adds
    }

    /// Whether an attempt to connect is lost.
    pub(super) fn loses(self, rng: &mut SmallRng) -> bool {
        hits(rng, self.loss_percent)
    }

    /// Whether an attempt to connect arrives twice.
    pub(super) fn repeats(self, rng: &mut SmallRng) -> bool {
        hits(rng, self.ghost_percent)
    }
}

/// Draws nothing where nothing can happen.
fn hits(rng: &mut SmallRng, percent: u8) -> bool {
    percent > 0 && rng.random_range(0..100) < percent
}
