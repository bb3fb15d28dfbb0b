//! Whole clusters in simulation, and proof that the simulation finds bugs.

use std::time::Duration;

use seriatim_jepsen::sim::{
    fault::{Fault, Who},
    run::{Options, Verdict, run},
    schedule::{Schedule, Strike},
};

/// Virtual time in which faults begin: short, so that twenty seeds fit in a test run.
const SECONDS: u64 = 8;

fn options() -> Options {
    Options {
        faults_for: Duration::from_secs(SECONDS),
        ..Options::default()
    }
}

/// Runs a seed and fails with what was violated and the command that replays it.
fn hold(seed: u64) -> Verdict {
    let verdict = run(seed, &options().of_seed(seed), None).expect("build the executors");
    assert!(
        verdict.holds(),
        "seed {seed}; replay: cargo run -p seriatim-jepsen -- run --sim --seconds {SECONDS} --seeds {seed}..{}\n{}",
        seed + 1,
        verdict.verdict
    );
    assert!(
        verdict.verdict.totals.acknowledged > 50,
        "seed {seed} did next to nothing"
    );
    verdict
}

/// Holds all of them, and looks whether the group got on: under some faults it hardly can.
fn hold_all(seeds: std::ops::Range<u64>) {
    let committed: u64 = seeds.map(|seed| hold(seed).verdict.totals.committed).sum();
    assert!(committed > 100, "the group committed {committed} times");
}

#[test]
fn sim_seeds_0_to_9_keep_every_promise() {
    hold_all(0..10);
}

#[test]
fn sim_seeds_10_to_19_keep_every_promise() {
    hold_all(10..20);
}

/// One fault every two seconds.
fn over_and_over(fault: &Fault) -> Schedule {
    let strikes = (0..SECONDS / 2).map(|at| Strike {
        at_ms: 1000 + at * 2000,
        lasts_ms: 500,
        fault: fault.clone(),
    });
    Schedule {
        strikes: strikes.collect(),
        ..Schedule::default()
    }
}

/// The names of the checkers that seeds up to `most` violate, until one of them is `wanted`.
fn caught(options: &Options, most: u64, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let mut caught = Vec::new();
    for seed in 0..most {
        let verdict = run(seed, options, None).expect("build the executors");
        caught.extend(verdict.verdict.broken().map(|f| f.name.clone()));
        if caught.iter().any(|name| wanted(name)) {
            break;
        }
    }
    caught
}

#[test]
fn sim_catches_disks_that_lie_about_syncs() {
    let options = Options {
        lying_disks: true,
        schedule: Some(over_and_over(&Fault::PowerLoss {
            who: Who::All,
            after_ops: 0,
        })),
        ..options()
    };
    let broken = caught(&options, 3, |_any| true);
    assert!(!broken.is_empty(), "no seed noticed that syncs do nothing");
}

#[test]
fn sim_catches_producer_sessions_that_are_ignored() {
    let options = Options {
        forgets_producers: true,
        schedule: Some(over_and_over(&Fault::Kill { who: Who::All })),
        ..options()
    };
    let broken = caught(&options, 25, |name| name == "duplicate");
    assert!(
        broken.iter().any(|name| name == "duplicate"),
        "no seed noticed that retries are stored twice: {broken:?}"
    );
}
