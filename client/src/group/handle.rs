//! What a member can be asked and told from anywhere.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use seriatim_proto::ids::{Offset, TopicPartition};
use tokio::{sync::oneshot, time::timeout};

use super::{
    part::{Part, Phase},
    shared::{Command, CommitOffset, Shared, owned},
    tracker::Tracker,
};
use crate::{consumer::Position, error::ClientError};

/// How long a commit is tried.
const COMMIT_DEADLINE: Duration = Duration::from_secs(30);

/// How far a member is in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLag {
    /// The partition.
    pub partition: TopicPartition,
    /// The next record that the application gets.
    pub position: Offset,
    /// The offset after the last record, as far as is known.
    pub end: Offset,
}

impl PartitionLag {
    /// Number of records that the application has not got.
    pub const fn lag(&self) -> i64 {
        let lag = self.end.0 - self.position.0;
        if lag > 0 { lag } else { 0 }
    }
}

/// Commits, seeks, pauses and asks on behalf of a [`GroupConsumer`](super::GroupConsumer): also from
/// other tasks and from [callbacks](super::GroupBuilder::on_rebalance). Cheap to clone.
#[derive(Debug, Clone)]
pub struct GroupHandle {
    pub(super) shared: Arc<Shared>,
}

impl GroupHandle {
    /// The group's id.
    pub fn group(&self) -> &str {
        &self.shared.group
    }

    /// The present member id; another one after each loss of the session.
    pub fn member_id(&self) -> String {
        self.shared.state.lock().member_id.clone()
    }

    /// The group's generation, as of the last assignment.
    pub fn generation(&self) -> u64 {
        self.shared.state.lock().generation
    }

    /// The generation in which the group gave a partition to this member, or to the process whose
    /// place it took under its instance id, while it is this member's: above that of every owner
    /// before, as [`GroupBatch::granted_generation`](super::GroupBatch::granted_generation) tells.
    pub fn granted_generation(&self, topic: &str, partition: i32) -> Option<u64> {
        let tp = TopicPartition::new(topic, partition);
        let mut state = self.shared.state.lock();
        owned(&mut state, &tp).ok().map(|part| part.granted)
    }

    /// The partitions that this member owns, without those that it is letting go of.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        let state = self.shared.state.lock();
        let mine = |part: &Part| {
            matches!(
                part.phase,
                Phase::Assigned | Phase::Announcing | Phase::Locating | Phase::Running
            )
        };
        let parts = state.parts.iter().filter(|(_, part)| mine(part));
        parts.map(|(tp, _)| tp.clone()).collect()
    }

    /// Commits everything that is processed: of each partition the contiguous part of what was
    /// handed on and dropped, also since the consumer was last asked for a batch. Returns when it is
    /// on a majority of the group's replicas.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] if that does not succeed within 30 s; the server's if it refuses.
    pub async fn commit(&self) -> Result<(), ClientError> {
        let _any = self.shared.state.lock().note_returned();
        self.send_commit(BTreeMap::new()).await
    }

    /// Commits certain offsets, each the next record to process of a partition that this member
    /// owns, and nothing else. Whoever uses this decides what is processed.
    ///
    /// # Errors
    /// [`ClientError::NotAssigned`]; [`ClientError::Invalid`] for an offset beyond what was handed
    /// on; `OFFSET_WENT_BACK` for one below the committed one, unless the consumer
    /// [sought](Self::seek) back before. Others as [`commit`](Self::commit).
    pub async fn commit_offsets(
        &self,
        offsets: BTreeMap<TopicPartition, CommitOffset>,
    ) -> Result<(), ClientError> {
        if offsets.is_empty() {
            return Ok(());
        }
        self.send_commit(offsets).await
    }

    async fn send_commit(
        &self,
        offsets: BTreeMap<TopicPartition, CommitOffset>,
    ) -> Result<(), ClientError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Commit { offsets, reply };
        let done = async {
            let sent = self.shared.commands.send(command).await;
            sent.map_err(|_gone| ClientError::Closed("consumer"))?;
            // The member ended with the commit in its hands.
            let unheard = |_gone| ClientError::Closed("consumer").or_applied_before();
            answer.await.map_err(unheard)?
        };
        let late = |_elapsed| ClientError::Timeout {
            what: "commit offsets",
            after: COMMIT_DEADLINE,
            maybe_applied: true,
            last: None,
        };
        timeout(COMMIT_DEADLINE, done).await.map_err(late)?
    }

    /// Hands on nothing more of a partition until it is [resumed](Self::resume). It stays this
    /// member's. A partition that is assigned anew is not paused.
    ///
    /// # Errors
    /// [`ClientError::NotAssigned`].
    pub fn pause(&self, topic: &str, partition: i32) -> Result<(), ClientError> {
        self.set_paused(topic, partition, true)
    }

    /// Goes on with a partition that was [paused](Self::pause).
    ///
    /// # Errors
    /// [`ClientError::NotAssigned`].
    pub fn resume(&self, topic: &str, partition: i32) -> Result<(), ClientError> {
        self.set_paused(topic, partition, false)
    }

    fn set_paused(&self, topic: &str, partition: i32, paused: bool) -> Result<(), ClientError> {
        let tp = TopicPartition::new(topic, partition);
        owned(&mut self.shared.state.lock(), &tp)?.paused = paused;
        self.shared.consumer.wake();
        Ok(())
    }

    /// Goes on at another place in a partition that this member owns. Nothing from before comes after
    /// this returns, and batches that the application still holds of it count no more. The next
    /// commit of the partition may go back.
    ///
    /// # Errors
    /// [`ClientError::NotAssigned`]; others if the place cannot be found within 30 s.
    pub async fn seek(
        &self,
        topic: &str,
        partition: i32,
        to: Position,
    ) -> Result<Offset, ClientError> {
        let tp = TopicPartition::new(topic, partition);
        let _owned = owned(&mut self.shared.state.lock(), &tp)?;
        let admin = self.shared.client.admin();
        let found = admin.list_offsets(&[(tp.clone(), to)]).await?;
        let offset = found.first().copied().unwrap_or_default();
        self.shared.seek(&tp, offset)?;
        Ok(offset)
    }

    /// The next record that the application gets of a partition; `None` while it is not this
    /// member's, or where to begin is still looked for.
    pub fn position(&self, topic: &str, partition: i32) -> Option<Offset> {
        let tp = TopicPartition::new(topic, partition);
        let state = self.shared.state.lock();
        let tracker = state.parts.get(&tp)?.tracker.as_ref();
        tracker.map(|tracker| Offset(tracker.position()))
    }

    /// How far this member is in each partition that it reads. The ends come with the records and,
    /// where none came yet, from the leaders.
    ///
    /// # Errors
    /// If a leader does not tell the end within 30 s.
    pub async fn lag(&self) -> Result<Vec<PartitionLag>, ClientError> {
        let known: Vec<_> = {
            let state = self.shared.state.lock();
            let of = |(tp, part): (&TopicPartition, &Part)| {
                let position = part.tracker.as_ref().map(Tracker::position)?;
                let end = part.reading.as_ref().and_then(|r| r.watermark.get());
                Some((tp.clone(), Offset(position), end))
            };
            state.parts.iter().filter_map(of).collect()
        };
        let unknown = known.iter().filter(|(_, _, end)| end.is_none());
        let ask: Vec<_> = unknown
            .map(|(tp, _, _)| (tp.clone(), Position::End))
            .collect();
        let mut found = self
            .shared
            .client
            .admin()
            .list_offsets(&ask)
            .await?
            .into_iter();
        let lags = known.into_iter().map(|(partition, position, end)| {
            let end = end.or_else(|| found.next()).unwrap_or(position);
            PartitionLag {
                partition,
                position,
                end,
            }
        });
        Ok(lags.collect())
    }
}
