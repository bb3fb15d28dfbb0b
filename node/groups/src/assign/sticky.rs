//! Sticky: balanced as far as the subscriptions allow, and as little moves as that takes.
//!
//! Everybody keeps what they have. What is free goes to the least loaded. Then partitions move
//! along chains of members, each of which can take what the one before has, as long as the last of
//! a chain has two fewer than the first: when no such chain is left, no assignment is more even.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use super::{Counts, Subscriber};
use crate::state::Tp;

pub(super) fn assign(members: &[Subscriber<'_>], counts: &Counts) -> Vec<BTreeSet<Tp>> {
    let mut table = Table::keep(members, counts);
    table.give_free(counts);
    let mut topics = members.iter().map(|member| &member.topics);
    let first = topics.next();
    if topics.all(|topics| Some(topics) == first) {
        table.level();
    } else {
        while table.improve() {}
    }
    table.finish()
}

/// Partitions of each topic that a member has.
type Held = BTreeMap<Arc<str>, BTreeSet<i32>>;

struct Table {
    held: Vec<Held>,
    /// Partitions of each member. Invariant: as many as in `held`.
    loads: Vec<usize>,
    /// Members that want each topic.
    takers: BTreeMap<Arc<str>, Vec<usize>>,
}

impl Table {
    /// What the members have and may keep.
    fn keep(members: &[Subscriber<'_>], counts: &Counts) -> Self {
        let mut takers: BTreeMap<Arc<str>, Vec<usize>> = BTreeMap::new();
        let mut held = Vec::with_capacity(members.len());
        for (at, member) in members.iter().enumerate() {
            for topic in &member.topics {
                takers.entry(Arc::clone(topic)).or_default().push(at);
            }
            let mut own = Held::new();
            for tp in member.target {
                let there = (counts.get(&tp.topic)).is_some_and(|count| tp.partition < *count);
                if there && member.topics.contains(&tp.topic) {
                    let topic = own.entry(Arc::clone(&tp.topic)).or_default();
                    let _new = topic.insert(tp.partition);
                }
            }
            held.push(own);
        }
        let loads = held
            .iter()
            .map(|own| own.values().map(BTreeSet::len).sum())
            .collect();
        Self {
            held,
            loads,
            takers,
        }
    }

    fn load(&self, member: usize) -> usize {
        self.loads.get(member).copied().unwrap_or_default()
    }

    fn give(&mut self, member: usize, topic: &Arc<str>, partition: i32) {
        if let (Some(held), Some(load)) = (self.held.get_mut(member), self.loads.get_mut(member)) {
            let topic = held.entry(Arc::clone(topic)).or_default();
            *load += usize::from(topic.insert(partition));
        }
    }

    /// Takes the last partition of the topic from the member.
    fn take(&mut self, member: usize, topic: &str) -> Option<i32> {
        let partition = self.held.get_mut(member)?.get_mut(topic)?.pop_last()?;
        *self.loads.get_mut(member)? -= 1;
        Some(partition)
    }

    /// Gives each partition that nobody has to the least loaded member that wants it; topics that
    /// few want come first.
    fn give_free(&mut self, counts: &Counts) {
        let mut topics: Vec<(usize, Arc<str>)> = self
            .takers
            .iter()
            .map(|(topic, takers)| (takers.len(), Arc::clone(topic)))
            .collect();
        topics.sort();
        for (_, topic) in topics {
            let taken: BTreeSet<i32> = self
                .held
                .iter()
                .filter_map(|held| held.get(&topic))
                .flatten()
                .copied()
                .collect();
            let takers = self.takers.get(&topic).into_iter().flatten();
            let mut waiting: BTreeSet<(usize, usize)> =
                takers.map(|member| (self.load(*member), *member)).collect();
            let count = counts.get(&topic).copied().unwrap_or_default();
            for partition in (0..count).filter(|partition| !taken.contains(partition)) {
                let Some((load, member)) = waiting.pop_first() else {
                    break;
                };
                self.give(member, &topic, partition);
                let _new = waiting.insert((load + 1, member));
            }
        }
    }

    /// Where all members want the same topics: moves from the most to the least loaded.
    fn level(&mut self) {
        let loads = self.loads.iter().enumerate();
        let mut order: BTreeSet<(usize, usize)> = loads.map(|(at, load)| (*load, at)).collect();
        while let (Some(least), Some(most)) = (order.first().copied(), order.last().copied()) {
            if most.0 <= least.0 + 1 {
                return;
            }
            // Of the topic of which it has the most, so that topics stay spread.
            let held = self.held.get(most.1).into_iter().flatten();
            let topic = held
                .max_by_key(|(_, partitions)| partitions.len())
                .map(|(topic, _)| Arc::clone(topic));
            let Some(topic) = topic else {
                return;
            };
            let Some(partition) = self.take(most.1, &topic) else {
                return;
            };
            self.give(least.1, &topic, partition);
            let _here = (order.remove(&most), order.remove(&least));
            let _new = order.insert((most.0 - 1, most.1));
            let _new = order.insert((least.0 + 1, least.1));
        }
    }

    /// Moves one partition along each member of one chain; `false` where there is no chain left.
    fn improve(&mut self) -> bool {
        let mut order: Vec<usize> = (0..self.loads.len()).collect();
        order.sort_by_key(|member| std::cmp::Reverse(self.load(*member)));
        // What a search from a more loaded member has reached offers nothing to a less loaded one.
        let mut search = Search::default();
        for member in order {
            if let Some(end) = search.from(self, member) {
                self.shift(&search, end);
                return true;
            }
        }
        false
    }

    fn shift(&mut self, search: &Search, end: usize) {
        let mut to = end;
        while let Some((from, topic)) = search.reached.get(&to).and_then(Option::as_ref) {
            if let Some(partition) = self.take(*from, topic) {
                self.give(to, topic, partition);
            }
            to = *from;
        }
    }

    fn finish(self) -> Vec<BTreeSet<Tp>> {
        let flat = |held: Held| {
            let topics = held.into_iter();
            topics
                .flat_map(|(topic, partitions)| {
                    let tp = move |partition| Tp::new(Arc::clone(&topic), partition);
                    partitions.into_iter().map(tp)
                })
                .collect()
        };
        self.held.into_iter().map(flat).collect()
    }
}

/// A member and the topic of which it would hand a partition on.
type Origin = Option<(usize, Arc<str>)>;

/// A breadth-first search for the nearest member that could take over from a chain.
#[derive(Default)]
struct Search {
    /// From whom each member was reached, and what that one would hand on; `None` where a search
    /// began.
    reached: BTreeMap<usize, Origin>,
    topics: BTreeSet<Arc<str>>,
}

impl Search {
    fn from(&mut self, table: &Table, start: usize) -> Option<usize> {
        if self.reached.contains_key(&start) {
            return None;
        }
        let _none = self.reached.insert(start, None);
        let enough = table.load(start).checked_sub(2)?;
        let mut queue = VecDeque::from([start]);
        while let Some(from) = queue.pop_front() {
            let mut best: Option<usize> = None;
            for (topic, partitions) in table.held.get(from).into_iter().flatten() {
                if partitions.is_empty() || !self.topics.insert(Arc::clone(topic)) {
                    continue;
                }
                for to in table.takers.get(topic).into_iter().flatten() {
                    if self.reached.contains_key(to) {
                        continue;
                    }
                    let by = Some((from, Arc::clone(topic)));
                    let _none = self.reached.insert(*to, by);
                    queue.push_back(*to);
                    if table.load(*to) <= enough
                        && best.is_none_or(|best| table.load(*to) < table.load(best))
                    {
                        best = Some(*to);
                    }
                }
            }
            if best.is_some() {
                return best;
            }
        }
        None
    }
}
