//! Commands about nodes: who leaves, who is gone, who votes in the metadata group.

use std::{collections::BTreeSet, sync::Arc};

use seriatim_proto::{ids::NodeId, internal::v1 as wire};
use wire::meta_reply::Reply;

use crate::{
    apply::{Touched, malformed},
    command::Refusal,
    image::Image,
    plan,
};

/// A node begins to leave, or stays after all. It may only leave where the others can hold what
/// there is.
pub(crate) fn set_leaving(
    image: &mut Image,
    set: &wire::SetLeaving,
    touched: &mut Touched,
) -> Result<Reply, Refusal> {
    let node = NodeId(set.node_id);
    let Some(known) = image.nodes.get(&node) else {
        return Err(Refusal::UnknownNode { node });
    };
    if set.leaving && !known.leaving {
        plan::check_leave(image, node)?;
    }
    if let Some(known) = image.nodes.get_mut(&node) {
        Arc::make_mut(known).leaving = set.leaving;
        let _ = touched.nodes.insert(node);
    }
    Ok(Reply::Done(wire::Done {}))
}

/// Forgets a node that leaves and holds nothing.
pub(crate) fn remove_node(
    image: &mut Image,
    remove: &wire::RemoveNode,
    touched: &mut Touched,
) -> Result<Reply, Refusal> {
    let node = NodeId(remove.node_id);
    // A repeated command finds it gone.
    if let Some(known) = image.node(node) {
        if !known.leaving || known.voter || image.holds_replicas(node) {
            return Err(Refusal::NodeInUse { node });
        }
        let _ = image.nodes.remove(&node);
        let _ = touched.nodes.insert(node);
    }
    Ok(Reply::Done(wire::Done {}))
}

/// Says which nodes vote in the metadata group.
pub(crate) fn set_controllers(
    image: &mut Image,
    set: &wire::SetControllers,
    touched: &mut Touched,
) -> Result<Reply, Refusal> {
    let voters: BTreeSet<NodeId> = set.node_ids.iter().copied().map(NodeId).collect();
    if voters.is_empty() {
        return Err(malformed("the metadata group needs a voter"));
    }
    if let Some(&node) = voters.iter().find(|node| !image.nodes.contains_key(node)) {
        return Err(Refusal::UnknownNode { node });
    }
    for (id, node) in &mut image.nodes {
        let voter = voters.contains(id);
        if node.voter != voter {
            Arc::make_mut(node).voter = voter;
            let _ = touched.nodes.insert(*id);
        }
    }
    Ok(Reply::Done(wire::Done {}))
}
