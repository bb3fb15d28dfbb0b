//! The mixes of faults that a campaign of live runs plays, one after the other.

use super::Kind;

/// Faults that a run has together.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// What it is called.
    pub name: &'static str,
    /// Nodes at the beginning.
    pub nodes: u64,
    /// What is broken; everything if this is empty.
    pub kinds: &'static [Kind],
}

impl Mix {
    /// Its kinds as `run --nemesis` takes them.
    pub fn list(&self) -> String {
        if self.kinds.is_empty() {
            return "all".to_owned();
        }
        let names: Vec<String> = self.kinds.iter().map(|kind| kind.name()).collect();
        names.join(",")
    }
}

const fn mix(name: &'static str, nodes: u64, kinds: &'static [Kind]) -> Mix {
    Mix { name, nodes, kinds }
}

/// Each kind with several others, in small clusters and in larger ones.
pub const MIXES: [Mix; 12] = [
    mix(
        "processes",
        3,
        &[Kind::Kill, Kind::Pause, Kind::Restart, Kind::Partition],
    ),
    mix("network", 5, &[Kind::Partition, Kind::Loss, Kind::Proxy]),
    mix("blackouts", 3, &[Kind::KillAll, Kind::PowerLoss]),
    mix(
        "power",
        5,
        &[Kind::PowerLoss, Kind::Partition, Kind::SlowDisk],
    ),
    mix("clocks", 3, &[Kind::Clock, Kind::Kill, Kind::Loss]),
    mix(
        "clients",
        3,
        &[Kind::Proxy, Kind::Restart, Kind::Pause, Kind::KillAll],
    ),
    mix(
        "room",
        3,
        &[Kind::FullDisk, Kind::SlowDisk, Kind::Kill, Kind::Partition],
    ),
    mix(
        "syncs",
        5,
        &[Kind::StuckDisk, Kind::FailingDisk, Kind::SlowDisk],
    ),
    mix("rot", 3, &[Kind::Rot, Kind::PowerLoss, Kind::Loss]),
    mix(
        "operator",
        3,
        &[Kind::Membership, Kind::Upgrade, Kind::Kill, Kind::Partition],
    ),
    mix("all-of-three", 3, &[]),
    mix("all-of-five", 5, &[]),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::ValueEnum as _;

    use super::*;
    use crate::live::schedule::parse;

    #[test]
    fn every_kind_is_in_mixes_of_some_and_no_two_are_alike() {
        let (mut names, mut lists) = (BTreeSet::new(), BTreeSet::new());
        for mix in MIXES {
            assert!(names.insert(mix.name), "{}", mix.name);
            assert!(lists.insert((mix.nodes, mix.list())), "{}", mix.name);
            let listed = parse(&mix.list()).unwrap();
            let mut kinds = mix.kinds.to_vec();
            kinds.sort_unstable();
            let all = Kind::value_variants();
            let expected = if kinds.is_empty() { all } else { &kinds };
            assert_eq!(listed, expected);
        }
        for kind in Kind::value_variants() {
            let some = MIXES.iter().filter(|mix| mix.kinds.contains(kind));
            assert!(some.count() > 0, "{kind:?} is only where everything is");
        }
    }
}
