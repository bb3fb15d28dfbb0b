//! Each property accepts what it must and refuses what it must.

mod groups;
mod logs;
mod model;
mod planted;
mod polls;
mod properties;
mod registers;
mod story;
mod whole;

use story::Story;

/// A short history that keeps every promise: 1 to 4 in the log, 5 unknown, 6 refused.
fn good() -> Story {
    let mut story = Story::new();
    story.sent(1, &[1, 2], 0);
    story.polled(2, &[(0, 1), (1, 2)], 2);
    story.sent(1, &[3], 2);
    story.refused(3, &[6]);
    story.unanswered(4, &[4]);
    story.unanswered(5, &[5]);
    story.polled(2, &[(2, 3), (3, 4)], 4);
    story
}

#[test]
fn a_good_history_is_accepted() {
    let mut story = good();
    story.finally(0, &[1, 2, 3, 4]);
    assert_eq!(story.broken(), [""; 0]);
    assert_eq!(
        good().broken(),
        [""; 0],
        "nor is one without a final read refused"
    );
}
