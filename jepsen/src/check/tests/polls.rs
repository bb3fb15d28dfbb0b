//! What consumers are told.

use super::{
    good,
    story::{Story, poll, read},
};
use crate::history::{Action, Kind, Poll, Read};

/// 1 to 6 in the log.
fn six() -> Story {
    let mut story = Story::new();
    story.sent(1, &[1, 2, 3, 4, 5, 6], 0);
    story
}

#[test]
fn an_answer_out_of_order_is_found() {
    let mut story = six();
    story.polled(2, &[(1, 2), (0, 1)], 6);
    assert_eq!(story.broken(), ["int-nonmonotonic-poll"]);
}

#[test]
fn an_answer_with_a_gap_is_found() {
    let mut story = six();
    story.polled(2, &[(0, 1), (2, 3)], 6);
    let broken = story.broken();
    assert_eq!(broken, ["lost-write", "int-poll-skip"], "nobody read 2");
}

#[test]
fn a_consumer_that_goes_back_or_skips_is_found() {
    let mut back = six();
    back.polled(2, &[(0, 1), (1, 2)], 6);
    back.polled(2, &[(1, 2), (2, 3)], 6);
    assert_eq!(back.broken(), ["nonmonotonic-poll"]);
    let mut skips = six();
    skips.polled(3, &[(0, 1), (1, 2), (2, 3)], 6);
    skips.polled(2, &[(0, 1)], 6);
    skips.polled(2, &[(2, 3)], 6);
    assert_eq!(skips.broken(), ["poll-skip"]);
}

#[test]
fn a_consumer_that_was_set_elsewhere_may_go_anywhere() {
    let sought = |records: &[(i64, i64)]| {
        let Action::Poll(poll) = poll(read(records, 6)) else {
            panic!("no poll");
        };
        Action::Poll(Poll {
            sought: true,
            ..poll
        })
    };
    let mut story = six();
    story.polled(2, &[(0, 1), (1, 2), (2, 3)], 6);
    let open = story.begin(2, Some(1), Action::Poll(Poll::default()));
    story.end(open, Kind::Ok, sought(&[(1, 2)]));
    assert_eq!(story.broken(), [""; 0]);
    story.did(2, None, Action::Assign(vec![]));
    story.did(2, None, Action::Assign(vec![0]));
    story.polled(2, &[(0, 1)], 6);
    assert_eq!(story.broken(), [""; 0], "let go and taken again");
    story.did(2, None, Action::Assign(vec![0]));
    story.polled(2, &[(0, 1)], 6);
    assert_eq!(story.broken(), ["nonmonotonic-poll"], "kept all the time");
}

#[test]
fn a_consumer_may_skip_what_was_removed() {
    let mut story = six();
    story.polled(3, &[(0, 1), (1, 2), (2, 3), (3, 4)], 6);
    story.polled(2, &[(0, 1)], 6);
    let trimmed = Read {
        log_start: Some(3),
        ..read(&[(3, 4)], 6)
    };
    story.read(2, 1, trimmed);
    assert_eq!(story.broken(), [""; 0]);
    story.polled(2, &[(5, 6)], 6);
    let broken = story.broken();
    assert!(broken.contains(&"poll-skip".to_owned()), "{broken:?}");
}

#[test]
fn an_answer_that_begins_elsewhere_than_it_was_asked_is_found() {
    let mut story = six();
    let from = |records: &[(i64, i64)]| {
        let Action::Poll(poll) = poll(read(records, 6)) else {
            panic!("no poll");
        };
        Action::Poll(Poll {
            from: [(0, 1)].into(),
            sought: true,
            ..poll
        })
    };
    let open = story.begin(2, Some(1), from(&[]));
    story.end(open, Kind::Ok, from(&[(1, 2)]));
    let held = story.broken();
    assert!(!held.contains(&"poll-skip".to_owned()), "{held:?}");
    let open = story.begin(3, Some(1), from(&[]));
    story.end(open, Kind::Ok, from(&[(2, 3)]));
    assert!(story.broken().contains(&"poll-skip".to_owned()));
}

#[test]
fn a_false_high_watermark_is_found() {
    let mut above = six();
    above.polled(2, &[(0, 1), (1, 2)], 1);
    assert!(above.broken().contains(&"stale-high-watermark".to_owned()));
    let mut beyond = good();
    beyond.polled(8, &[], 9);
    beyond.finally(0, &[1, 2, 3, 4]);
    assert_eq!(beyond.broken(), ["stale-high-watermark"]);
}

#[test]
fn a_node_that_takes_back_what_it_told_is_found() {
    let mut other = six();
    other.read(2, 2, read(&[], 0));
    assert_eq!(
        other.broken(),
        [""; 0],
        "a node that was cut off does not know it"
    );
    let mut acknowledged = six();
    acknowledged.read(2, 1, read(&[], 5));
    assert_eq!(acknowledged.broken(), ["stale-high-watermark"]);
    let mut named = six();
    named.read(2, 2, read(&[], 4));
    named.read(3, 2, read(&[], 3));
    assert_eq!(named.broken(), ["stale-high-watermark"]);
    let mut at_once = six();
    let early = at_once.begin(2, Some(2), Action::Poll(Poll::default()));
    at_once.read(3, 2, read(&[], 6));
    at_once.end(early, Kind::Ok, poll(read(&[], 3)));
    assert_eq!(at_once.broken(), [""; 0], "it was asked before");
}

#[test]
fn a_log_start_that_goes_back_is_found() {
    let named = |start| Read {
        log_start: Some(start),
        ..read(&[], 6)
    };
    let mut back = six();
    back.read(2, 1, named(2));
    back.read(3, 1, named(1));
    assert_eq!(back.broken(), ["log-start"]);
    let mut other = six();
    other.read(2, 1, named(2));
    other.read(3, 2, named(1));
    assert_eq!(
        other.broken(),
        [""; 0],
        "a node that was cut off does not know it"
    );
    let mut forgotten = six();
    forgotten.read(2, 1, named(2));
    forgotten.finally(0, &[1, 2, 3, 4, 5, 6]);
    assert_eq!(forgotten.broken(), ["log-start"]);
    let mut short = six();
    short.trimmed(2, 3, 2);
    assert_eq!(short.broken(), ["log-start"]);
}
