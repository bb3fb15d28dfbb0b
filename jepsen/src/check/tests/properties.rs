//! Every property accepts correct histories of all kinds, and refuses each with a violation planted in it.

use std::collections::BTreeMap;

use proptest::{prelude::*, test_runner::Config};
use rand::{SeedableRng as _, rngs::StdRng};

use super::{model, planted::PLANTED};
use crate::history::History;

/// Entries of one history.
const ENTRIES: usize = 700;

proptest! {
    #![proptest_config(Config { cases: 32, failure_persistence: None, ..Config::default() })]

    #[test]
    fn correct_histories_are_accepted(seed in any::<u64>()) {
        let story = model::history(seed, ENTRIES);
        let verdict = story.verdict();
        prop_assert!(verdict.holds, "{verdict}");
        // They are histories, and survive being written.
        let mut text = Vec::new();
        story.0.write(&mut text).unwrap();
        let again = History::read("h", text.as_slice());
        prop_assert_eq!(again.map_err(|e| e.to_string()), Ok(story.0));
    }

    #[test]
    fn what_is_planted_is_found_by_the_property_that_it_breaks(seed in any::<u64>()) {
        let story = model::history(seed, ENTRIES);
        let mut rng = StdRng::seed_from_u64(seed);
        for (property, plant) in PLANTED {
            let mut broken = story.clone();
            if plant(&mut broken.0.ops, &mut rng) {
                let found = broken.broken();
                prop_assert!(found.iter().any(|name| name == property), "{property}: {found:?}");
            }
        }
    }
}

#[test]
fn something_can_be_planted_against_every_property() {
    let mut planted: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in 0..10 {
        let story = model::history(seed, ENTRIES);
        let mut rng = StdRng::seed_from_u64(seed);
        for (property, plant) in PLANTED {
            let count = planted.entry(property).or_default();
            *count += usize::from(plant(&mut story.clone().0.ops, &mut rng));
        }
    }
    assert!(planted.values().all(|count| *count > 2), "{planted:?}");
    // These two are made of what the model does not do.
    let all = super::super::CHECKERS.iter().map(|checker| checker.name);
    let apart = ["int-nonmonotonic-send", "unavailability"];
    let missing: Vec<_> = all
        .filter(|name| !planted.contains_key(name) && !apart.contains(name))
        .collect();
    assert_eq!(missing, [""; 0]);
}
