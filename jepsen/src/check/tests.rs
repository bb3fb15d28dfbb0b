//! Each checker passes a good history and rejects every violation planted in it.

use std::time::Duration;

use super::check;
use crate::seen::{Append, Commit, CommitOutcome, Committed, History, Mark, Outcome, Read};

const BOUND: Duration = Duration::from_secs(10);

fn mark(producer: u32, number: u64) -> Mark {
    Mark { producer, number }
}

/// A member's acknowledged commit of partition 0, sent one millisecond before.
fn committed(member: u64, granted: u64, offset: i64, at: u64) -> Commit {
    Commit {
        member,
        granted,
        partition: 0,
        offset,
        outcome: CommitOutcome::Acknowledged,
        from: Duration::from_millis(at - 1),
        at: Duration::from_millis(at),
    }
}

fn saw(offset: Option<i64>, at: u64) -> Committed {
    Committed {
        partition: 0,
        offset,
        from: Duration::from_millis(at - 1),
        at: Duration::from_millis(at),
    }
}

fn good() -> History {
    let log = vec![
        (0, mark(1, 0)),
        (1, mark(1, 1)),
        (2, mark(2, 0)),
        (3, mark(1, 2)),
    ];
    let acked = |base_offset, records: &[Mark], expected_end| Append {
        partition: 0,
        records: records.to_vec(),
        outcome: Outcome::Acknowledged {
            base_offset,
            expected_end,
        },
        at: Duration::ZERO,
    };
    let ended = |records: &[Mark], outcome| Append {
        outcome,
        ..acked(0, records, None)
    };
    let read = |reader, node, records: &[(i64, Mark)], high_watermark| Read {
        reader,
        node,
        partition: 0,
        records: records.to_vec(),
        high_watermark,
        log_start: 0,
        at: Duration::ZERO,
    };
    History {
        appends: vec![
            acked(0, &[mark(1, 0), mark(1, 1)], None),
            acked(2, &[mark(2, 0)], Some(2)),
            ended(&[mark(1, 2)], Outcome::Unknown),
            ended(&[mark(1, 3)], Outcome::Unknown),
            ended(&[mark(2, 1)], Outcome::Refused),
        ],
        reads: vec![read(1, 1, &log[..2], 2), read(2, 2, &log[1..], 4)],
        finals: [(0, log)].into(),
        replicas: [(0, [(1, 7), (2, 7), (3, 7)].into())].into(),
        commits: vec![committed(1, 3, 2, 10), committed(2, 5, 4, 30)],
        committed: vec![saw(Some(2), 20), saw(Some(4), 40)],
        recovered_after: Some(Duration::from_secs(1)),
        ..History::default()
    }
}

/// The checkers that reject the history.
fn rejected(plant: impl FnOnce(&mut History)) -> Vec<&'static str> {
    let mut history = good();
    plant(&mut history);
    let findings = check(&history, BOUND);
    let broken = findings.iter().filter(|f| !f.holds());
    broken.map(|f| f.checker).collect()
}

#[test]
fn a_good_history_passes_and_everything_was_looked_at() {
    let findings = check(&good(), BOUND);
    for finding in findings {
        assert!(finding.holds(), "{finding}");
        let empty = finding.looked_at == 0;
        assert_eq!(empty, finding.checker == "nothing impossible", "{finding}");
    }
}

#[test]
fn a_lost_record_is_found() {
    let broken = rejected(|h| {
        let _lost = h.finals.get_mut(&0).unwrap().remove(2);
    });
    assert!(broken.contains(&"acknowledged, exactly once"), "{broken:?}");
    assert!(broken.contains(&"dense offsets"), "{broken:?}");
}

#[test]
fn a_lost_tail_is_found() {
    let broken = rejected(|h| {
        h.finals.get_mut(&0).unwrap().truncate(2);
        h.reads.truncate(1);
    });
    assert_eq!(broken, ["acknowledged, exactly once"]);
}

#[test]
fn a_repeated_record_is_found() {
    let broken = rejected(|h| h.finals.get_mut(&0).unwrap().push((4, mark(1, 2))));
    assert_eq!(
        broken,
        ["acknowledged, exactly once", "order of each producer"]
    );
}

#[test]
fn a_moved_record_is_found() {
    let broken = rejected(|h| {
        let log = h.finals.get_mut(&0).unwrap();
        (log[1].1, log[2].1) = (log[2].1, log[1].1);
        h.reads.clear();
    });
    assert_eq!(broken, ["acknowledged, exactly once"]);
}

#[test]
fn a_refused_or_foreign_record_is_found() {
    let refused = rejected(|h| h.finals.get_mut(&0).unwrap().push((4, mark(2, 1))));
    assert_eq!(refused, ["refused is absent"]);
    let foreign = rejected(|h| h.finals.get_mut(&0).unwrap().push((4, mark(9, 0))));
    assert_eq!(foreign, ["refused is absent"]);
}

#[test]
fn swapped_records_of_one_producer_are_found() {
    let broken = rejected(|h| {
        let _was = h.appends.remove(0);
        h.appends.push(Append {
            records: vec![mark(1, 0), mark(1, 1)],
            outcome: Outcome::Unknown,
            partition: 0,
            at: Duration::ZERO,
        });
        h.reads.clear();
        let log = h.finals.get_mut(&0).unwrap();
        (log[0].1, log[1].1) = (log[1].1, log[0].1);
    });
    assert_eq!(broken, ["order of each producer"]);
}

#[test]
fn a_broken_condition_is_found() {
    let broken = rejected(|h| {
        h.appends[1].outcome = Outcome::Acknowledged {
            base_offset: 2,
            expected_end: Some(1),
        };
    });
    assert_eq!(broken, ["conditional appends"]);
}

#[test]
fn readers_that_disagree_are_found() {
    let broken = rejected(|h| h.reads[0].records[1].1 = mark(1, 3));
    assert_eq!(broken, ["readers agree"]);
}

#[test]
fn serving_the_uncommitted_is_found() {
    let above = rejected(|h| h.reads[0].high_watermark = 1);
    assert_eq!(above, ["below the high watermark"]);
    let beyond = rejected(|h| h.reads[0].high_watermark = 5);
    assert_eq!(beyond, ["below the high watermark"]);
    let replaced = rejected(|h| h.reads[1].records.push((4, mark(1, 3))));
    assert_eq!(replaced, ["readers agree", "below the high watermark"]);
}

#[test]
fn what_was_removed_is_not_missed_and_a_start_that_goes_back_is_found() {
    let trimmed = |h: &mut History| {
        let _removed = h.finals.get_mut(&0).unwrap().drain(..2);
        let _none = h.starts.insert(0, 2);
    };
    assert_eq!(rejected(trimmed), [""; 0]);
    let early = rejected(|h| {
        trimmed(h);
        let _none = h.starts.insert(0, 1);
    });
    assert_eq!(
        early,
        [
            "acknowledged, exactly once",
            "dense offsets",
            "readers agree"
        ]
    );
    let back = rejected(|h| {
        trimmed(h);
        h.reads[0].log_start = 2;
        let again = Read {
            log_start: 1,
            ..h.reads[0].clone()
        };
        h.reads.push(again);
    });
    assert_eq!(back, ["log start grows"]);
    let forgotten = rejected(|h| h.reads[0].log_start = 1);
    assert_eq!(forgotten, ["log start grows"]);
}

#[test]
fn commits_that_are_lost_or_go_back_are_found() {
    let lost = rejected(|h| h.committed[1].offset = Some(2));
    assert_eq!(lost, ["commits stay"]);
    let forgotten = rejected(|h| h.committed[0].offset = None);
    assert_eq!(forgotten, ["commits stay"]);
    let unseen = rejected(|h| {
        h.commits[1].outcome = CommitOutcome::Unknown;
        h.committed.push(saw(Some(2), 50));
    });
    assert_eq!(unseen, ["commits stay"]);
    let back = rejected(|h| {
        h.commits.push(committed(3, 6, 3, 50));
    });
    assert_eq!(back, ["commits grow"]);
}

#[test]
fn commits_without_an_author_are_found() {
    let refused = rejected(|h| h.commits[1].outcome = CommitOutcome::Refused);
    assert_eq!(refused, ["commits have authors"]);
    let invented = rejected(|h| h.committed[1].offset = Some(9));
    assert_eq!(invented, ["commits have authors"]);
}

#[test]
fn a_commit_of_an_owner_of_old_is_found() {
    let fenced = rejected(|h| h.commits.push(committed(1, 3, 4, 50)));
    assert_eq!(fenced, ["one owner at a time"]);
    let granted_again = rejected(|h| h.commits.push(committed(1, 6, 4, 50)));
    assert_eq!(granted_again, [""; 0]);
    let at_once = rejected(|h| h.commits.push(committed(1, 3, 4, 30)));
    assert_eq!(at_once, [""; 0], "neither came first");
}

#[test]
fn replicas_that_differ_or_are_missing_are_found() {
    let differ = rejected(|h| {
        let _was = h.replicas.get_mut(&0).unwrap().insert(3, 8);
    });
    assert_eq!(differ, ["replicas identical"]);
    let missing = rejected(|h| h.replicas.clear());
    assert_eq!(missing, ["replicas identical"]);
}

#[test]
fn no_recovery_and_late_recovery_are_found() {
    assert_eq!(rejected(|h| h.recovered_after = None), ["recovery in time"]);
    let late = rejected(|h| h.recovered_after = Some(BOUND * 2));
    assert_eq!(late, ["recovery in time"]);
}

#[test]
fn an_impossible_answer_is_a_violation() {
    let broken = rejected(|h| h.impossible.push("out of order sequence".to_owned()));
    assert_eq!(broken, ["nothing impossible"]);
}

#[test]
fn marks_survive_a_round_trip() {
    let text = format!("{} padding", mark(3, 17));
    assert_eq!(Mark::parse(text.as_bytes()), Some(mark(3, 17)));
    assert_eq!(Mark::parse(b"x"), None);
    assert_eq!(Mark::parse(b"p1:x y"), None);
}
