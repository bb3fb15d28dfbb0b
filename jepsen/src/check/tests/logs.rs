//! What is in the log, and in which order.

use super::{
    good,
    story::{Story, send},
};
use crate::history::{Action, Kind, Workload};

#[test]
fn a_lost_record_is_found() {
    let mut story = good();
    story.finally(0, &[1, 2]);
    assert_eq!(story.broken(), ["lost-write", "stale-high-watermark"]);
    let mut replaced = good();
    replaced.finally(0, &[1, 2, 4]);
    let broken = replaced.broken();
    assert!(broken.contains(&"lost-write".to_owned()), "{broken:?}");
    assert!(
        broken.contains(&"inconsistent-offset".to_owned()),
        "{broken:?}"
    );
}

#[test]
fn what_was_acknowledged_while_the_final_read_was_under_way_need_not_be_in_it() {
    let mut story = good();
    let late = story.sending(1, &[7]);
    story.finally(0, &[1, 2, 3, 4]);
    story.acknowledge(late, 4);
    assert_eq!(story.broken(), [""; 0]);
}

#[test]
fn without_a_final_read_a_value_is_lost_if_somebody_read_beyond_it() {
    let mut story = Story::new();
    story.sent(1, &[1, 2], 0);
    story.sent(1, &[3], 2);
    story.polled(2, &[(0, 1), (1, 2)], 3);
    assert_eq!(story.broken(), [""; 0], "nobody read beyond it");
    let mut beyond = Story::new();
    beyond.sent(1, &[1, 2], 0);
    beyond.sent(1, &[3], 2);
    beyond.polled(2, &[(2, 3)], 3);
    assert_eq!(beyond.broken(), ["lost-write"]);
    beyond.trimmed(5, 2, 2);
    assert_eq!(beyond.broken(), [""; 0], "it was removed");
}

#[test]
fn what_was_removed_is_not_missed() {
    let mut story = good();
    story.trimmed(7, 2, 2);
    story.finally(2, &[3, 4]);
    assert_eq!(story.broken(), [""; 0]);
    let mut early = good();
    early.finally(1, &[3, 4]);
    let broken = early.broken();
    assert!(broken.contains(&"lost-write".to_owned()), "{broken:?}");
}

#[test]
fn what_was_refused_or_never_sent_is_found_where_it_is_read() {
    let mut refused = good();
    refused.polled(8, &[(4, 6)], 5);
    assert_eq!(refused.broken(), ["aborted-read"]);
    let mut foreign = good();
    foreign.polled(8, &[(4, 77)], 5);
    assert_eq!(foreign.broken(), ["aborted-read"]);
    let mut last = good();
    last.finally(0, &[1, 2, 3, 4, 6]);
    assert_eq!(last.broken(), ["refused-absent"]);
    let mut early = good();
    early.polled(8, &[(4, 7)], 5);
    early.unanswered(9, &[7]);
    assert!(early.broken().contains(&"aborted-read".to_owned()));
}

#[test]
fn a_value_at_two_offsets_is_found() {
    let mut story = good();
    story.finally(0, &[1, 2, 3, 4, 4]);
    assert_eq!(story.broken(), ["duplicate"]);
}

#[test]
fn two_values_at_one_offset_are_found() {
    let mut story = good();
    story.polled(8, &[(3, 5)], 4);
    assert_eq!(story.broken(), ["inconsistent-offset"]);
}

#[test]
fn a_gap_in_the_final_log_is_found() {
    let mut story = Story::new();
    story.sent(1, &[1], 0);
    story.sent(1, &[2], 2);
    let mut last = story.clone();
    last.finally(0, &[1, 2]);
    assert!(last.broken().contains(&"lost-write".to_owned()));
    let Story(history) = &mut story;
    let _same = history.header.workloads.insert(Workload::Final);
    assert_eq!(
        story.broken(),
        [
            "refused-absent",
            "dense-offsets",
            "int-nonmonotonic-poll",
            "int-poll-skip"
        ]
    );
}

#[test]
fn the_values_of_a_batch_stand_side_by_side() {
    let mut story = Story::new();
    let batch = story.sending(1, &[1, 2]);
    story.sent(2, &[3], 1);
    let action = Action::Send(send(&[1, 2]));
    story.end(batch, Kind::Info, action);
    story.polled(3, &[(0, 1), (1, 3), (2, 2)], 3);
    assert_eq!(story.broken(), ["int-nonmonotonic-send"]);
}

#[test]
fn sends_of_a_process_that_change_places_are_found() {
    let mut story = Story::new();
    story.sent(1, &[1], 1);
    story.sent(1, &[2], 0);
    assert_eq!(story.broken(), ["nonmonotonic-send", "real-time-order"]);
    let mut apart = Story::new();
    apart.sent(1, &[1], 1);
    apart.sent(2, &[2], 0);
    assert_eq!(apart.broken(), ["real-time-order"]);
    let mut at_once = Story::new();
    let first = at_once.sending(1, &[1]);
    at_once.sent(2, &[2], 0);
    at_once.acknowledge(first, 1);
    assert_eq!(at_once.broken(), [""; 0]);
}

#[test]
fn a_session_out_of_order_is_found() {
    let mut story = Story::new();
    let session = |value| {
        Action::Send(crate::history::Send {
            producer: Some(7),
            ..send(&[value])
        })
    };
    let first = story.begin(1, None, session(1));
    let second = story.begin(2, None, session(2));
    story.end(first, Kind::Info, session(1));
    story.acknowledge(second, 0);
    story.polled(3, &[(0, 2)], 1);
    assert_eq!(story.broken(), [""; 0], "the first may be lost");
    story.polled(3, &[(1, 1)], 2);
    assert_eq!(story.broken(), ["producer-order"]);
}

#[test]
fn an_append_on_condition_elsewhere_is_found() {
    let conditional = |offset, found_end| {
        Action::Send(crate::history::Send {
            expected_end: Some(3),
            offset,
            found_end,
            ..send(&[9])
        })
    };
    let ended = |kind, action: Action| {
        let mut story = Story::new();
        story.sent(1, &[1, 2, 3], 0);
        let open = story.begin(2, None, conditional(None, None));
        story.end(open, kind, action);
        story
    };
    let good = ended(Kind::Ok, conditional(Some(3), None));
    assert_eq!(good.broken(), [""; 0]);
    let elsewhere = ended(Kind::Ok, conditional(Some(4), None));
    assert_eq!(elsewhere.broken(), ["conditional-append"]);
    let refused = ended(Kind::Fail, conditional(None, Some(3)));
    assert_eq!(refused.broken(), ["conditional-append"]);
    let outgrown = ended(Kind::Fail, conditional(None, Some(4)));
    assert_eq!(outgrown.broken(), [""; 0]);
    // The log reached 3 before the send.
    let outdated = ended(Kind::Fail, conditional(None, Some(2)));
    assert_eq!(outdated.broken(), ["conditional-append"]);
}

#[test]
fn a_value_of_two_sends_makes_a_history_worthless() {
    let mut story = good();
    story.unanswered(8, &[1]);
    assert!(story.broken().contains(&"impossible".to_owned()));
}
