//! Which appends of a stream are not answered yet, so that no answer counts for a younger one.
//!
//! openraft (0.10.0-alpha.37) dates an answer by the youngest request under way that ends where the answer
//! says that the logs match, and takes the follower's word that this replica leads as given at that date. A
//! request that only tells of a commit has no entries and ends where the one before it ends. An answer that
//! the network held up for seconds then confirms a leader as of just now, though another one has been elected
//! since; and what it serves is stale.
//!
//! So an answer is handed over only when it can be taken for no request but its own. One that could waits for the
//! answer to the younger request, which says all that it would have said.

use std::collections::VecDeque;

use parking_lot::Mutex;
use seriatim_runtime::hit;

use crate::raft::RaftLogId;

/// The ends of the requests of one stream that have no answer, in their order.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Mutex<VecDeque<Option<RaftLogId>>>);

impl UnderWay {
    /// A request goes out whose last entry, or the one before where it has none, is `end`.
    pub(crate) fn sent(&self, end: Option<RaftLogId>) {
        self.0.lock().push_back(end);
    }

    /// The oldest request is over, with the word that the logs match up to `matching` if it went well. Says
    /// whether that may be handed over.
    pub(crate) fn answered(&self, matching: Option<&Option<RaftLogId>>) -> bool {
        let mut ends = self.0.lock();
        let _own = ends.pop_front();
        let next = ends.front();
        let of_next = matching
            .zip(next)
            .is_some_and(|(matching, end)| end <= matching);
        if of_next {
            hit!("consensus.append.answer-held");
        }
        !of_next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64) -> Option<RaftLogId> {
        Some(RaftLogId::new(6.into(), index))
    }

    /// Seed 4922: a leader that was cut off sent the last entry, and 2.3 s later, as the first old answer came
    /// through, told of the commit; the second old answer confirmed it as of then.
    #[test]
    fn an_old_answer_does_not_stand_for_a_request_without_entries_behind_it() {
        let stream = UnderWay::default();
        stream.sent(at(552));
        stream.sent(at(552));
        assert!(!stream.answered(Some(&at(552))));
        assert!(stream.answered(Some(&at(552))));
    }

    #[test]
    fn answers_to_requests_with_entries_are_handed_over_at_once() {
        let stream = UnderWay::default();
        for end in [10, 20, 20, 20, 30] {
            stream.sent(at(end));
        }
        assert!(stream.answered(Some(&at(10))));
        assert!(!stream.answered(Some(&at(20))));
        // A failure is always told.
        assert!(stream.answered(None));
        // One that took only a part.
        assert!(stream.answered(Some(&at(15))));
        stream.sent(at(31));
        assert!(stream.answered(Some(&at(30))));
        assert!(stream.answered(Some(&at(31))));
    }

    #[test]
    fn an_empty_log_matches_nothing_that_has_entries() {
        let stream = UnderWay::default();
        stream.sent(None);
        stream.sent(None);
        stream.sent(at(1));
        assert!(!stream.answered(Some(&None)));
        assert!(stream.answered(Some(&None)));
        assert!(stream.answered(Some(&at(1))));
    }
}
