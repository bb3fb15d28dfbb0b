use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn setting(nodes: u64) -> Setting {
    Setting {
        nodes,
        partitions: 2,
        lasts: Duration::from_secs(20),
    }
}

#[test]
fn sim_every_kind_is_drawn_and_every_schedule_keeps_the_rules() {
    let (mut drawn, mut paces, mut births) = (BTreeMap::new(), BTreeSet::new(), 0);
    for seed in 0..600 {
        let nodes = 3 + seed % 3;
        let schedule = draw(seed, setting(nodes));
        schedule.check(nodes).unwrap();
        assert!(schedule.ends_ms() <= 20_000);
        births += u64::from(schedule.from_birth);
        let _new = paces.insert(schedule.theme.rsplit(", ").next().unwrap().to_owned());
        for strike in &schedule.strikes {
            *drawn.entry(strike.fault.kind()).or_insert(0) += 1;
        }
    }
    for kind in KINDS {
        assert!(drawn.get(kind.name).is_some_and(|n| *n > 30), "{drawn:?}");
    }
    assert_eq!(drawn.len(), KINDS.len(), "{drawn:?}");
    assert_eq!(paces.len(), PACES.len());
    assert!((40..120).contains(&births), "{births}");
}

#[test]
fn sim_a_kind_draws_what_its_name_says_and_themes_are_made_of_kinds() {
    let mut draw = Draw {
        rng: SmallRng::seed_from_u64(1),
        setting: setting(3),
        victim: 2,
    };
    for kind in KINDS {
        for _ in 0..50 {
            let fault = (kind.draw)(&mut draw);
            assert_eq!(fault.kind(), kind.name);
            fault.check().unwrap();
        }
    }
    for (theme, kinds) in THEMES {
        for name in kinds {
            assert!(
                KINDS.iter().any(|kind| kind.name == *name),
                "{theme}: {name}"
            );
        }
    }
}

#[test]
fn sim_a_seed_draws_the_same_again_whatever_was_drawn_elsewhere() {
    let first = draw(7, setting(3));
    seriatim_runtime::rng::seed(99);
    assert_eq!(draw(7, setting(3)), first);
    assert_ne!(draw(8, setting(3)), first);
}

#[test]
fn sim_every_shape_of_split_parts_somebody() {
    let (mut draw, mut shapes) = (
        Draw {
            rng: SmallRng::seed_from_u64(3),
            setting: setting(4),
            victim: 1,
        },
        BTreeSet::new(),
    );
    for _ in 0..200 {
        let Fault::Split { sides } = draw.split() else {
            unreachable!("a split")
        };
        let together = |a: u64, b: u64| sides.iter().any(|s| s.contains(&a) && s.contains(&b));
        let pairs = (1..=4).flat_map(|a| (1..=4).map(move |b| (a, b)));
        let parted = pairs.filter(|(a, b)| a < b && !together(*a, *b)).count();
        assert!(parted > 0, "{sides:?}");
        let mut sizes: Vec<usize> = sides.iter().map(Vec::len).collect();
        sizes.sort_unstable();
        let _new = shapes.insert(sizes);
    }
    let expected: [&[usize]; 4] = [&[1, 3], &[2, 2], &[2, 3], &[2, 2, 2, 2]];
    for shape in expected {
        assert!(shapes.contains(shape), "{shapes:?}");
    }
}
