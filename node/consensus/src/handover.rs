//! Handing leadership over to another member.
//!
//! openraft's leader stops to accept entries the moment it is told to hand over, sends no heartbeats
//! any more, and never takes that back: where the new leader does not come, the group has to wait for
//! an election. So nothing is begun that is not likely to succeed: the member must vote, answer, and
//! hold nearly all of the log. Entries on their way are committed by the new leader, which must have
//! them before it asks for votes.

use std::{sync::atomic::Ordering, time::Duration};

use seriatim_proto::ids::ReplicaId;
use seriatim_runtime::{clock, hit};

use crate::{ConsensusError, Group, GroupState, GroupStatus, Member, Role};

/// Most entries that the next leader may lack; it receives them before it asks for votes.
const LAG: u64 = 128;

impl GroupStatus {
    /// Whether a member could lead at once.
    pub fn can_lead(&self, member: &Member) -> bool {
        let matched = member.matched.unwrap_or_default();
        member.voter && member.answers && self.last_index.saturating_sub(matched) <= LAG
    }
}

impl Group {
    /// Hands leadership over to a member, and waits until this replica does not lead any more.
    /// Entries that are proposed meanwhile are refused without effect
    /// ([`until_handed_over`](Self::until_handed_over)).
    pub async fn hand_over(&self, to: ReplicaId) -> Result<(), ConsensusError> {
        let status = self.status();
        if status.state.role != Role::Leader {
            return Err(ConsensusError::NotHandedOver("this replica does not lead"));
        }
        let mut members = status.membership.iter();
        let fit = members.any(|member| member.replica == to && status.can_lead(member));
        if !fit || to == self.key().replica {
            return Err(ConsensusError::NotHandedOver(
                "the member does not vote, does not answer or has not caught up",
            ));
        }
        let term = status.state.term;
        let none =
            self.handing_over_in()
                .compare_exchange(0, term, Ordering::AcqRel, Ordering::Acquire);
        if none.is_err() {
            return Err(ConsensusError::NotHandedOver(
                "it is being handed over already",
            ));
        }
        // Also where the caller gives up meanwhile.
        let _over = Handing(self);
        self.hand_over_now(to, term).await
    }

    async fn hand_over_now(&self, to: ReplicaId, term: u64) -> Result<(), ConsensusError> {
        let trigger = self.raft().trigger();
        let sent = Box::pin(trigger.transfer_leader(to.0)).await;
        sent.map_err(|fatal| ConsensusError::Stopped(fatal.to_string()))?;
        let limit = Duration::from_millis(self.raft().config().election_timeout_max) * 2;
        let mut state = self.state();
        // Those who were refused are told who leads now, so that is waited for as well.
        let over = state.wait_for(|state| {
            state.failed.is_some() || (!leads(state, term) && state.leader.is_some())
        });
        match clock::timeout(limit, over).await {
            Ok(_over) => {
                hit!("consensus.handover.done");
                Ok(())
            }
            Err(_elapsed) => {
                hit!("consensus.handover.failed");
                Err(ConsensusError::NotHandedOver(
                    "the member did not take over; the others elect a leader",
                ))
            }
        }
    }

    /// For who was refused: waits, at most `limit`, while this replica is handing its leadership over
    /// or the group has no new leader yet.
    pub async fn until_handed_over(&self, limit: Duration) {
        let term = self.handing_over_in().load(Ordering::Acquire);
        if term == 0 {
            return;
        }
        let mut state = self.state();
        let led = state.wait_for(|state| {
            state.failed.is_some() || (!leads(state, term) && state.leader.is_some())
        });
        drop(clock::timeout(limit, led).await);
    }
}

/// A handover under way, until it is dropped.
struct Handing<'a>(&'a Group);

impl Drop for Handing<'_> {
    fn drop(&mut self) {
        self.0.handing_over_in().store(0, Ordering::Release);
    }
}

fn leads(state: &GroupState, term: u64) -> bool {
    state.role == Role::Leader && state.term == term && state.failed.is_none()
}
