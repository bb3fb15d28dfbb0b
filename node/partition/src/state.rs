//! What a partition's log amounts to at one entry: a pure function of the entries up to it.

use bytes::Bytes;
use seriatim_consensus::{AppliedEntry, AppliedPayload, AppliedState, Reply, SmError, Snapshot};
use seriatim_proto::ids::Offset;
use seriatim_runtime::{
    hit,
    mutant::{self, Mutant},
};
use seriatim_storage::{Boundary, LogId};

use crate::{
    command::{Command, LogStart, Outcome},
    producer_table::ProducerTable,
    table_codec::{Checkpoint, DecodeError, decode_snapshot, encode_snapshot},
};

/// What applying the log leads to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The last entry applied.
    pub(crate) applied: Option<LogId>,
    /// The last membership applied; opaque.
    pub(crate) membership: Option<Bytes>,
    /// End of the applied batches. Invariant: never goes down, and equals the base offset of the next
    /// batch that is applied.
    pub(crate) high_watermark: Offset,
    /// Where records begin. Invariant: at or below the high watermark.
    pub(crate) log_start: LogStart,
    pub(crate) table: ProducerTable,
}

impl State {
    /// As a boundary says.
    pub(crate) fn of_boundary(boundary: Boundary) -> Result<Self, DecodeError> {
        let (log_start, table) = decode_snapshot(boundary.state)?;
        Ok(Self {
            applied: Some(boundary.log_id),
            membership: Some(boundary.membership).filter(|bytes| !bytes.is_empty()),
            high_watermark: boundary.next_offset,
            log_start,
            table,
        })
    }

    /// As a checkpoint at an entry says.
    pub(crate) fn of_checkpoint(at: LogId, bytes: Bytes) -> Result<Self, DecodeError> {
        let checkpoint = Checkpoint::decode(bytes)?;
        Ok(Self {
            applied: Some(at),
            membership: checkpoint.membership,
            high_watermark: checkpoint.next_offset,
            log_start: checkpoint.log_start,
            table: checkpoint.table,
        })
    }

    /// As a snapshot of another replica says.
    pub(crate) fn of_snapshot(snapshot: Snapshot) -> Result<Self, DecodeError> {
        let (log_start, table) = decode_snapshot(snapshot.data)?;
        Ok(Self {
            applied: snapshot.state.log_id,
            membership: snapshot.state.membership,
            high_watermark: snapshot.next_offset,
            log_start,
            table,
        })
    }

    pub(crate) fn to_snapshot(&self) -> Snapshot {
        let none = ProducerTable::default();
        let table = if mutant::on(Mutant::ProducersLostInBoundary) {
            &none
        } else {
            &self.table
        };
        Snapshot {
            state: self.applied_state(),
            next_offset: self.high_watermark,
            data: encode_snapshot(&self.log_start, table),
        }
    }

    pub(crate) fn applied_state(&self) -> AppliedState {
        AppliedState {
            log_id: self.applied,
            membership: self.membership.clone(),
        }
    }

    /// Index of the next entry to apply.
    pub(crate) fn next_index(&self) -> u64 {
        self.applied.map_or(0, |applied| applied.index + 1)
    }

    /// Applies the next entry.
    pub(crate) fn apply(&mut self, entry: AppliedEntry) -> Result<Reply, SmError> {
        let reply = match entry.payload {
            AppliedPayload::Batch(header) => {
                if entry.base_offset != self.high_watermark {
                    return Err(SmError::new(format!(
                        "entry {} has base offset {}, but the entries before it end at {}",
                        entry.log_id, entry.base_offset, self.high_watermark
                    )));
                }
                self.table
                    .apply(entry.log_id.index, entry.base_offset, &header);
                self.high_watermark = Offset(entry.base_offset.0 + i64::from(header.record_count));
                Reply::Batch {
                    base_offset: entry.base_offset,
                }
            }
            AppliedPayload::Membership(membership) => {
                self.membership = Some(membership);
                Reply::None
            }
            AppliedPayload::Command(bytes) => {
                let command = Command::decode(bytes).map_err(|error| {
                    SmError::new(format!(
                        "entry {} is a command that cannot be applied: {error}",
                        entry.log_id
                    ))
                })?;
                let Command::LogStart(start) = command;
                Reply::Command(self.begin_at(&start, entry.log_id).encode())
            }
            AppliedPayload::Blank => Reply::None,
        };
        self.applied = Some(entry.log_id);
        Ok(reply)
    }

    /// Moves the start of the records, never back.
    fn begin_at(&mut self, start: &LogStart, entry: LogId) -> Outcome {
        if start.offset > self.high_watermark {
            hit!("partition.trim.beyond");
            return Outcome::Beyond(self.high_watermark);
        }
        let own = &mut self.log_start;
        own.offset = own.offset.max(start.offset);
        // No proposer names an entry behind its command; were it so, every replica would pass over it.
        let upto = start.upto.filter(|upto| upto.index < entry.index);
        own.upto = own.upto.max(upto);
        Outcome::Start(own.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::header;

    fn entry(index: u64, base: i64, payload: AppliedPayload) -> AppliedEntry {
        AppliedEntry {
            log_id: LogId { term: 1, index },
            base_offset: Offset(base),
            payload,
        }
    }

    fn log_start(offset: i64, upto: Option<u64>) -> AppliedPayload {
        let upto = upto.map(|index| LogId { term: 1, index });
        let offset = Offset(offset);
        AppliedPayload::Command(Command::LogStart(LogStart { offset, upto }).encode())
    }

    fn outcome(state: &mut State, entry: AppliedEntry) -> Outcome {
        match state.apply(entry).unwrap() {
            Reply::Command(bytes) => Outcome::decode(bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn ten_batches() -> State {
        let mut state = State::default();
        for (index, base) in (0..10).zip(0..) {
            let batch = header(7, 0, i32::try_from(index).unwrap(), 1);
            let applied = state.apply(entry(index, base, AppliedPayload::Batch(batch)));
            assert!(applied.is_ok());
        }
        state
    }

    #[test]
    fn the_log_start_never_goes_back_nor_beyond_the_end() {
        let mut state = ten_batches();
        let moved = outcome(&mut state, entry(10, 10, log_start(5, Some(4))));
        assert_eq!(moved, Outcome::Start(Offset(5)));
        let back = outcome(&mut state, entry(11, 10, log_start(3, Some(2))));
        assert_eq!(back, Outcome::Start(Offset(5)));
        let beyond = outcome(&mut state, entry(12, 10, log_start(11, Some(9))));
        assert_eq!(beyond, Outcome::Beyond(Offset(10)));
        // An entry that is not before the command is not dropped for it.
        let wrong = outcome(&mut state, entry(13, 10, log_start(6, Some(13))));
        assert_eq!(wrong, Outcome::Start(Offset(6)));
        assert_eq!(state.log_start.upto, Some(LogId { term: 1, index: 4 }));
    }

    #[test]
    fn a_snapshot_holds_all_of_it() {
        let mut state = ten_batches();
        let _moved = outcome(&mut state, entry(10, 10, log_start(5, Some(4))));
        assert_eq!(State::of_snapshot(state.to_snapshot()), Ok(state));
    }

    #[test]
    fn commands_that_are_not_known_stop_the_replica() {
        let mut state = ten_batches();
        let unknown = AppliedPayload::Command(Bytes::from_static(&[1, 200]));
        let error = state.apply(entry(10, 10, unknown)).unwrap_err();
        assert!(error.to_string().contains("upgrade this node"), "{error}");
        assert_eq!(state, ten_batches());
    }
}
