//! Who leads which group, as far as this node knows: from its own replicas and from gossip.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use seriatim_proto::ids::{GroupId, LeaderEpoch, NodeId};
use tokio::sync::watch;

/// Who leads a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    /// The node.
    pub node: NodeId,
    /// The Raft term in which it leads.
    pub epoch: LeaderEpoch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    term: u64,
    node: Option<NodeId>,
}

#[derive(Debug, Clone, Copy)]
struct Led {
    term: u64,
    /// When it was recorded: higher than every earlier record's.
    sequence: u64,
}

#[derive(Debug, Default)]
struct Tables {
    known: BTreeMap<GroupId, Known>,
    led: BTreeMap<GroupId, Led>,
    sequence: u64,
}

/// The leaders that this node knows and the groups that it leads itself.
#[derive(Debug)]
pub(crate) struct LeaderTable {
    me: NodeId,
    tables: RwLock<Tables>,
    /// The last sequence; wakes those who tell the peers.
    changed: watch::Sender<u64>,
}

impl LeaderTable {
    pub(crate) fn new(me: NodeId) -> Self {
        Self {
            me,
            tables: RwLock::default(),
            changed: watch::Sender::new(0),
        }
    }

    pub(crate) fn leader(&self, group: GroupId) -> Option<Leader> {
        let known = *self.tables.read().known.get(&group)?;
        Some(Leader {
            node: known.node?,
            epoch: LeaderEpoch(i32::try_from(known.term).unwrap_or(i32::MAX)),
        })
    }

    /// A replica of this node saw this leader, or saw the term begin without one.
    pub(crate) fn observe(&self, group: GroupId, term: u64, node: Option<NodeId>) {
        let mut tables = self.tables.write();
        tables.learn(group, term, node);
        let leads = node == Some(self.me);
        let led = tables.led.get(&group).map(|led| led.term);
        if leads && led.is_none_or(|led| led < term) {
            tables.sequence += 1;
            let sequence = tables.sequence;
            let _ = tables.led.insert(group, Led { term, sequence });
            let _ = self.changed.send_replace(sequence);
        } else if !leads {
            let _ = tables.led.remove(&group);
        }
    }

    /// A peer leads these groups.
    pub(crate) fn told(&self, node: NodeId, groups: impl Iterator<Item = (GroupId, u64)>) {
        let mut tables = self.tables.write();
        for (group, term) in groups {
            tables.learn(group, term, Some(node));
        }
    }

    /// Groups led here that were recorded after `sequence`, and the last sequence.
    pub(crate) fn led_since(&self, sequence: u64) -> (Vec<(GroupId, u64)>, u64) {
        let tables = self.tables.read();
        let groups = tables
            .led
            .iter()
            .filter(|(_, led)| led.sequence > sequence)
            .map(|(group, led)| (*group, led.term))
            .collect();
        (groups, tables.sequence)
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Wakes those who tell the peers although nothing changed.
    pub(crate) fn wake(&self) {
        self.changed.send_modify(|_| {});
    }

    /// The group is no longer on this node.
    pub(crate) fn left(&self, group: GroupId) {
        let _ = self.tables.write().led.remove(&group);
    }

    /// Forgets groups that no longer exist.
    pub(crate) fn retain(&self, exists: impl Fn(GroupId) -> bool) {
        let mut tables = self.tables.write();
        tables.known.retain(|group, _| exists(*group));
        tables.led.retain(|group, _| exists(*group));
    }
}

impl Tables {
    fn learn(&mut self, group: GroupId, term: u64, node: Option<NodeId>) {
        let newer = match self.known.get(&group) {
            None => true,
            Some(known) if known.term == term => known.node.is_none(),
            Some(known) => known.term < term,
        };
        if newer {
            let _ = self.known.insert(group, Known { term, node });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId(7);

    #[test]
    fn the_higher_term_wins() {
        let table = LeaderTable::new(NodeId(1));
        table.told(NodeId(2), [(GROUP, 4)].into_iter());
        table.told(NodeId(3), [(GROUP, 3)].into_iter());
        assert_eq!(table.leader(GROUP).unwrap().node, NodeId(2));
        table.observe(GROUP, 5, None);
        assert_eq!(table.leader(GROUP), None, "term 5 has no leader yet");
        table.observe(GROUP, 4, Some(NodeId(2)));
        assert_eq!(table.leader(GROUP), None, "an older leader is no leader");
        table.told(NodeId(3), [(GROUP, 5)].into_iter());
        let leader = Leader {
            node: NodeId(3),
            epoch: LeaderEpoch(5),
        };
        assert_eq!(table.leader(GROUP), Some(leader));
    }

    #[test]
    fn only_what_changed_is_told() {
        let table = LeaderTable::new(NodeId(1));
        table.observe(GROUP, 1, Some(NodeId(1)));
        let (first, sequence) = table.led_since(0);
        assert_eq!(first, [(GROUP, 1)]);
        table.observe(GROUP, 1, Some(NodeId(1)));
        assert_eq!(table.led_since(sequence), (vec![], sequence));
        table.observe(GroupId(8), 1, Some(NodeId(1)));
        assert_eq!(table.led_since(sequence).0, [(GroupId(8), 1)]);
        table.observe(GROUP, 2, Some(NodeId(2)));
        assert_eq!(
            table.led_since(0).0,
            [(GroupId(8), 1)],
            "no longer led here"
        );
    }
}
