//! Operations as bars in lanes. Processes come and go (one whose operation has an unknown end never
//! acts again); those that follow one another share a lane. Where still too many act at the same
//! time, there is one lane per node.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use serde::Serialize;

use super::{
    calls::{Call, Outcome},
    series::bin,
    words,
};
use crate::history::Process;

/// Most lanes of one kind of operation before they are joined by node.
const LANES_MAX: u64 = 24;

/// Lanes of one kind and node, then: processes are spread over them.
const LANES_OF_NODE: u64 = 6;

/// Most operations that are drawn one by one; the others show only as shading.
const BARS_MAX: usize = 30_000;

/// Bytes of words about operations, and of words about one.
const WORDS_BYTES_MAX: usize = 1_500_000;
const WORDS_MAX: usize = 160;

/// The timeline.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Timeline {
    /// Names of the lanes, from the top.
    pub(super) lanes: Vec<String>,
    /// Operations that are drawn.
    pub(super) bars: Vec<Bar>,
    /// Operations that are not drawn, by lane and stretch of time: lane, stretch, how many.
    pub(super) shades: Vec<(usize, usize, u64)>,
    /// How many are not drawn.
    pub(super) omitted: usize,
    /// Errors, each once.
    pub(super) errors: Vec<String>,
}

/// One operation: lane, begin and length in microseconds, number of the outcome, index of its
/// invocation, process, number of its error plus one or 0, words. A tuple, as there are many.
pub(super) type Bar = (usize, u64, u64, usize, u64, String, usize, String);

/// Puts operations into lanes. `marked` are entries to be drawn in any case.
pub(super) fn timeline(calls: &[Call<'_>], marked: &BTreeSet<u64>, width_ms: u64) -> Timeline {
    let (lanes, lane_of) = assign(calls);
    let drawn = drawn(calls, marked);
    let mut errors: BTreeMap<&str, usize> = BTreeMap::new();
    let mut names: Vec<String> = Vec::new();
    let mut words_left = WORDS_BYTES_MAX;
    let mut shades: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    let mut bars = Vec::new();
    let all = calls.iter().zip(&lane_of).zip(&drawn);
    for ((call, &lane), &is_drawn) in all {
        if !is_drawn {
            *shades.entry((lane, bin(call.end, width_ms))).or_default() += 1;
            continue;
        }
        let error = call.last().error.as_deref().map_or(0, |error| {
            let next = errors.len() + 1;
            *errors.entry(error).or_insert_with(|| {
                names.push(shortened(error));
                next
            })
        });
        let words = said(call, words_left);
        words_left -= words.len();
        bars.push((
            lane,
            call.invoke().time / 1000,
            call.took() / 1000,
            call.outcome.number(),
            call.invoke().index,
            words::process(call.invoke().process),
            error,
            words,
        ));
    }
    Timeline {
        lanes,
        omitted: calls.len() - bars.len(),
        bars,
        shades: shades.into_iter().map(|((l, b), n)| (l, b, n)).collect(),
        errors: names,
    }
}

/// The words about a call, if any are left.
fn said(call: &Call<'_>, left: usize) -> String {
    let words = shortened(&words::detail(call.last()));
    if words.len() > left {
        String::new()
    } else {
        words
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(WORDS_MAX) {
        Some((at, _)) => format!("{} ...", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Which operations are drawn: all, or those that are marked, that did not end well, and that took
/// longest.
fn drawn(calls: &[Call<'_>], marked: &BTreeSet<u64>) -> Vec<bool> {
    if calls.len() <= BARS_MAX {
        return vec![true; calls.len()];
    }
    let weight = |call: &Call<'_>| (call.is_in(marked), call.outcome != Outcome::Ok, call.took());
    let mut order: Vec<usize> = (0..calls.len()).collect();
    order.sort_by_key(|&at| Reverse(calls.get(at).map(weight)));
    let mut drawn = vec![false; calls.len()];
    for at in order.into_iter().take(BARS_MAX) {
        if let Some(drawn) = drawn.get_mut(at) {
            *drawn = true;
        }
    }
    drawn
}

/// Names of the lanes, and the lane of each call.
fn assign(calls: &[Call<'_>]) -> (Vec<String>, Vec<usize>) {
    let mut kinds: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, call) in calls.iter().enumerate() {
        kinds.entry(call.kind()).or_default().push(at);
    }
    let mut names = Vec::new();
    let mut lane_of = vec![0; calls.len()];
    for (kind, members) in kinds {
        let slots = slots(calls, &members);
        let count = slots.values().max().map_or(0, |most| most + 1);
        let joined = count > LANES_MAX;
        let mut lanes: BTreeMap<u64, usize> = BTreeMap::new();
        let of = |call: &Call<'_>| {
            let slot = slots.get(&call.invoke().process).copied().unwrap_or(0);
            match joined {
                true => call.last().node.unwrap_or(0) * LANES_OF_NODE + slot % LANES_OF_NODE,
                false => slot,
            }
        };
        let wanted: BTreeSet<u64> = members
            .iter()
            .filter_map(|&at| calls.get(at))
            .map(&of)
            .collect();
        let mut before = None;
        for key in wanted {
            let _new = lanes.insert(key, names.len());
            let node = key / LANES_OF_NODE;
            names.push(match joined {
                true if before == Some(node) => String::new(),
                true if node == 0 => format!("{kind}, any node"),
                true => format!("{kind} at n{node}"),
                false if count > 1 => format!("{kind} {}", key + 1),
                false => kind.to_owned(),
            });
            before = Some(node);
        }
        for at in members {
            let lane = calls.get(at).and_then(|call| lanes.get(&of(call)));
            if let (Some(lane), Some(slot)) = (lane, lane_of.get_mut(at)) {
                *slot = *lane;
            }
        }
    }
    (names, lane_of)
}

/// Gives each process of some calls a slot that no other one has at the same time.
fn slots(calls: &[Call<'_>], members: &[usize]) -> BTreeMap<Process, u64> {
    let mut lives: BTreeMap<Process, (u64, u64)> = BTreeMap::new();
    for call in members.iter().filter_map(|&at| calls.get(at)) {
        let (start, end) = (call.invoke().time, call.end);
        let life = lives.entry(call.invoke().process).or_insert((start, end));
        *life = (life.0.min(start), life.1.max(end));
    }
    let mut order: Vec<(u64, u64, Process)> =
        lives.into_iter().map(|(p, (s, e))| (s, e, p)).collect();
    order.sort_unstable();
    let mut busy: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
    let mut free: BTreeSet<u64> = BTreeSet::new();
    let mut next = 0;
    let mut slots = BTreeMap::new();
    for (start, end, process) in order {
        while let Some(&Reverse((until, slot))) = busy.peek().filter(|top| top.0.0 <= start) {
            let _freed = free.insert(slot);
            let _over = (until, busy.pop());
        }
        let slot = free.pop_first().unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        busy.push(Reverse((end, slot)));
        let _new = slots.insert(process, slot);
    }
    slots
}
