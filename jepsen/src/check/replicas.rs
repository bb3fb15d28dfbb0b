//! P1, P2: all replicas hold the same bytes up to the high watermark.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checker, facts::Facts, finder::Finder};
use crate::history::{Key, Workload};

pub(super) const CHECKER: Checker = Checker {
    name: "replica-divergence",
    promise: "P2: the committed logs of all replicas are the same bytes",
    check,
    fed_by: &[Workload::Replicas],
};

/// What a replica answered, and the entry that shows it.
type Digests<'a> = BTreeMap<u64, (&'a str, u64)>;

fn check(facts: &Facts<'_>, finder: &mut Finder) {
    let mut compared: BTreeMap<(Key, i64, i64), Digests<'_>> = BTreeMap::new();
    for (op, replica) in &facts.replicas {
        if let (Some(digest), Some(end)) = (&replica.digest, op.completed) {
            let part = (replica.key, replica.start, replica.end);
            let digests = compared.entry(part).or_default();
            let _none = digests.insert(replica.node, (digest, end.index));
        }
    }
    for ((key, start, end), digests) in &compared {
        let different: BTreeSet<&str> = digests.values().map(|(digest, _)| *digest).collect();
        let ops = || digests.values().map(|(_, index)| *index).collect();
        finder.expect(different.len() == 1, || {
            let name = facts.name(*key);
            let by_node: BTreeMap<_, _> = digests.iter().map(|(node, (d, _))| (node, d)).collect();
            (format!("{name} from {start} to {end}: {by_node:?}"), ops())
        });
        finder.expect(digests.len() > 1, || {
            let name = facts.name(*key);
            (format!("{name}: only one replica could be compared"), ops())
        });
    }
    if !facts.header.workloads.contains(&Workload::Replicas) {
        return;
    }
    for (key, log) in facts.logs.iter().filter(|(_, log)| !log.finals.is_empty()) {
        let any = compared.keys().any(|(compared, ..)| compared == key);
        finder.expect(any, || {
            let ops = log.finals.iter().map(|last| last.polled.completed.index);
            let name = facts.name(*key);
            (
                format!("{name}: no replica could be compared"),
                ops.collect(),
            )
        });
    }
}
