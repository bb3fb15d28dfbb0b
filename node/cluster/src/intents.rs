//! What the controller decides of a request that only says what is wanted: it plans on its own image,
//! which no other controller can have overtaken, and proposes the command.

use std::sync::Arc;

use seriatim_consensus::Group;
use seriatim_proto::{
    ids::{NodeId, PartitionId},
    internal::v1 as wire,
};
use wire::{
    control_reply::Reply as Answer, meta_command::Command, meta_reply::Reply, move_intent::Intent,
};

use crate::{
    cluster::Inner,
    command::{self, Refusal},
    control::{refused, submit},
    image::{Image, PartitionInfo},
    plan::{self, Move},
};

/// Moves of one command; what is beyond waits for the next request, or the next look of the
/// controller.
pub(crate) const MOVES_PER_COMMAND: usize = 1000;

/// Plans moves and begins them; answers with the plan.
pub(crate) async fn moves(inner: &Arc<Inner>, group: &Group, intent: &wire::MoveIntent) -> Answer {
    let _one_at_a_time = inner.placing.lock().await;
    if group.read_barrier().await.is_err() {
        return Answer::Controller(0);
    }
    let image = inner.machine.image();
    let planned = match planned(&image, intent) {
        Ok(planned) => planned,
        Err(refusal) => return refused(refusal),
    };
    if let Some(command) = planned.command.filter(|_| !intent.validate_only) {
        if let Err(refusal) = command::allowed(&image, command::version(&command)) {
            return refused(refusal);
        }
        let answer = submit(group, command::encode(command)).await;
        if !is_done(&answer) {
            return answer;
        }
    }
    Answer::Done(command::encode_reply(Ok(Reply::Plan(wire_plan(
        &planned.moves,
    )))))
}

struct Planned {
    moves: Vec<Move>,
    /// None where there is nothing to do.
    command: Option<Command>,
}

fn planned(image: &Image, intent: &wire::MoveIntent) -> Result<Planned, Refusal> {
    match &intent.intent {
        Some(Intent::Assign(assign)) => {
            let nodes: Vec<NodeId> = assign.nodes.iter().copied().map(NodeId).collect();
            let number = PartitionId(assign.partition);
            let found = plan::reassign(image, &assign.topic, number, &nodes)?;
            Ok(all(found.into_iter().collect()))
        }
        Some(Intent::Cancel(cancel)) => cancelled(image, cancel),
        Some(Intent::ReplicationFactor(factor)) => {
            let moves = plan::replication_factor(image, &factor.topic, factor.replication_factor)?;
            let command = wire::MovePartitions {
                topic: factor.topic.clone(),
                replication_factor: factor.replication_factor,
                ..plan::command(&moves)
            };
            Ok(Planned {
                moves,
                command: Some(Command::MovePartitions(command)),
            })
        }
        Some(Intent::Spread(wire::Spread {})) => {
            let mut moves = plan::spread(image);
            moves.truncate(MOVES_PER_COMMAND);
            Ok(all(moves))
        }
        None => Err(Refusal::UnknownCommand { version: 0 }),
    }
}

fn all(moves: Vec<Move>) -> Planned {
    let command = (!moves.is_empty()).then(|| Command::MovePartitions(plan::command(&moves)));
    Planned { moves, command }
}

fn cancelled(image: &Image, cancel: &wire::CancelPartition) -> Result<Planned, Refusal> {
    let number = PartitionId(cancel.partition);
    let info = plan::partition(image, &cancel.topic, number)?;
    let Some(target) = info.target.as_ref().filter(|_| !info.returning) else {
        return Ok(all(Vec::new()));
    };
    let back = Move {
        topic: cancel.topic.clone(),
        partition: number,
        group: info.group,
        from: target.iter().map(|replica| replica.node).collect(),
        to: origin(info),
    };
    Ok(Planned {
        moves: vec![back],
        command: Some(Command::CancelMove(wire::CancelMove {
            group_id: info.group.0,
        })),
    })
}

fn origin(info: &PartitionInfo) -> Vec<NodeId> {
    info.replicas.iter().map(|replica| replica.node).collect()
}

/// A node is to leave, or to stay after all: then moves away from it turn round.
pub(crate) async fn leave(inner: &Arc<Inner>, group: &Group, intent: &wire::LeaveIntent) -> Answer {
    let _one_at_a_time = inner.placing.lock().await;
    if group.read_barrier().await.is_err() {
        return Answer::Controller(0);
    }
    let image = inner.machine.image();
    let set = Command::SetLeaving(wire::SetLeaving {
        node_id: intent.node_id,
        leaving: !intent.cancel,
    });
    if let Err(refusal) = command::allowed(&image, command::version(&set)) {
        return refused(refusal);
    }
    let answer = submit(group, command::encode(set)).await;
    if !intent.cancel || !is_done(&answer) {
        return answer;
    }
    let node = NodeId(intent.node_id);
    for (_, _, info) in image.partitions() {
        let leaves = info.replicas.iter().any(|replica| replica.node == node)
            && !info.goal().iter().any(|replica| replica.node == node);
        if !leaves || info.returning {
            continue;
        }
        let group_id = info.group.0;
        let cancel = Command::CancelMove(wire::CancelMove { group_id });
        let cancelled = submit(group, command::encode(cancel)).await;
        if matches!(cancelled, Answer::Uncertain(_) | Answer::Controller(_)) {
            // The whole is repeated.
            return cancelled;
        }
    }
    answer
}

/// Adds partitions until there are as many as wanted.
pub(crate) async fn add_partitions(
    inner: &Arc<Inner>,
    group: &Group,
    intent: &wire::AddPartitionsIntent,
) -> Answer {
    let _one_at_a_time = inner.placing.lock().await;
    if group.read_barrier().await.is_err() {
        return Answer::Controller(0);
    }
    let image = inner.machine.image();
    let add = match plan::add_partitions(&image, intent) {
        Ok(Some(add)) => Command::AddPartitions(add),
        Ok(None) => return Answer::Done(command::encode_reply(Ok(Reply::Done(wire::Done {})))),
        Err(refusal) => return refused(refusal),
    };
    if let Err(refusal) = command::allowed(&image, command::version(&add)) {
        return refused(refusal);
    }
    submit(group, command::encode(add)).await
}

fn is_done(answer: &Answer) -> bool {
    matches!(answer, Answer::Done(reply) if command::decode_reply(reply.clone()).is_ok())
}

fn wire_plan(moves: &[Move]) -> wire::Plan {
    let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    let moves = moves.iter().map(|planned| wire::PlannedMove {
        topic: planned.topic.clone(),
        partition: planned.partition.0,
        from_nodes: numbers(&planned.from),
        to_nodes: numbers(&planned.to),
    });
    wire::Plan {
        moves: moves.collect(),
    }
}
