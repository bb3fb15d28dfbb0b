//! Storing and reading offsets.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use seriatim_cluster::Cluster;
use seriatim_proto::{error::ErrorCode, internal::v1 as wire, v1};
use seriatim_runtime::{
    clock::{self, Instant},
    mutant::{self, Mutant},
};
use wire::group_command::Command;

use crate::{
    Groups,
    command::GroupCommand,
    coordinator::session::committed_offset,
    errors::{self, invalid},
    limits::{MAX_COMMIT_BYTES, MAX_COMMIT_OFFSETS, MAX_METADATA_BYTES},
    names::check_member,
    offsets,
    propose::propose,
    state::{Group, Tp},
    topics::Topics,
};

/// How long a topic that is not known yet may take to appear in this node's image.
const IMAGE: Duration = Duration::from_secs(1);

impl Groups {
    /// Stores offsets: answers when a majority of the group's replicas has them on disk.
    pub async fn commit(
        &self,
        request: v1::CommitOffsetsRequest,
        deadline: Instant,
    ) -> Result<(), v1::Error> {
        let started = clock::now();
        let stored = self.store(request, deadline).await;
        let metrics = &self.0.metrics;
        match &stored {
            Ok(()) => metrics.commits.increment(1),
            Err(_) => metrics.commit_errors.increment(1),
        }
        metrics
            .commit_seconds
            .record(started.elapsed().as_secs_f64());
        stored
    }

    async fn store(
        &self,
        request: v1::CommitOffsetsRequest,
        deadline: Instant,
    ) -> Result<(), v1::Error> {
        check(&request)?;
        let (shard, term, cluster) = self.coordinated(&request.group)?;
        let validate_only = request.validate_only;
        let group = request.group.clone();
        let store = self.with_origins(request, &cluster).await?;
        if validate_only {
            barrier((shard.number, &shard.group), &cluster, deadline).await?;
            let current = shard.machine.group(&group).unwrap_or_default();
            let checked = offsets::check(&current, store, shard.machine.is_full());
            return checked
                .map(drop)
                .map_err(|refusal| refusal.to_error(&group));
        }
        let command = GroupCommand {
            group: group.clone(),
            now_ms: clock::wall_ms(),
            command: Command::StoreOffsets(store),
        };
        let proposed = propose(&shard.group, term, command.encode());
        match clock::timeout_at(deadline, proposed).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(errors::failed(&cluster, shard.number, &group, &failure)),
            Err(_late) => Err(v1::Error::new(
                ErrorCode::Timeout,
                "no majority of the group's replicas has stored the commit in time; it may be \
                 stored later, and may be repeated",
            )
            .maybe_applied()),
        }
    }

    /// The commit with which topic each of its names means now.
    async fn with_origins(
        &self,
        request: v1::CommitOffsetsRequest,
        cluster: &Cluster,
    ) -> Result<wire::StoreOffsets, v1::Error> {
        // Looked at before the image is: that of a ready node is complete.
        let ready = cluster.is_ready();
        let mut topics = self.0.topics(&cluster.image());
        let missing = |topics: &Topics| {
            let mut offsets = request.offsets.iter();
            offsets.find_map(|commit| {
                let tp = Tp::new(commit.topic.as_str(), commit.partition);
                let there = topics.has(&tp);
                // What is to be forgotten may be of a topic that is gone.
                (there != Some(true) && commit.offset >= 0).then_some((tp, there))
            })
        };
        if missing(&topics).is_some() {
            let mut image = cluster.watch_image();
            let there = image.wait_for(|image| missing(&self.0.topics(image)).is_none());
            drop(clock::timeout(IMAGE, there).await);
            topics = self.0.topics(&cluster.image());
        }
        if let Some((tp, there)) = missing(&topics) {
            return Err(match there {
                None if !ready => v1::Error::new(
                    ErrorCode::ReplicaUnavailable,
                    format!(
                        "this node has just started and may not have heard of topic '{}' yet; try \
                         again shortly",
                        tp.topic
                    ),
                ),
                None => v1::Error::new(
                    ErrorCode::UnknownTopic,
                    format!("there is no topic '{}'; create it first", tp.topic),
                ),
                Some(_) => v1::Error::new(
                    ErrorCode::UnknownPartition,
                    format!("topic '{}' has no partition {}", tp.topic, tp.partition),
                ),
            });
        }
        let change = |commit: v1::OffsetCommit| wire::OffsetChange {
            origin: topics.origin(&commit.topic).unwrap_or_default(),
            topic: commit.topic,
            partition: commit.partition,
            offset: commit.offset,
            metadata: commit.metadata,
            allow_back: commit.allow_back,
        };
        Ok(wire::StoreOffsets {
            member_id: request.member_id,
            generation: request.generation,
            offsets: request.offsets.into_iter().map(change).collect(),
        })
    }

    /// Where a group is.
    pub async fn fetch_offsets(
        &self,
        request: v1::FetchOffsetsRequest,
        deadline: Instant,
    ) -> Result<Vec<v1::CommittedOffset>, v1::Error> {
        let asked: usize = request
            .partitions
            .iter()
            .map(|of| of.partitions.len())
            .sum();
        if asked > MAX_COMMIT_OFFSETS {
            return Err(invalid(format!(
                "ask for the offsets of at most {MAX_COMMIT_OFFSETS} partitions at once"
            )));
        }
        let (shard, _term, cluster) = self.coordinated(&request.group)?;
        barrier((shard.number, &shard.group), &cluster, deadline).await?;
        let group = shard.machine.group(&request.group).unwrap_or_default();
        let topics = self.0.topics(&cluster.image());
        if asked == 0 && request.partitions.is_empty() {
            return Ok(all_offsets(&group, &topics));
        }
        let asked = request.partitions.into_iter().flat_map(|of| {
            let topic: Arc<str> = of.topic.into();
            let tp = move |partition| Tp::new(Arc::clone(&topic), partition);
            of.partitions.into_iter().map(tp)
        });
        let answer = |tp: Tp| {
            let committed = group.offsets.get(&tp);
            committed_offset(&tp, committed.filter(|at| topics.counts(at)))
        };
        Ok(asked.map(answer).collect())
    }
}

/// Every offset of a group.
pub(crate) fn all_offsets(group: &Group, topics: &Topics) -> Vec<v1::CommittedOffset> {
    let current = group.offsets.iter().filter(|(_, at)| topics.counts(at));
    current
        .map(|(tp, at)| committed_offset(tp, Some(at)))
        .collect()
}

/// Makes sure that this node leads, and has applied everything that was decided before.
pub(crate) async fn barrier(
    (shard, group): (u32, &seriatim_consensus::Group),
    cluster: &Cluster,
    deadline: Instant,
) -> Result<(), v1::Error> {
    if mutant::on(Mutant::StaleCoordinatorServes) {
        return Ok(());
    }
    match clock::timeout_at(deadline, group.read_barrier()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            tracing::debug!(shard, %error, "cannot confirm that this node leads");
            Err(errors::not_coordinator(cluster, shard))
        }
        Err(_late) => Err(errors::no_leader(cluster, shard)),
    }
}

fn check(request: &v1::CommitOffsetsRequest) -> Result<(), v1::Error> {
    if !request.member_id.is_empty() {
        check_member(&request.member_id)?;
    }
    let count = request.offsets.len();
    if count == 0 || count > MAX_COMMIT_OFFSETS {
        return Err(invalid(format!(
            "a commit has 1 to {MAX_COMMIT_OFFSETS} offsets, not {count}"
        )));
    }
    if request.encoded_len() > MAX_COMMIT_BYTES {
        return Err(invalid(format!(
            "a commit has at most {MAX_COMMIT_BYTES} bytes; split it"
        )));
    }
    for commit in &request.offsets {
        if commit.metadata.len() > MAX_METADATA_BYTES {
            return Err(invalid(format!(
                "the text of an offset has at most {MAX_METADATA_BYTES} bytes, not {}",
                commit.metadata.len()
            )));
        }
        let least = if request.member_id.is_empty() { -1 } else { 0 };
        if commit.offset < least {
            return Err(invalid(format!(
                "offset {} of partition {}-{} is none: 0 or more, or -1 from outside of the group \
                 to forget it",
                commit.offset, commit.topic, commit.partition
            )));
        }
    }
    Ok(())
}
