//! Promises to consumer groups.

use super::{Finder, Finding};
use crate::seen::{Commit, CommitOutcome, History};

fn acknowledged(history: &History) -> impl Iterator<Item = &Commit> {
    let stored = |commit: &&Commit| commit.outcome == CommitOutcome::Acknowledged;
    history.commits.iter().filter(stored)
}

/// A committed offset stays: whoever asks after a commit was acknowledged, or after somebody else saw
/// it, sees that offset or a later one.
pub(super) fn commits_stay(history: &History) -> Finding {
    let mut finder = Finder::new("commits stay");
    for answer in &history.committed {
        let (partition, seen) = (answer.partition, answer.offset);
        let before = acknowledged(history)
            .filter(|commit| commit.partition == partition && commit.at < answer.from);
        let least = before.map(|commit| commit.offset).max();
        finder.expect(seen >= least, || {
            format!(
                "partition {partition} at {:?}: {seen:?} is committed, {least:?} was acknowledged",
                answer.at
            )
        });
        let earlier = history.committed.iter();
        let earlier = earlier.filter(|e| e.partition == partition && e.at < answer.from);
        let least = earlier.filter_map(|e| e.offset).max();
        finder.expect(seen >= least, || {
            format!(
                "partition {partition} at {:?}: {seen:?} is committed, {least:?} was seen before",
                answer.at
            )
        });
    }
    finder.done()
}

/// Nothing is committed that nobody committed, or whose commit was refused for certain.
pub(super) fn commits_have_authors(history: &History) -> Finding {
    let mut finder = Finder::new("commits have authors");
    for answer in &history.committed {
        let Some(seen) = answer.offset else { continue };
        let wrote = |commit: &Commit| {
            commit.partition == answer.partition
                && commit.offset == seen
                && commit.from < answer.at
                && commit.outcome != CommitOutcome::Refused
        };
        finder.expect(history.commits.iter().any(wrote), || {
            let (partition, at) = (answer.partition, answer.at);
            format!("partition {partition} at {at:?}: nobody committed {seen}")
        });
    }
    finder.done()
}

/// A partition has one owner at a time: once a member has committed, a member that was granted the
/// partition before it commits nothing more.
pub(super) fn one_owner(history: &History) -> Finding {
    let mut finder = Finder::new("one owner at a time");
    for late in acknowledged(history) {
        let earlier = acknowledged(history).filter(|early| {
            early.partition == late.partition && early.member != late.member && early.at < late.from
        });
        for early in earlier {
            finder.expect(early.granted < late.granted, || {
                format!(
                    "partition {}: member {} (granted in {}) committed {} at {:?}, then member {} \
                     (granted in {}) committed {} at {:?}",
                    late.partition,
                    early.member,
                    early.granted,
                    early.offset,
                    early.at,
                    late.member,
                    late.granted,
                    late.offset,
                    late.at
                )
            });
        }
    }
    finder.done()
}

/// Commits of members never go back.
pub(super) fn commits_grow(history: &History) -> Finding {
    let mut finder = Finder::new("commits grow");
    for late in acknowledged(history) {
        let earlier = acknowledged(history)
            .filter(|early| early.partition == late.partition && early.at < late.from);
        let most = earlier.map(|early| early.offset).max();
        finder.expect(most.is_none_or(|most| most <= late.offset), || {
            format!(
                "partition {}: member {} committed {} at {:?}, {most:?} was committed before",
                late.partition, late.member, late.offset, late.at
            )
        });
    }
    finder.done()
}
