//! What goes without anybody asking: groups that were empty for long, offsets of deleted topics.

use std::{collections::BTreeSet, time::Duration};

use seriatim_proto::internal::v1 as wire;
use seriatim_runtime::clock::{self, Instant};
use wire::group_command::Command;

use super::leading::{Leading, What};

/// Longest time between two looks at groups without members.
const SWEEP: Duration = Duration::from_secs(60);

/// Shortest one.
const SWEEP_SOONEST: Duration = Duration::from_millis(500);

/// Proposals of this kind that are under way at once.
const AT_ONCE: usize = 256;

impl Leading {
    /// Removes groups that were without members for the retention time.
    pub(super) fn sweep(&mut self, now: Instant) {
        let retention = self.inner.options.retention;
        let every = (retention / 4).clamp(SWEEP_SOONEST, SWEEP);
        if now < self.swept + every || self.under_way() >= AT_ONCE {
            return;
        }
        self.swept = now;
        let retention_ms = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let latest = clock::wall_ms().saturating_sub(retention_ms);
        let mut expired = Vec::new();
        self.machine.for_each(|id, group| {
            if group.members.is_empty() && group.touched_ms <= latest && expired.len() < AT_ONCE {
                expired.push((id.to_owned(), group.touched_ms));
            }
        });
        for (id, touched_ms) in expired {
            tracing::info!(group = id, "a group without members expires");
            let expire = wire::ExpireGroup { touched_ms };
            self.propose(&id, Command::ExpireGroup(expire), What::Other);
        }
    }

    /// Removes offsets of topics that are not there any more.
    pub(super) fn forget_deleted_topics(&mut self) {
        let mut gone = Vec::new();
        let topics = &self.topics;
        self.machine.for_each(|id, group| {
            let origins: BTreeSet<u64> = group
                .offsets
                .values()
                .map(|committed| committed.origin)
                .filter(|origin| topics.is_gone(*origin))
                .collect();
            if !origins.is_empty() {
                gone.push((id.to_owned(), origins.into_iter().collect()));
            }
        });
        for (id, origins) in gone {
            let forget = wire::ForgetTopics { origins };
            self.propose(&id, Command::ForgetTopics(forget), What::Other);
        }
    }
}
