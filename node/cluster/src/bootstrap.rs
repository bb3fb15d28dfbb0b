//! How a node comes to run its replica of the metadata group.
//!
//! ```text
//! identity file names a cluster? -- yes --> own replica known? -- yes --> open it (RESTART)
//!        | no                                     | no
//!        v                                        v
//!   ask all seeds, until                     ask the controller: register (JOIN)
//!     one names a cluster ------------------> founder with my incarnation? open as that (FOUND)
//!     none does, all answered,                otherwise JOIN
//!       and I am the first: FOUND
//! ```
//!
//! FOUND, at the first seed: choose the cluster id, write it to the identity file, tell it with the
//! founders' replica ids to whoever asks, open replica 1, wait until every founder runs its
//! replica, initialize the group. A first seed that stops half way goes on where it was.
//!
//! A node is recognised by its *incarnation*, made with the data folder. The same node id with
//! another incarnation has lost its data: the controller gives it new replica ids everywhere
//! ([`crate::apply`]), because the votes behind the old ones are gone.

use std::{sync::Arc, time::Duration};

use seriatim_proto::{ids::ReplicaId, internal::v1 as wire};
use seriatim_runtime::{clock, hit};
use seriatim_storage::Identity;
use tokio::time::Instant;

use crate::{
    cluster::Inner,
    error::ClusterError,
    founding, membership, own_replica,
    probe::{self, Probed},
    store,
};

/// Pause between two rounds of asking the seeds.
pub(crate) const ROUND: Duration = Duration::from_millis(50);

/// How long a restarting node waits for its seeds before it goes on without them.
const FIRST_CHECK: Duration = Duration::from_millis(300);

/// Starts to find, found or join the cluster.
pub(crate) fn start(inner: &Arc<Inner>) {
    let task = Arc::clone(inner);
    inner.spawn("bootstrap", async move {
        if let Err(error) = run(&task).await {
            task.fail(error);
        }
    });
}

async fn run(inner: &Arc<Inner>) -> Result<(), ClusterError> {
    let identity = inner.storage.identity().read()?;
    if let Some(identity) = &identity
        && identity.node_id != inner.me()
    {
        return Err(ClusterError::Configuration {
            what: format!(
                "data_dir belongs to node {}, but node_id is {}; correct one of them",
                identity.node_id,
                inner.me()
            ),
        });
    }
    let known = identity.and_then(|identity| identity.cluster_id);
    let replica = match known {
        Some(cluster_id) => restart(inner, &cluster_id).await?,
        None => find_cluster(inner).await?,
    };
    membership::start_controller(inner);
    own_replica::register(inner, replica).await
}

/// A node that belonged to a cluster when it stopped.
async fn restart(inner: &Arc<Inner>, cluster_id: &str) -> Result<ReplicaId, ClusterError> {
    inner.founding.set_cluster_id(cluster_id);
    tracing::info!(cluster = cluster_id, "this node belongs to a cluster");
    check_seeds(inner, cluster_id).await?;
    let Some(replica) = store::controller_replica(inner.storage.meta())? else {
        return find_cluster(inner).await;
    };
    let replica = own_replica::open(inner, replica).await?;
    let first = inner.options.seeds.first() == Some(&inner.options.replication_addr);
    let group = inner.control.get();
    if let Some(group) = group
        && first
        && replica == ReplicaId(1)
        && !group.is_initialized().await?
    {
        hit!("cluster.founding.resumed");
        tracing::info!("the cluster was not yet founded when this node stopped: going on");
        founding::finish_founding(inner, &group, cluster_id).await?;
    }
    Ok(replica)
}

/// Refuses to run beside seeds of another cluster: if more than half of the others are of one. Seeds
/// that do not answer at once are asked on in the background.
async fn check_seeds(inner: &Arc<Inner>, cluster_id: &str) -> Result<(), ClusterError> {
    if let Ok(seeds) = clock::timeout(FIRST_CHECK, probe::seeds(inner)).await {
        refuse_foreign(inner, cluster_id, &seeds)?;
        if seeds.iter().all(|seed| seed.answer.is_ok()) {
            return Ok(());
        }
    }
    let (task, cluster_id) = (Arc::clone(inner), cluster_id.to_owned());
    inner.spawn("check-seeds", async move {
        loop {
            clock::sleep(Duration::from_millis(500)).await;
            let seeds = probe::seeds(&task).await;
            if let Err(error) = refuse_foreign(&task, &cluster_id, &seeds) {
                return task.fail(error);
            }
            if seeds.iter().all(|seed| seed.answer.is_ok()) {
                return;
            }
        }
    });
    Ok(())
}

pub(crate) fn refuse_foreign(
    inner: &Inner,
    ours: &str,
    seeds: &[Probed],
) -> Result<(), ClusterError> {
    let foreign: Vec<(&str, &str)> = seeds
        .iter()
        .filter_map(|seed| Some((seed.address.as_str(), seed.answer.as_ref().ok()?)))
        .map(|(address, reply)| (address, reply.cluster_id.as_str()))
        .filter(|(_, theirs)| !theirs.is_empty() && *theirs != ours)
        .collect();
    let Some((peer, theirs)) = foreign.first() else {
        return Ok(());
    };
    tracing::warn!(peer, theirs, ours, "a seed belongs to another cluster");
    if foreign.len() * 2 > probe::others(inner).len() {
        return Err(ClusterError::WrongCluster {
            ours: ours.to_owned(),
            theirs: (*theirs).to_owned(),
            peer: (*peer).to_owned(),
        });
    }
    Ok(())
}

/// Asks the seeds until it is clear which cluster this node belongs to and as what.
async fn find_cluster(inner: &Arc<Inner>) -> Result<ReplicaId, ClusterError> {
    let mut progress = Progress::default();
    loop {
        let seeds = probe::seeds(inner).await;
        if let Some(reply) = the_cluster(inner, &seeds)? {
            let me = reply
                .founders
                .iter()
                .find(|founder| founder.incarnation == inner.incarnation);
            if let Some(me) = me {
                let replica = ReplicaId(me.controller_replica);
                belong(inner, &reply.cluster_id)?;
                store::set_controller_replica(inner.storage.meta(), replica)?;
                return own_replica::open(inner, replica).await;
            }
            if !reply.nodes.is_empty() {
                return join(inner, &reply.cluster_id).await;
            }
        } else if founding::may_found(inner, &seeds) {
            return founding::found(inner).await;
        }
        progress.report(&seeds);
        clock::sleep(ROUND).await;
    }
}

/// The answer of a seed that belongs to a cluster; preferably one that knows its nodes.
fn the_cluster<'a>(
    inner: &Inner,
    seeds: &'a [Probed],
) -> Result<Option<&'a wire::ProbeReply>, ClusterError> {
    let ours = inner.founding.cluster_id();
    let mut found: Option<&wire::ProbeReply> = None;
    for seed in seeds {
        let Some(reply) = seed
            .answer
            .as_ref()
            .ok()
            .filter(|reply| !reply.cluster_id.is_empty())
        else {
            continue;
        };
        if !ours.is_empty() && ours != reply.cluster_id {
            return Err(ClusterError::WrongCluster {
                ours,
                theirs: reply.cluster_id.clone(),
                peer: seed.address.clone(),
            });
        }
        match found {
            Some(other) if other.cluster_id != reply.cluster_id => {
                return Err(ClusterError::SeedsDisagree {
                    first: other.cluster_id.clone(),
                    second: reply.cluster_id.clone(),
                });
            }
            Some(other) if !(other.founders.is_empty() && other.nodes.is_empty()) => {}
            _ => found = Some(reply),
        }
    }
    Ok(found)
}

/// Registers with a cluster that exists, then opens the replica that it gives this node.
async fn join(inner: &Arc<Inner>, cluster_id: &str) -> Result<ReplicaId, ClusterError> {
    hit!("cluster.joined");
    tracing::info!(cluster = cluster_id, "joining a cluster");
    let replica = loop {
        if let Some(registered) = own_replica::try_register(inner, ReplicaId(0)).await? {
            break registered.replica;
        }
        let _ = probe::seeds(inner).await;
    };
    belong(inner, cluster_id)?;
    store::set_controller_replica(inner.storage.meta(), replica)?;
    own_replica::open(inner, replica).await
}

/// Writes the cluster id to the identity file; durable on return.
pub(crate) fn belong(inner: &Inner, cluster_id: &str) -> Result<(), ClusterError> {
    inner.storage.identity().write(&Identity {
        node_id: inner.me(),
        cluster_id: Some(cluster_id.to_owned()),
    })?;
    inner.founding.set_cluster_id(cluster_id);
    Ok(())
}

/// Says now and then whom this node is waiting for.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    next: Option<Instant>,
}

impl Progress {
    pub(crate) fn report(&mut self, seeds: &[Probed]) {
        let now = clock::now();
        // Nothing to say during the first second: that is a normal start.
        let next = *self.next.get_or_insert(now + Duration::from_secs(1));
        if now < next {
            return;
        }
        self.next = Some(now + Duration::from_secs(5));
        let silent: Vec<String> = seeds
            .iter()
            .filter_map(|seed| {
                let why = seed.answer.as_ref().err()?;
                Some(format!("{} ({why})", seed.address))
            })
            .collect();
        if silent.is_empty() {
            let first = seeds.first().map_or("none", |seed| seed.address.as_str());
            tracing::info!(first, "waiting for the first seed to found the cluster");
        } else {
            tracing::info!("waiting for seeds: {}", silent.join(", "));
        }
    }
}
