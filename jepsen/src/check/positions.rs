//! Where each consumer stands: what it last read of each key, as long as nothing moved it.

use std::collections::HashMap;

use super::facts::{Facts, Polled};
use crate::history::{Key, Kind, Op, Process};

/// Where a consumer stands in a key.
#[derive(Debug, Clone, Copy)]
struct Position {
    /// The next offset.
    next: i64,
    /// The entry after which it stood there.
    since: u64,
    /// The grant of its group under which it read.
    granted: Option<u64>,
}

/// A poll that goes on where an earlier one stopped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) polled: Polled<'a>,
    /// The first offset that it gave.
    pub(super) first: i64,
    /// The offset that was due.
    pub(super) due: i64,
    /// The entry that says so.
    pub(super) since: u64,
}

/// Every poll of which it is known where it should have gone on.
pub(super) fn steps<'a>(facts: &Facts<'a>) -> Vec<Step<'a>> {
    let mut out = Vec::new();
    let mut positions: HashMap<(Process, Key), Position> = HashMap::new();
    let mut held: HashMap<Process, Vec<Key>> = HashMap::new();
    let mut assigns = assignments(facts).into_iter().peekable();
    for polled in &facts.polls {
        while let Some((op, keys)) = assigns.next_if(|(op, _)| op.index < polled.completed.index) {
            let lost = held.insert(op.process, keys.to_vec()).unwrap_or_default();
            for key in lost.iter().filter(|key| !keys.contains(key)) {
                let _was = positions.remove(&(op.process, *key));
            }
        }
        let whose = (polled.completed.process, polled.key);
        let index = polled.completed.index;
        let known = positions.get(&whose).filter(|known| {
            !polled.poll.sought && !polled.poll.is_final && known.granted == polled.read.granted
        });
        // What the poll itself asked for counts where nothing is known of the poll before it.
        let asked = polled.poll.from.get(&polled.key);
        let due = known.map(|known| (known.next, known.since));
        let due = due.or(asked.map(|&from| (from, polled.op.invoked.index)));
        let records = &polled.read.records;
        if let (Some(&(first, _)), Some((due, since))) = (records.first(), due) {
            out.push(Step {
                polled: *polled,
                first,
                due,
                since,
            });
        }
        let next = records.last().map(|&(offset, _)| offset + 1);
        let next = next.or(due.map(|(due, _)| due));
        if polled.completed.kind != Kind::Ok {
            continue;
        }
        match next {
            Some(next) => {
                let position = Position {
                    next,
                    since: index,
                    granted: polled.read.granted,
                };
                let _was = positions.insert(whose, position);
                let keys = held.entry(whose.0).or_default();
                if !keys.contains(&polled.key) {
                    keys.push(polled.key);
                }
            }
            None => {
                let _was = positions.remove(&whose);
            }
        }
    }
    out
}

/// Assignments and subscriptions that may have taken effect, in the order of their completions.
fn assignments<'a>(facts: &Facts<'a>) -> Vec<(&'a Op, &'a [Key])> {
    let ended = facts.assigns.iter().filter_map(|(op, keys)| {
        let completed = op.completed.filter(|op| op.kind != Kind::Fail)?;
        Some((completed, *keys))
    });
    let mut ended: Vec<_> = ended.collect();
    ended.sort_by_key(|(op, _)| op.index);
    ended
}
