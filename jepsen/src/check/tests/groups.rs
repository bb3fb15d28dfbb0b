//! What consumer groups are told.

use super::story::{Story, commit, given};
use crate::history::{Action, Kind, Poll};

/// Member 1 was granted the key in 3 and committed 2; then member 2 in 5, and 4.
fn good() -> Story {
    let mut story = Story::new();
    story.sent(9, &[1, 2, 3, 4], 0);
    story.committed(1, 3, 2);
    story.saw(8, Some(2));
    story.committed(2, 5, 4);
    story.saw(8, Some(4));
    story
}

#[test]
fn a_good_group_is_accepted() {
    assert_eq!(good().broken(), [""; 0]);
}

#[test]
fn commits_that_are_lost_are_found() {
    let mut forgotten = good();
    forgotten.saw(8, None);
    assert_eq!(forgotten.broken(), ["commit-lost"]);
    let mut back = good();
    back.saw(8, Some(2));
    assert_eq!(back.broken(), ["commit-lost"]);
    let mut unseen = Story::new();
    unseen.committed(1, 3, 2);
    let open = unseen.begin(1, None, commit(1, 3, 4));
    unseen.saw(8, Some(4));
    unseen.saw(8, Some(2));
    unseen.end(open, Kind::Info, commit(1, 3, 4));
    assert_eq!(unseen.broken(), ["commit-lost"], "somebody had seen 4");
}

#[test]
fn an_answer_that_was_under_way_may_be_the_old_one() {
    let mut story = Story::new();
    story.committed(1, 3, 2);
    let asked = crate::history::Committed {
        group: "g".to_owned(),
        offsets: [(0, Some(2))].into(),
    };
    let open = story.begin(8, None, Action::Committed(asked.clone()));
    story.committed(1, 3, 4);
    story.end(open, Kind::Ok, Action::Committed(asked));
    assert_eq!(story.broken(), [""; 0]);
}

#[test]
fn commits_without_an_author_are_found() {
    let mut invented = good();
    invented.saw(8, Some(9));
    assert_eq!(invented.broken(), ["commit-author"]);
    let mut refused = good();
    let open = refused.begin(3, None, commit(3, 6, 7));
    refused.end(open, Kind::Fail, commit(3, 6, 7));
    refused.saw(8, Some(7));
    assert_eq!(refused.broken(), ["commit-author"]);
}

#[test]
fn commits_that_go_back_are_found_unless_somebody_outside_said_so() {
    let mut back = good();
    back.committed(3, 6, 3);
    assert_eq!(back.broken(), ["commit-goes-back"]);
    let mut reset = good();
    let Action::Commit(mut from_outside) = commit(0, 0, 1) else {
        panic!("no commit");
    };
    from_outside.member.clear();
    from_outside.granted.clear();
    reset.did(7, None, Action::Commit(from_outside));
    reset.saw(8, Some(1));
    reset.committed(3, 6, 3);
    assert_eq!(reset.broken(), [""; 0]);
}

#[test]
fn the_first_offset_of_a_group_hides_nothing_that_follows() {
    let Action::Commit(mut first) = commit(0, 0, 1) else {
        panic!("no commit");
    };
    first.member.clear();
    first.granted.clear();
    let mut story = Story::new();
    story.did(7, None, Action::Commit(first.clone()));
    story.committed(3, 6, 5);
    assert_eq!(story.broken(), [""; 0]);
    story.committed(3, 6, 3);
    assert_eq!(story.broken(), ["commit-goes-back"]);
    // It may have come last where it had no answer in time.
    let mut late = Story::new();
    let open = late.begin(7, None, Action::Commit(first.clone()));
    late.committed(3, 6, 5);
    late.end(open, Kind::Ok, Action::Commit(first));
    late.committed(3, 6, 3);
    assert_eq!(late.broken(), [""; 0]);
}

#[test]
fn a_commit_of_an_owner_of_old_is_found() {
    let mut fenced = good();
    fenced.committed(1, 3, 4);
    assert_eq!(fenced.broken(), ["one-owner"]);
    let mut again = good();
    again.committed(1, 6, 4);
    assert_eq!(again.broken(), [""; 0], "granted again");
    let mut at_once = Story::new();
    let late = at_once.begin(1, None, commit(1, 3, 4));
    at_once.committed(2, 5, 4);
    at_once.end(late, Kind::Ok, commit(1, 3, 4));
    assert_eq!(at_once.broken(), [""; 0], "neither came first");
}

#[test]
fn a_key_that_two_members_process_is_found() {
    let mut story = good();
    story.given(1, 3, &[(0, 1), (1, 2)]);
    story.given(2, 5, &[(2, 3)]);
    story.given(2, 5, &[(3, 4)]);
    assert_eq!(story.broken(), [""; 0]);
    let mut shared = story.clone();
    shared.given(4, 5, &[(3, 4)]);
    assert_eq!(shared.broken(), ["processed-twice"]);
    let mut superseded = story.clone();
    superseded.given(1, 3, &[(2, 3)]);
    assert_eq!(superseded.broken(), ["processed-twice"]);
    let mut under_way = good();
    let open = under_way.begin(1, Some(1), Action::Poll(Poll::default()));
    under_way.given(2, 5, &[(0, 1)]);
    under_way.end(open, Kind::Ok, given(1, 3, &[(0, 1)]));
    assert_eq!(under_way.broken(), [""; 0], "it was asked for before");
}
