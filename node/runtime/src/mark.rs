//! Coverage marks: rare branches that a campaign of faults must enter, or it proves little about them.
//!
//! A branch says [`hit!`](crate::hit) with its name; [`MARKS`] lists all names, so that those that nothing
//! entered can be told. A name that is not in the list does not compile. In production a mark costs one
//! relaxed addition in a branch that is rare.

use std::sync::atomic::{AtomicU64, Ordering};

/// One branch.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// Its name: layer, part, what happened.
    pub name: &'static str,
    /// What it means to have been there.
    pub meaning: &'static str,
}

const fn mark(name: &'static str, meaning: &'static str) -> Mark {
    Mark { name, meaning }
}

/// Counts that the branch of this name was entered.
#[macro_export]
macro_rules! hit {
    ($name:literal) => {
        $crate::mark::count(const { $crate::mark::place_of($name) })
    };
}

/// Every branch, by name.
pub const MARKS: [Mark; 89] = [
    mark("broker.not-leader", "a client was sent to another node"),
    mark("broker.overloaded", "an append found no room in memory"),
    mark(
        "broker.topic-deleted",
        "a client meant a topic that was deleted",
    ),
    mark(
        "cluster.command.repeated",
        "a command to the controller was sent again",
    ),
    mark(
        "cluster.founding.resumed",
        "a founder went on founding after a restart",
    ),
    mark("cluster.joined", "a node joined a cluster that exists"),
    mark(
        "cluster.log.discarded",
        "a log was removed that the image gives to nobody",
    ),
    mark(
        "cluster.metadata.damaged",
        "the metadata log was found damaged at the start and is rebuilt",
    ),
    mark("cluster.move.cancelled", "a move was turned round"),
    mark("cluster.move.finished", "a move was finished"),
    mark(
        "cluster.move.handed-over",
        "a leader that goes handed over first",
    ),
    mark(
        "cluster.move.held-back",
        "a change of voters waits until as many are in sync as before",
    ),
    mark(
        "cluster.move.member-added",
        "a partition got another replica",
    ),
    mark(
        "cluster.move.member-removed",
        "a member that does not belong to a partition any more was removed",
    ),
    mark(
        "cluster.move.other",
        "the end of a move was heard of when the next one was under way",
    ),
    mark(
        "cluster.move.outdated",
        "a leader was about to move replicas by an image from before it was elected",
    ),
    mark("cluster.move.silent", "a new replica does not answer"),
    mark(
        "cluster.move.unconfirmed",
        "the end of a move was held back, as no majority confirmed that the replica leads",
    ),
    mark(
        "cluster.move.voters-changed",
        "the voters of a partition were changed",
    ),
    mark(
        "cluster.replica.damaged",
        "a replica was found damaged and is replaced",
    ),
    mark(
        "cluster.replica.rebuilt",
        "a new replica has received its log",
    ),
    mark(
        "cluster.replica.stopped",
        "a replica stopped after an error",
    ),
    mark(
        "consensus.append.answer-held",
        "an answer could be taken for one to a younger request",
    ),
    mark("consensus.append.refused", "a follower refused entries"),
    mark(
        "consensus.append.withheld",
        "entries were not sent because they are to be purged",
    ),
    mark(
        "consensus.catch-up.paced",
        "a follower that is behind was sent entries at a limited rate",
    ),
    mark(
        "consensus.compacted",
        "a log that is all state was compacted",
    ),
    mark(
        "consensus.conflict.truncated",
        "a follower cut what its leader does not have",
    ),
    mark("consensus.handover.done", "leadership was handed over"),
    mark(
        "consensus.handover.failed",
        "a member did not take leadership over",
    ),
    mark(
        "consensus.lane.broken",
        "a connection with requests under way ended",
    ),
    mark(
        "consensus.propose.discarded",
        "an entry under way was replaced by another leader's",
    ),
    mark(
        "consensus.propose.lease-expired",
        "a leader did not append because it had not heard of a majority",
    ),
    mark(
        "consensus.propose.void",
        "a batch was left out because one before it had been refused",
    ),
    mark(
        "consensus.read.purged",
        "entries were purged while a follower was to be sent them",
    ),
    mark(
        "consensus.receive.other-replica",
        "a message was for a replica that was replaced",
    ),
    mark(
        "consensus.snapshot.in-parts",
        "a boundary was sent in parts",
    ),
    mark(
        "consensus.snapshot.installed",
        "a boundary of the leader was installed",
    ),
    mark(
        "consensus.snapshot.known",
        "a snapshot was sent to a follower that had its entries",
    ),
    mark(
        "consensus.snapshot.overtaken",
        "a boundary was overtaken by a newer one",
    ),
    mark("consensus.vote.refused", "a vote was refused"),
    mark(
        "consensus.vote.waited",
        "a vote waited until the entries before it were durable",
    ),
    mark(
        "groups.commit.fenced",
        "a commit of what a member does not own was refused",
    ),
    mark(
        "groups.commit.went-back",
        "a commit behind the stored offset was refused",
    ),
    mark("groups.coordinator.moved", "a coordinator took over"),
    mark(
        "groups.member.replaced",
        "a member took the place of another instance",
    ),
    mark(
        "groups.session.expired",
        "a member was not heard of for its session timeout",
    ),
    mark(
        "groups.update.superseded",
        "a change of members met a newer generation",
    ),
    mark(
        "partition.append.abandoned",
        "an append went on without its caller",
    ),
    mark(
        "partition.append.disk-full",
        "an append was refused by a full disk",
    ),
    mark(
        "partition.append.drained",
        "an append waited until all others were answered",
    ),
    mark(
        "partition.append.duplicate",
        "a batch was found in the producer table",
    ),
    mark(
        "partition.append.gap",
        "a batch came before the one that precedes it",
    ),
    mark(
        "partition.append.in-flight",
        "a batch came again while the first one was on its way",
    ),
    mark(
        "partition.append.not-leader",
        "an append met a replica that leads no more",
    ),
    mark(
        "partition.append.refused",
        "a batch was refused for its sequence number",
    ),
    mark(
        "partition.append.wrong-end",
        "the log did not end where a producer expected",
    ),
    mark(
        "partition.boundary.installed",
        "a replica went on from a boundary",
    ),
    mark(
        "partition.boundary.moved",
        "a boundary was installed while an older state was made",
    ),
    mark(
        "partition.trim.beyond",
        "a log start beyond the end was refused",
    ),
    mark(
        "partition.unconfirmed",
        "a refusal was held back, as no majority confirmed that the replica leads",
    ),
    mark("storage.log.stopped", "a log stopped after an error"),
    mark("storage.meta.waits", "changes of metadata wait for room"),
    mark(
        "storage.progress.anew",
        "the progress file was damaged and made anew",
    ),
    mark(
        "storage.purge.restarted",
        "a log was emptied to go on behind a boundary",
    ),
    mark(
        "storage.recover.damaged-tail",
        "the end of a log was told from a torn tail: it is damaged",
    ),
    mark(
        "storage.recover.empty-segment",
        "a last segment without entries was removed",
    ),
    mark(
        "storage.recover.end-missing",
        "entries that were durable are missing at the end",
    ),
    mark(
        "storage.recover.index-rebuilt",
        "the index of a sealed segment was made anew from its frames",
    ),
    mark(
        "storage.recover.other-history",
        "segments of a log that had been begun anew were removed",
    ),
    mark(
        "storage.recover.purge-finished",
        "segments that a purge had left were removed",
    ),
    mark(
        "storage.recover.resumed",
        "recovery began where the resume file says",
    ),
    mark(
        "storage.recover.seal-unconfirmed",
        "the last segment was sealed and nothing called it durable",
    ),
    mark(
        "storage.recover.synced-again",
        "what a killed process had left in the page cache was synced",
    ),
    mark(
        "storage.recover.temporary-file",
        "a file that was half written was removed",
    ),
    mark(
        "storage.recover.torn-tail",
        "a torn tail was cut at the start",
    ),
    mark(
        "storage.recover.unfinished-segment",
        "a segment had been created and never written",
    ),
    mark(
        "storage.scrub.footer",
        "reading all files found a damaged footer",
    ),
    mark("storage.set-aside", "a damaged log was set aside"),
    mark("storage.truncate.files", "a truncation removed whole files"),
    mark("storage.truncate.inside", "a truncation cut a file"),
    mark(
        "storage.votes.compacted",
        "the journal of votes was rewritten",
    ),
    mark("storage.votes.damaged", "the journal of votes is damaged"),
    mark(
        "storage.votes.failed",
        "votes could not be written: none is any more",
    ),
    mark("storage.votes.gap-cut", "votes behind a gap were cut"),
    mark("storage.write.disk-full", "a write waits for room"),
    mark(
        "storage.write.retired",
        "a log was retired between write and sync",
    ),
    mark(
        "storage.write.rolled",
        "a segment was sealed and the next one begun",
    ),
    mark(
        "storage.write.segment-undone",
        "a segment could not be created and was taken back",
    ),
];

static COUNTS: [AtomicU64; MARKS.len()] = [const { AtomicU64::new(0) }; MARKS.len()];

/// Where a mark stands in [`MARKS`]; stops the compiler at a name that is not there.
#[doc(hidden)]
#[expect(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "it runs while compiling"
)]
pub const fn place_of(name: &str) -> usize {
    let mut place = 0;
    while place < MARKS.len() {
        if same(MARKS[place].name.as_bytes(), name.as_bytes()) {
            return place;
        }
        place += 1;
    }
    panic!("no mark has this name: add it to `seriatim_runtime::mark::MARKS`")
}

#[expect(clippy::indexing_slicing, reason = "it runs while compiling")]
const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Counts one visit.
#[doc(hidden)]
pub fn count(place: usize) {
    if let Some(count) = COUNTS.get(place) {
        let _before = count.fetch_add(1, Ordering::Relaxed);
    }
}

/// How often each branch was entered by this process, also those that never were.
pub fn visits() -> impl Iterator<Item = (&'static str, u64)> {
    let counts = COUNTS.iter().map(|count| count.load(Ordering::Relaxed));
    MARKS.iter().map(|mark| mark.name).zip(counts)
}

/// How often the branch of this name was entered, for the tests of rare branches. Panics where there is
/// none of that name.
pub fn visits_of(name: &str) -> u64 {
    let found = visits().find(|(known, _)| *known == name);
    found.expect("a mark").1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_unlike_each_other_and_counted() {
        assert!(MARKS.windows(2).all(|w| w[0].name < w[1].name));
        assert!(MARKS.iter().all(|mark| mark.meaning.len() > 10));
        let of = |name| visits().find(|(mark, _)| *mark == name).unwrap().1;
        let before = of("storage.set-aside");
        hit!("storage.set-aside");
        hit!("storage.set-aside");
        assert_eq!(of("storage.set-aside") - before, 2);
        assert_eq!(visits().count(), MARKS.len());
    }
}
