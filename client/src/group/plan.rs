//! What to send in one commit, and what it means when it is stored.

use std::collections::BTreeMap;

use seriatim_proto::{ids::TopicPartition, v1};

use super::{part::Phase, shared::CommitOffset, state::State};
use crate::error::ClientError;

/// Most offsets that one commit carries.
pub(super) const OFFSETS_MAX: usize = 10_000;
/// Longest text with an offset, in bytes.
const METADATA_MAX: usize = 4 << 10;

/// Offsets that the application wants stored, and the rounds that it means.
pub(super) type Chosen = BTreeMap<TopicPartition, (u64, CommitOffset)>;

/// One offset of a commit under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Planned {
    tp: TopicPartition,
    acquired: u64,
    round: u64,
    offset: i64,
    metadata: String,
    allow_back: bool,
}

/// Checks offsets that the application chose.
pub(super) fn choose(
    state: &State,
    offsets: BTreeMap<TopicPartition, CommitOffset>,
) -> Result<Chosen, ClientError> {
    if offsets.len() > OFFSETS_MAX {
        let text = format!("a commit holds at most {OFFSETS_MAX} offsets; commit in parts");
        return Err(ClientError::Invalid(text));
    }
    let mut chosen = Chosen::new();
    for (tp, commit) in offsets {
        let part = state.parts.get(&tp).filter(|p| p.phase != Phase::Released);
        let part = part.ok_or_else(|| ClientError::NotAssigned(tp.clone()))?;
        let position = part.tracker.as_ref().map(|t| t.position());
        if position.is_none_or(|position| !(0..=position).contains(&commit.offset.0)) {
            let position = position.unwrap_or(0);
            return Err(ClientError::Invalid(format!(
                "offset {} of {tp} cannot be committed: records up to {position} were handed on",
                commit.offset
            )));
        }
        if commit.metadata.len() > METADATA_MAX {
            return Err(ClientError::Invalid(format!(
                "the text with the offset of {tp} has {} bytes, the limit is {METADATA_MAX}",
                commit.metadata.len()
            )));
        }
        let _new = chosen.insert(tp, (part.round, commit));
    }
    Ok(chosen)
}

/// The next commit: what was chosen, and with `everything` what came back and is not stored. Notes
/// what is sent.
///
/// Invariant: no offset is beyond what was handed on, and without having been chosen none is beyond
/// the contiguous part that came back.
pub(super) fn plan(state: &mut State, chosen: &Chosen, everything: bool) -> Vec<Planned> {
    let mut planned = Vec::new();
    for (tp, part) in &mut state.parts {
        let wanted = chosen.get(tp).filter(|(round, _)| *round == part.round);
        let next = match wanted {
            Some((_, commit)) if part.phase != Phase::Released => {
                Some((commit.offset.0, commit.metadata.clone()))
            }
            Some(_) => None,
            None if everything => part.to_commit().map(|offset| (offset, String::new())),
            None => None,
        };
        let Some((offset, metadata)) = next else {
            continue;
        };
        part.sent = part.sent.max(Some(offset));
        planned.push(Planned {
            tp: tp.clone(),
            acquired: part.acquired,
            round: part.round,
            offset,
            metadata,
            allow_back: part.allow_back,
        });
        if planned.len() == OFFSETS_MAX {
            break;
        }
    }
    planned
}

/// The partitions that were chosen are still this member's, in the round that was meant.
pub(super) fn still_mine(state: &State, chosen: &Chosen) -> Result<(), ClientError> {
    for (tp, (round, _)) in chosen {
        let part = state.parts.get(tp).filter(|p| p.phase != Phase::Released);
        if part.is_none_or(|part| part.round != *round) {
            return Err(ClientError::NotAssigned(tp.clone()));
        }
    }
    Ok(())
}

pub(super) fn to_wire(planned: &[Planned]) -> Vec<v1::OffsetCommit> {
    let one = |p: &Planned| v1::OffsetCommit {
        topic: p.tp.topic.clone(),
        partition: p.tp.partition.0,
        offset: p.offset,
        metadata: p.metadata.clone(),
        allow_back: p.allow_back,
    };
    planned.iter().map(one).collect()
}

/// A commit is stored.
pub(super) fn stored(state: &mut State, planned: &[Planned]) {
    for p in planned {
        if let Some(part) = state.acquired(&p.tp, p.acquired) {
            let sought_since = part.round != p.round;
            part.stored(p.offset, sought_since);
        }
    }
}
