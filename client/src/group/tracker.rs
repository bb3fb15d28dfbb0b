//! What of one partition was handed to the application, and what of that came back.

use std::collections::BTreeMap;

/// The batches of one partition that are with the application.
///
/// Batches are handed on in order and come back in any order. Only the contiguous part that came
/// back may be committed:
///
/// ```text
///   start          released             position
///     | done | done |  out  | done | out  |
///                   ^ a commit says this
/// ```
///
/// A batch that is given up sets a barrier: nothing from it on is ever committed by this tracker.
#[derive(Debug)]
pub(super) struct Tracker {
    /// Where this tracker began.
    start: i64,
    /// Invariant: every record handed on below it came back; `start <= released <= position`.
    released: i64,
    /// The next record to hand on.
    position: i64,
    /// Batches above `released`, by their first offset. Neighbours that came back are one piece, so
    /// there are at most twice as many pieces as batches that are out.
    pieces: BTreeMap<i64, Piece>,
    /// Batches that have not come back.
    out: usize,
    barrier: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    end: i64,
    done: bool,
}

impl Tracker {
    pub(super) const fn new(start: i64) -> Self {
        Self {
            start,
            released: start,
            position: start,
            pieces: BTreeMap::new(),
            out: 0,
            barrier: None,
        }
    }

    /// The next record to hand on.
    pub(super) const fn position(&self) -> i64 {
        self.position
    }

    /// What may be committed: the offset after the last record of the contiguous part that came
    /// back. Nothing while nothing came back.
    pub(super) const fn released(&self) -> Option<i64> {
        if self.released > self.start {
            Some(self.released)
        } else {
            None
        }
    }

    /// Nothing is with the application.
    pub(super) const fn is_drained(&self) -> bool {
        self.out == 0
    }

    /// Takes note of a batch that the application gets. Offsets may be missing before it: then
    /// there were no records.
    pub(super) fn hand_on(&mut self, from: i64, to: i64) {
        debug_assert!(self.position <= from && from < to, "batches are in order");
        self.position = to;
        self.out += 1;
        if self.barrier.is_none() {
            let piece = Piece {
                end: to,
                done: false,
            };
            let _none = self.pieces.insert(from, piece);
        }
    }

    /// The batch that begins at `from` came back, processed up to `until`; below its end, the rest
    /// of it is given up.
    pub(super) fn finish(&mut self, from: i64, until: i64) {
        debug_assert!(self.out > 0, "a batch comes back once");
        self.out = self.out.saturating_sub(1);
        // Behind a barrier nothing is tracked.
        let Some(piece) = self.pieces.get_mut(&from) else {
            return;
        };
        let cut = (until < piece.end).then(|| until.max(from));
        piece.done = true;
        if let Some(cut) = cut {
            piece.end = cut;
            let _behind = self.pieces.split_off(&cut);
            self.barrier = Some(cut);
        }
        self.join(from);
        self.advance();
    }

    /// Makes one piece of a piece that is done and its neighbours that are.
    fn join(&mut self, from: i64) {
        let before = self.pieces.range(..from).next_back();
        let first = match before {
            Some((&at, piece)) if piece.done => at,
            _ => from,
        };
        let Some(mut end) = self.pieces.get(&from).map(|piece| piece.end) else {
            return;
        };
        let after = self.pieces.range(from + 1..).next();
        if let Some((&at, piece)) = after
            && piece.done
        {
            end = piece.end;
            let _joined = self.pieces.remove(&at);
        }
        if first != from {
            let _joined = self.pieces.remove(&from);
        }
        if let Some(piece) = self.pieces.get_mut(&first) {
            piece.end = end;
        }
    }

    fn advance(&mut self) {
        while let Some(entry) = self.pieces.first_entry() {
            if !entry.get().done {
                return;
            }
            self.released = entry.remove().end;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_contiguous_part_is_released() {
        let mut tracker = Tracker::new(10);
        for from in [10, 20, 30] {
            tracker.hand_on(from, from + 10);
        }
        assert_eq!((tracker.released(), tracker.position()), (None, 40));
        tracker.finish(20, 30);
        assert_eq!(tracker.released(), None);
        tracker.finish(10, 20);
        assert_eq!(tracker.released(), Some(30));
        assert!(!tracker.is_drained());
        tracker.finish(30, 40);
        assert_eq!(tracker.released(), Some(40));
        assert!(tracker.is_drained());
    }

    #[test]
    fn records_that_are_gone_do_not_hold_up_the_rest() {
        let mut tracker = Tracker::new(10);
        tracker.hand_on(25, 30);
        assert_eq!(tracker.released(), None, "a reset alone commits nothing");
        tracker.finish(25, 30);
        assert_eq!(tracker.released(), Some(30));
    }

    #[test]
    fn nothing_behind_a_batch_that_was_given_up_is_released() {
        let mut tracker = Tracker::new(0);
        for from in [0, 10, 20] {
            tracker.hand_on(from, from + 10);
        }
        tracker.finish(20, 30);
        tracker.finish(10, 13);
        assert_eq!(tracker.released(), None);
        tracker.finish(0, 10);
        assert_eq!(tracker.released(), Some(13));
        tracker.hand_on(30, 40);
        assert!(!tracker.is_drained());
        tracker.finish(30, 40);
        assert_eq!(tracker.released(), Some(13));
        assert!(tracker.is_drained() && tracker.pieces.is_empty());
    }

    proptest! {
        /// Against the plain rule: the released offset is the end of the longest run of batches
        /// from the first on that came back whole, plus what was processed of the next.
        #[test]
        fn any_order_of_coming_back(
            lengths in prop::collection::vec((1_i64..5, 0_i64..3), 1..40),
            order in prop::collection::vec(any::<u32>(), 40),
            given_up in prop::collection::vec(prop::option::weighted(0.05, 0_i64..5), 40),
        ) {
            let mut tracker = Tracker::new(7);
            let mut batches = Vec::new();
            let mut at = 7;
            for (length, gap) in lengths {
                tracker.hand_on(at + gap, at + gap + length);
                batches.push((at + gap, at + gap + length));
                at += gap + length;
            }
            let mut returns: Vec<_> = (0..batches.len()).collect();
            returns.sort_by_key(|&n| order[n]);
            let mut until = vec![None; batches.len()];
            for (count, n) in returns.into_iter().enumerate() {
                let (from, to) = batches[n];
                let done = given_up[n].map_or(to, |records| (from + records).min(to));
                until[n] = Some(done);
                tracker.finish(from, done);
                let mut expected = 7;
                for (done, &(from, to)) in until.iter().zip(&batches) {
                    let Some(done) = *done else { break };
                    if done > from {
                        expected = done;
                    }
                    if done < to {
                        break;
                    }
                }
                prop_assert_eq!(tracker.released(), (expected > 7).then_some(expected));
                let out = batches.len() - count - 1;
                prop_assert_eq!(tracker.is_drained(), out == 0);
                prop_assert!(tracker.pieces.len() <= 2 * out + 1);
            }
        }
    }
}
