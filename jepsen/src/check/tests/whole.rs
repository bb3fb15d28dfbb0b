//! What must be true of the whole cluster, and what a verdict is.

use super::{good, story::Story};
use crate::history::{Action, Fault, FaultPhase, Kind, Workload};

#[test]
fn replicas_that_differ_or_are_missing_are_found() {
    let mut same = good();
    for node in 1..=3 {
        same.replica(node, "7");
    }
    assert_eq!(same.broken(), [""; 0]);
    let mut differ = same.clone();
    differ.replica(2, "8");
    assert_eq!(differ.broken(), ["replica-divergence"]);
    let mut alone = good();
    alone.replica(1, "7");
    assert_eq!(alone.broken(), ["replica-divergence"]);
    let mut missing = good();
    missing.finally(0, &[1, 2, 3, 4]);
    let _new = missing.0.header.workloads.insert(Workload::Replicas);
    assert_eq!(missing.broken(), ["replica-divergence"]);
}

#[test]
fn no_recovery_and_late_recovery_are_found() {
    let recovering = |waits: usize, ends: bool| {
        let mut story = good();
        let open = story.begin(7, None, Action::Recover);
        for _ in 0..waits {
            story.saw(8, None);
        }
        if ends {
            story.end(open, Kind::Ok, Action::Recover);
        }
        story
    };
    assert_eq!(recovering(49, true).broken(), [""; 0]);
    assert_eq!(recovering(50, true).broken(), ["recovery"]);
    assert_eq!(recovering(1, false).broken(), ["recovery"]);
    let verdict = recovering(2, true).verdict();
    let figures = &verdict.finding("recovery").unwrap().figures;
    assert_eq!(figures.get("recovered_seconds"), Some(&5.0));
}

fn kill(phase: FaultPhase) -> Action {
    Action::Fault(Fault {
        id: 0,
        what: "kill".to_owned(),
        detail: "n1".to_owned(),
        phase,
    })
}

#[test]
fn a_key_without_acknowledgements_is_found_once_the_faults_are_over() {
    let waiting = |phase| {
        let mut story = good();
        story.fault(kill(FaultPhase::Begin));
        let open = story.sending(1, &[10]);
        for _ in 0..60 {
            story.saw(8, None);
        }
        story.fault(kill(phase));
        story.acknowledge(open, 4);
        story
    };
    let verdict = waiting(FaultPhase::End).verdict();
    let found = verdict.finding("unavailability").unwrap();
    assert!(found.holds, "the fault lasted until then");
    assert_eq!(found.figures.get("longest_seconds events-0"), Some(&122.0));
    assert_eq!(waiting(FaultPhase::Begin).broken(), ["unavailability"]);
}

#[test]
fn nobody_is_kept_waiting_where_nobody_asks() {
    let mut story = good();
    for _ in 0..60 {
        story.saw(8, None);
    }
    story.sent(1, &[10], 4);
    assert_eq!(story.broken(), [""; 0]);
}

#[test]
fn an_impossible_answer_is_a_violation() {
    let mut story = good();
    story.fault(Action::Impossible("out of order sequence".to_owned()));
    assert_eq!(story.broken(), ["impossible"]);
}

#[test]
fn a_check_that_looked_at_nothing_fails_if_it_should_have() {
    let mut story = Story::new();
    assert_eq!(story.broken(), [""; 0], "nobody said what ran");
    story.0.header.workloads = [Workload::Append, Workload::Recover].into();
    let broken = story.broken();
    let expected = [
        "lost-write",
        "duplicate",
        "inconsistent-offset",
        "nonmonotonic-send",
        "real-time-order",
        "recovery",
        "unavailability",
    ];
    assert_eq!(broken, expected);
}

#[test]
fn a_verdict_survives_json_and_prints_what_is_wrong() {
    let mut story = good();
    story.finally(0, &[1, 2, 3, 4, 6]);
    let verdict = story.verdict();
    let json = serde_json::to_string(&verdict).unwrap();
    let again: crate::check::Verdict = serde_json::from_str(&json).unwrap();
    assert_eq!(again, verdict);
    let text = verdict.to_string();
    assert!(text.contains("refused-absent"), "{text}");
    assert!(text.contains("served 6 at events-0@4"), "{text}");
    assert!(text.ends_with("1 property was violated"), "{text}");
    assert_eq!(verdict.totals.acknowledged, 3);
}
