//! The metadata group on this node: its first leader, its failure, and the loop in which its leader
//! steers the cluster.

use std::{sync::Arc, time::Duration};

use seriatim_consensus::{Group, Role};
use seriatim_proto::ids::GroupId;
use seriatim_runtime::clock;
use seriatim_storage::StorageError;

use crate::{cluster::Inner, error::ClusterError, own_replica, steer::Steering};

/// Pause before members that do not yet agree are looked at again.
const AGAIN: Duration = Duration::from_millis(300);

/// Tries to get a leader for a group that may have none: after a start nobody has heard of a leader,
/// and waiting for the election timeout costs more than asking. Where there is a leader, its
/// followers refuse the pre-vote and nothing happens.
///
/// `rank` is this replica's position among those who may try: the first tries first.
pub(crate) async fn elect(group: &Group, rank: usize) {
    let mut pause = Duration::from_millis(60);
    let wait = Duration::from_millis(400) * u32::try_from(rank).unwrap_or(u32::MAX);
    if group.led(wait).await {
        return;
    }
    for _ in 0..7 {
        if group.elect(pause).await {
            return;
        }
        // An election that takes longer than this is only begun anew by another attempt.
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Starts what the metadata group needs: a first leader, and on the leader the members and the
/// founding command.
pub(crate) fn start_controller(inner: &Arc<Inner>) {
    let task = Arc::clone(inner);
    inner.spawn("controller", async move {
        loop {
            let Some(group) = task.control.get() else {
                return;
            };
            let why = controller(&task, &group).await;
            tracing::error!(why, "this node's replica of the metadata group stopped");
            if let Err(error) = reopen(&task, &group, &why).await {
                return task.fail(error);
            }
        }
    });
}

/// Puts a new replica in the place of one that was found damaged while it ran. Any other failure of
/// the disk ends this node: it is for a person to look at.
async fn reopen(inner: &Arc<Inner>, group: &Group, why: &str) -> Result<(), ClusterError> {
    let poison = group.log().poisoned();
    let _ = inner.control.set(None);
    inner.consensus.close(GroupId::METADATA).await;
    match poison {
        Some(poison) if matches!(*poison, StorageError::Damaged { .. }) => {
            let fresh = own_replica::rebuild(inner, group.key(), &poison.to_string()).await?;
            let _ = own_replica::open(inner, fresh).await?;
            Ok(())
        }
        Some(poison) => Err(ClusterError::Storage(poison)),
        None => Err(ClusterError::Configuration {
            what: format!("the metadata group stopped: {why}; restart this node"),
        }),
    }
}

/// Runs until the group fails; tells why.
async fn controller(inner: &Arc<Inner>, group: &Group) -> String {
    let mut state = group.state();
    let mut image = inner.machine.watch();
    let rank = {
        let members = group.status().membership;
        members
            .iter()
            .position(|member| member.node == inner.me())
            .unwrap_or(members.len())
    };
    elect(group, rank).await;
    let mut steering = Steering::default();
    loop {
        let (leads, failed) = {
            let state = state.borrow_and_update();
            (state.role == Role::Leader, state.failed.clone())
        };
        if let Some(why) = failed {
            return why;
        }
        let _ = image.borrow_and_update();
        if !leads {
            steering = Steering::default();
        }
        let settled = !leads || steering.step(inner, group).await;
        tokio::select! {
            biased;
            changed = state.changed() => if changed.is_err() {
                return "the group was closed".to_owned();
            },
            changed = image.changed() => if changed.is_err() {
                return "the image was closed".to_owned();
            },
            () = clock::sleep(AGAIN), if !settled => {}
        }
    }
}
