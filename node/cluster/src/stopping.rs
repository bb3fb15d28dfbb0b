//! A node that is about to stop hands over what it leads, so that nobody has to wait for an election.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt as _;
use seriatim_consensus::{Group, Member, Role};
use seriatim_proto::ids::{NodeId, ReplicaId};
use seriatim_runtime::clock::{self, Instant};

use crate::{cluster::Inner, image::Image};

/// Leaderships that are handed over at the same time.
const AT_ONCE: usize = 32;

/// Pause before what is still led is looked at again.
const AGAIN: Duration = Duration::from_millis(50);

/// Hands over until this node leads nothing that another could lead; says what it still leads.
pub(crate) async fn hand_over(inner: &Arc<Inner>, deadline: Instant) -> usize {
    inner.consensus.stop_elections();
    inner.gossip.stop();
    inner.leaders.wake();
    loop {
        let led = led(inner);
        let image = inner.machine.image();
        let stopping = inner.gossip.stopping();
        let mut given = BTreeMap::new();
        let heirs: Vec<(Group, ReplicaId)> = led
            .iter()
            .filter_map(|group| {
                let heir = heir(group, &image, &stopping, &given)?;
                *given.entry(heir.node).or_default() += 1;
                Some((group.clone(), heir.replica))
            })
            .collect();
        // A group without an heir may get one until the deadline, if somebody is left to be one.
        let hopeless = led.iter().all(|group| is_alone(group, &stopping));
        if hopeless || clock::now() >= deadline {
            return led.len();
        }
        let handing =
            futures::stream::iter(heirs).for_each_concurrent(AT_ONCE, |(group, to)| async move {
                if let Err(error) = group.hand_over(to).await {
                    tracing::debug!(group = group.name(), %error, "handing over before the end");
                }
            });
        if clock::timeout_at(deadline, handing).await.is_err() {
            continue;
        }
        clock::sleep(AGAIN.min(deadline.saturating_duration_since(clock::now()))).await;
    }
}

/// The groups that this node leads.
fn led(inner: &Inner) -> Vec<Group> {
    let local = inner
        .replicas
        .list()
        .into_iter()
        .filter_map(|local| local.group);
    let control = inner.control.get();
    local
        .chain(control)
        .filter(|group| group.state().borrow().role == Role::Leader)
        .collect()
}

/// Whether nobody else votes who answers and is not about to stop as well.
fn is_alone(group: &Group, stopping: &BTreeSet<NodeId>) -> bool {
    let own = group.key().replica;
    let members = group.status().membership;
    !members.iter().any(|member| {
        member.voter && member.replica != own && member.answers && !stopping.contains(&member.node)
    })
}

/// The replica that leads next: the preferred one if it can, else one that can, on the node that was
/// given least so far.
fn heir(
    group: &Group,
    image: &Image,
    stopping: &BTreeSet<NodeId>,
    given: &BTreeMap<NodeId, usize>,
) -> Option<Member> {
    let status = group.status();
    let own = group.key().replica;
    let preferred = image
        .find_group(group.key().group)
        .and_then(|(topic, number)| Some(topic.partition(number)?.goal().first()?.id));
    status
        .membership
        .iter()
        .filter(|member| {
            member.replica != own && status.can_lead(member) && !stopping.contains(&member.node)
        })
        .min_by_key(|member| {
            let given = given.get(&member.node).copied().unwrap_or(0);
            (Some(member.replica) != preferred, given)
        })
        .cloned()
}
