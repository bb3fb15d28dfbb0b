//! Heartbeats and elections of all groups of a node, from one task.
//!
//! A timer per group would cost about five times as much (openraft's tick wakes the whole core of a
//! group); this loop only touches groups that are due.

use std::{collections::HashMap, sync::Arc, time::Duration};

use seriatim_runtime::{
    clock::{self, Instant},
    rng,
};
use seriatim_storage::LogKey;

use crate::{ConsensusOptions, Group, Role, registry::Groups};

const STEP: Duration = Duration::from_millis(25);

/// What the driver remembers of a group.
struct Plan {
    /// When its leader sends the next heartbeat.
    heartbeat: Instant,
    /// Silence after which this replica asks for votes; drawn anew after each attempt.
    patience: Duration,
    /// Elections since a leader was last known.
    attempts: u32,
}

pub(crate) async fn run(groups: Arc<Groups>, options: ConsensusOptions) {
    let mut plans: HashMap<LogKey, Plan> = HashMap::new();
    loop {
        clock::sleep(STEP).await;
        let all = groups.all();
        if plans.len() > 2 * all.len() + 16 {
            plans.retain(|key, _plan| {
                let open = groups.get(key.group);
                open.is_some_and(|group| group.key() == *key)
            });
        }
        for group in all {
            let plan = plans.entry(group.key()).or_insert_with(|| Plan {
                heartbeat: clock::now() + rng::duration_below(options.heartbeat_interval),
                // A group that was just opened has no leader to be patient with.
                patience: Duration::from_millis(100)
                    + rng::duration_below(options.election_timeout / 2),
                attempts: 0,
            });
            drive(&group, plan, &options).await;
        }
    }
}

/// How long a replica waits after an election before it asks again. Where elections fail again and
/// again, votes arrive too late, and more haste makes it worse.
fn patience(options: &ConsensusOptions, attempts: u32) -> Duration {
    let factor = if attempts < 2 { 1 } else { 2 };
    factor * (options.election_timeout + rng::duration_below(options.election_timeout / 2))
}

async fn drive(group: &Group, plan: &mut Plan, options: &ConsensusOptions) {
    let (role, failed) = {
        let state = group.state();
        let state = state.borrow();
        (state.role, state.failed.is_some())
    };
    if failed {
        return;
    }
    let now = clock::now();
    match role {
        Role::Leader => {
            group.heard_from_leader();
            if now >= plan.heartbeat {
                plan.heartbeat = now + options.heartbeat_interval;
                if let Err(fatal) = group.raft().trigger().heartbeat().await {
                    tracing::debug!(group = group.name(), %fatal, "cannot send a heartbeat");
                }
            }
        }
        Role::Follower | Role::Candidate => {
            let led = group.state().borrow().leader.is_some();
            if now.saturating_duration_since(group.heard()) >= plan.patience {
                if group.try_elect() {
                    tracing::debug!(
                        group = group.name(),
                        "no leader was heard of: asking for votes"
                    );
                    plan.patience = patience(options, plan.attempts);
                    plan.attempts += 1;
                }
            } else if led && (plan.attempts > 0 || plan.patience < options.election_timeout) {
                plan.attempts = 0;
                plan.patience = patience(options, 0);
            }
        }
        Role::Learner => {}
    }
}
