//! The coordinator of a shard: runs beside the shard's replica on every node, and works on the one
//! that leads.
//!
//! | module | what it is |
//! |---|---|
//! | `link` | a member's stream |
//! | `session` | a member on the coordinator: when it was heard, what it was told |
//! | `plan` | the command for members that come, go and change; pure |
//! | `leading`, `members`, `upkeep` | the coordinator's work while it leads |

mod leading;
pub(crate) mod link;
mod members;
mod plan;
pub(crate) mod session;
mod upkeep;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use seriatim_cluster::Cluster;
use seriatim_consensus::{Group, GroupState, Role};
use seriatim_proto::v1;
use seriatim_runtime::clock;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::{leading::Leading, link::Link};
use crate::{errors, groups::Inner, machine::ShardMachine, state::Tp};

/// Events that wait for the coordinator; more wait in the members' connections.
pub(crate) const EVENTS: usize = 256;

/// How long a new leader tries to make sure that it leads, before those who wait are told that it
/// is not ready.
const READY: Duration = Duration::from_secs(2);

/// Pause between two such tries.
const AGAIN: Duration = Duration::from_millis(50);

/// What members and others want of the coordinator.
#[derive(Debug)]
pub(crate) enum Event {
    /// A member joins, comes back or changes its subscription.
    Join {
        join: v1::JoinGroup,
        link: Arc<Link>,
    },
    Released {
        link: Arc<Link>,
        partitions: Vec<Tp>,
        /// Of the assignment that told the member to; 0 where it does not say.
        generation: u64,
    },
    Leave {
        link: Arc<Link>,
    },
    /// How long the members of a group have been silent.
    Silences {
        group: String,
        reply: oneshot::Sender<BTreeMap<String, Duration>>,
    },
}

impl Event {
    fn refuse(self, error: v1::Error) {
        match self {
            Self::Join { link, .. } | Self::Released { link, .. } | Self::Leave { link } => {
                link.end(Some(error));
            }
            // Who asked sees that nobody answers.
            Self::Silences { .. } => {}
        }
    }
}

/// The coordinator of one shard on this node.
pub(crate) struct Coordinator {
    pub(crate) shard: u32,
    pub(crate) group: Group,
    pub(crate) machine: Arc<ShardMachine>,
    pub(crate) events: mpsc::Receiver<Event>,
    /// The term in which this node leads and serves.
    pub(crate) serving: watch::Sender<Option<u64>>,
    pub(crate) inner: Arc<Inner>,
    pub(crate) cancel: CancellationToken,
}

impl Coordinator {
    /// Runs until cancelled.
    pub(crate) async fn run(mut self) {
        let cancel = self.cancel.clone();
        let Some(Some(cluster)) = cancel.run_until_cancelled(self.inner.cluster()).await else {
            return;
        };
        while let Some(term) = self.until_leading(&cluster).await {
            self.lead(term, &cluster).await;
        }
        self.events.close();
        while let Some(event) = self.events.recv().await {
            event.refuse(errors::not_coordinator(&cluster, self.shard));
        }
    }

    /// Waits until this node leads and has applied everything that was decided before; the term.
    /// `None` where the replica is closed.
    async fn until_leading(&mut self, cluster: &Cluster) -> Option<u64> {
        let mut state = self.group.state();
        loop {
            let now = state.borrow_and_update().clone();
            if let Some(term) = led(&now) {
                match self.confirm(term, cluster).await? {
                    true => return Some(term),
                    false => continue,
                }
            }
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => return None,
                changed = state.changed() => if changed.is_err() {
                    // The group stopped for good: whoever asks is sent elsewhere.
                    state = self.group.state();
                    let event = self.next_event().await?;
                    event.refuse(errors::not_coordinator(cluster, self.shard));
                },
                event = self.events.recv() => {
                    event?.refuse(errors::not_coordinator(cluster, self.shard));
                }
            }
        }
    }

    async fn next_event(&mut self) -> Option<Event> {
        let event = self.cancel.run_until_cancelled(self.events.recv()).await;
        event.flatten()
    }

    /// Whether a majority confirms that this node leads.
    async fn confirm(&mut self, term: u64, cluster: &Cluster) -> Option<bool> {
        let barrier = clock::timeout(READY, self.group.read_barrier());
        let confirmed = self.cancel.run_until_cancelled(barrier).await?;
        let still = led(&self.group.state().borrow()) == Some(term);
        if matches!(confirmed, Ok(Ok(()))) && still {
            return Some(true);
        }
        if confirmed.is_err() {
            while let Ok(event) = self.events.try_recv() {
                event.refuse(errors::no_leader(cluster, self.shard));
            }
        }
        self.cancel.run_until_cancelled(clock::sleep(AGAIN)).await?;
        Some(false)
    }

    /// Coordinates until this node does not lead in that term any more.
    async fn lead(&mut self, term: u64, cluster: &Cluster) {
        tracing::debug!(shard = self.shard, term, "coordinating");
        self.machine.follow(true);
        let mut leading = Leading::new(self, term, cluster);
        let _old = self.serving.send_replace(Some(term));
        let mut state = self.group.state();
        let mut image = cluster.watch_image();
        loop {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => break,
                changed = state.changed() => {
                    if changed.is_err() || led(&state.borrow_and_update()) != Some(term) {
                        break;
                    }
                }
                () = self.machine.changes() => leading.tell_changed(),
                Some(event) = self.events.recv() => leading.event(event),
                changed = image.changed() => {
                    if changed.is_ok() {
                        let now = Arc::clone(&image.borrow_and_update());
                        leading.follow_image(&now);
                    }
                }
                next = leading.next() => leading.step(next),
            }
        }
        let _old = self.serving.send_replace(None);
        self.machine.follow(false);
        leading.end(&errors::not_coordinator(cluster, self.shard));
        tracing::debug!(shard = self.shard, term, "no longer coordinating");
    }
}

/// The term in which this node leads.
pub(crate) fn led(state: &GroupState) -> Option<u64> {
    (state.role == Role::Leader && state.failed.is_none()).then_some(state.term)
}
