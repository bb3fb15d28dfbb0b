//! Founding a cluster: the first seed, once all seeds answer and none belongs to one.

use std::{collections::BTreeMap, sync::Arc};

use seriatim_consensus::Group;
use seriatim_proto::{
    ids::{NodeId, ReplicaId},
    internal::v1 as wire,
};
use seriatim_runtime::clock;

use crate::{
    bootstrap::{self, Progress, ROUND},
    cluster::Inner,
    error::ClusterError,
    own_replica,
    probe::{self, Probed},
    store,
};

/// Whether this node is the one to found the cluster: the first seed, once every other answered and
/// none belongs to a cluster.
pub(crate) fn may_found(inner: &Inner, seeds: &[Probed]) -> bool {
    inner.options.seeds.first() == Some(&inner.options.replication_addr)
        && inner.founding.cluster_id().is_empty()
        && seeds.iter().all(|seed| {
            seed.answer
                .as_ref()
                .is_ok_and(|reply| reply.cluster_id.is_empty())
        })
}

pub(crate) async fn found(inner: &Arc<Inner>) -> Result<ReplicaId, ClusterError> {
    let cluster_id = crate::new_id();
    tracing::info!(cluster = cluster_id, "founding a cluster");
    bootstrap::belong(inner, &cluster_id)?;
    store::set_controller_replica(inner.storage.meta(), ReplicaId(1))?;
    let replica = own_replica::open(inner, ReplicaId(1)).await?;
    let group = inner.control.get().ok_or(ClusterError::ShuttingDown)?;
    finish_founding(inner, &group, &cluster_id).await?;
    Ok(replica)
}

/// Waits until every founder runs its replica, then initializes the metadata group.
pub(crate) async fn finish_founding(
    inner: &Arc<Inner>,
    group: &Group,
    cluster_id: &str,
) -> Result<(), ClusterError> {
    let mut progress = Progress::default();
    loop {
        let seeds = probe::seeds(inner).await;
        bootstrap::refuse_foreign(inner, cluster_id, &seeds)?;
        if let Some(founders) = founders(inner, &seeds)? {
            inner.founding.set_founders(founders.clone());
            let waiting = seeds.iter().take(founders.len().saturating_sub(1));
            let running = waiting
                .filter_map(|seed| seed.answer.as_ref().ok())
                .all(|reply| reply.running && reply.cluster_id == cluster_id);
            if running {
                let members = founders
                    .iter()
                    .map(|founder| {
                        (
                            ReplicaId(founder.controller_replica),
                            NodeId(founder.node_id),
                        )
                    })
                    .collect::<BTreeMap<_, _>>();
                tracing::info!(
                    ?members,
                    "every founder runs: initializing the metadata group"
                );
                group.initialize(members).await?;
                return Ok(());
            }
        }
        progress.report(&seeds);
        clock::sleep(ROUND / 5).await;
    }
}

/// The founders with their replica ids, in the order of the seeds; `None` until all answered.
fn founders(
    inner: &Inner,
    seeds: &[Probed],
) -> Result<Option<Vec<wire::NodeRecord>>, ClusterError> {
    let mut replies = vec![probe::own(inner)];
    for seed in seeds {
        let Ok(reply) = &seed.answer else {
            return Ok(None);
        };
        if let Some(other) = replies.iter().find(|other| other.node_id == reply.node_id) {
            return Err(ClusterError::DuplicateNodeId {
                node: NodeId(reply.node_id),
                first: other.replication_address.clone(),
                second: reply.replication_address.clone(),
            });
        }
        replies.push(reply.clone());
    }
    let voters = match replies.len() {
        count @ 0..=2 => count,
        3 | 4 => 3,
        _ => 5,
    };
    let records = (1..)
        .zip(replies)
        .take(voters)
        .map(|(replica, reply)| wire::NodeRecord {
            node_id: reply.node_id,
            incarnation: reply.incarnation,
            replication_address: reply.replication_address,
            controller_replica: replica,
            voter: true,
            ..wire::NodeRecord::default()
        });
    Ok(Some(records.collect()))
}
