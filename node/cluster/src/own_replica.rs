//! This node's own replica of the metadata group: opened, registered, replaced where it is damaged.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use seriatim_consensus::{ConsensusError, Group, GroupSpec};
use seriatim_proto::{
    ids::{GroupId, ReplicaId},
    internal::v1 as wire,
};
use seriatim_runtime::{clock, hit};
use seriatim_storage::{LogKey, LogOptions};
use wire::{meta_command::Command, meta_reply::Reply};

use crate::{
    cluster::{Inner, Phase, store_error},
    command::{FEATURE_LEVEL, Refusal},
    control,
    error::ClusterError,
    probe, store,
};

/// How long one registration is tried before the wait is logged.
const REGISTER: Duration = Duration::from_secs(5);

/// The metadata group, once this node runs its replica.
///
/// It gives out clones and no guards: a guard lives to the end of the expression that took it, and a
/// second one taken there waits for a writer that waits for the first.
#[derive(Debug, Default)]
pub(crate) struct OwnReplica(Mutex<Option<Group>>);

impl OwnReplica {
    pub(crate) fn get(&self) -> Option<Group> {
        self.0.lock().clone()
    }

    /// Puts this one in the place of the one that is returned.
    pub(crate) fn set(&self, group: Option<Group>) -> Option<Group> {
        std::mem::replace(&mut *self.0.lock(), group)
    }
}

/// Opens this node's replica of the metadata group. A damaged one is set aside and replaced by a
/// new one, which receives everything from the others.
pub(crate) async fn open(
    inner: &Arc<Inner>,
    replica: ReplicaId,
) -> Result<ReplicaId, ClusterError> {
    let mut replica = replica;
    loop {
        let key = LogKey {
            group: GroupId::METADATA,
            replica,
        };
        let spec = GroupSpec {
            key,
            log: LogOptions::default(),
            name: "metadata".to_owned(),
        };
        match inner.consensus.open(spec, inner.machine.clone()).await {
            Ok(group) => {
                let _ = inner.control.set(Some(group));
                return Ok(replica);
            }
            Err(ConsensusError::Damaged(damage)) => {
                let why = damage.to_string();
                tracing::error!(
                    why,
                    "the metadata log is damaged: rebuilding it from the others"
                );
                hit!("cluster.metadata.damaged");
                let fresh = replacement(inner, replica).await?;
                adopt(inner, key, fresh, &why).await?;
                replica = fresh;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Replaces a damaged replica, which is closed, by an empty one; tells its id.
pub(crate) async fn rebuild(
    inner: &Arc<Inner>,
    damaged: LogKey,
    why: &str,
) -> Result<ReplicaId, ClusterError> {
    tracing::error!(
        why,
        "the metadata log is damaged: rebuilding it from the others"
    );
    let fresh = replacement(inner, damaged.replica).await?;
    adopt(inner, damaged, fresh, why).await?;
    Ok(fresh)
}

/// Puts an empty replica in the place of one that must not run any more. The order makes it safe to
/// stop at any point: the old log goes last, and while it is there it is found damaged again.
async fn adopt(
    inner: &Inner,
    old: LogKey,
    fresh: ReplicaId,
    why: &str,
) -> Result<(), ClusterError> {
    inner.machine.reset().map_err(store_error)?;
    store::set_controller_replica(inner.storage.meta(), fresh)?;
    let kept = inner.storage.set_aside_log(old, why).await?;
    tracing::warn!(path = %kept.display(), "the damaged log is kept here");
    Ok(())
}

/// A new replica id of the metadata group in place of this node's old one.
async fn replacement(inner: &Arc<Inner>, old: ReplicaId) -> Result<ReplicaId, ClusterError> {
    loop {
        let _ = probe::seeds(inner).await;
        let replace = wire::ReplaceReplica {
            group_id: GroupId::METADATA.0,
            replica_id: old.0,
        };
        let deadline = clock::now() + REGISTER;
        match control::command(inner, Command::ReplaceReplica(replace), deadline).await {
            Ok(Reply::ReplicaId(replica)) => return Ok(ReplicaId(replica)),
            Ok(_) => return Err(control::unexpected()),
            // Replaced before, by an attempt whose answer was lost: registering tells the new one.
            Err(ClusterError::Refused(Refusal::UnknownReplica { .. })) => {
                if let Some(registered) = try_register(inner, ReplicaId(0)).await?
                    && registered.replica != old
                {
                    return Ok(registered.replica);
                }
            }
            Err(error) => tracing::warn!(%error, "waiting for a new metadata replica"),
        }
    }
}

/// What the cluster said to a node that registered.
pub(crate) struct Registered {
    pub(crate) replica: ReplicaId,
    /// Where that stands in the metadata log; 0 where the controller does not tell.
    index: u64,
}

/// Registers this node with its present addresses; `None` where no controller answered in time.
pub(crate) async fn try_register(
    inner: &Arc<Inner>,
    replica: ReplicaId,
) -> Result<Option<Registered>, ClusterError> {
    let options = &inner.options;
    let node = wire::NodeRecord {
        node_id: inner.me().0,
        incarnation: inner.incarnation.clone(),
        grpc_address: options.grpc_addr.clone(),
        replication_address: options.replication_addr.clone(),
        http_address: options.http_addr.clone(),
        rack: options.rack.clone(),
        feature_level: FEATURE_LEVEL,
        controller_replica: replica.0,
        voter: false,
        software_version: env!("CARGO_PKG_VERSION").to_owned(),
        leaving: false,
        data_lost_ms: u64::try_from(clock::wall_ms()).unwrap_or_default(),
    };
    let register = Command::RegisterNode(wire::RegisterNode { node: Some(node) });
    let decided = match control::decide(inner, register, clock::now() + REGISTER).await {
        Ok(decided) => decided,
        Err(ClusterError::NoController { .. }) => {
            tracing::info!("waiting for a controller: a majority of the first nodes must run");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    match decided.reply {
        Ok(Reply::ReplicaId(replica)) => Ok(Some(Registered {
            replica: ReplicaId(replica),
            index: decided.index,
        })),
        Ok(_) => Err(control::unexpected()),
        Err(Refusal::UnknownReplica { .. }) if replica.0 != 0 => Err(ClusterError::Configuration {
            what: format!(
                "node {} was decommissioned and removed from the cluster; empty its data_dir to \
                 let it join anew",
                inner.me()
            ),
        }),
        Err(refusal) => Err(refusal.into()),
    }
}

/// Registers until it succeeds; then this node is ready.
pub(crate) async fn register(inner: &Arc<Inner>, replica: ReplicaId) -> Result<(), ClusterError> {
    let registered = loop {
        if let Some(registered) = try_register(inner, replica).await? {
            break registered;
        }
    };
    let given = registered.replica;
    if given != replica {
        return Err(ClusterError::Configuration {
            what: format!(
                "the cluster gave this node metadata replica {given}, but its data_dir holds \
                 {replica}: data of an older time was put back; empty it to rebuild"
            ),
        });
    }
    tracing::info!(node = %inner.me(), "registered with the cluster");
    // A node whose image is of a time before would tell its clients that topics made since do not exist
    // (simulator seeds 9674 and 13892).
    let closed = |_closed| ClusterError::ShuttingDown;
    inner
        .machine
        .applied(registered.index)
        .await
        .map_err(closed)?;
    // All that a controller of an older version lets this node know.
    let mut image = inner.machine.watch();
    let known = image.wait_for(|image| {
        let me = image.node(inner.me());
        me.is_some_and(|me| me.incarnation == inner.incarnation)
    });
    let _known = known.await.map_err(closed)?;
    let _ = inner.phase.send_if_modified(|phase| {
        let starting = matches!(phase, Phase::Starting);
        if starting {
            *phase = Phase::Ready;
        }
        starting
    });
    Ok(())
}
