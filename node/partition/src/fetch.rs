//! Reading: records up to the high watermark, and offsets.

use bytes::Bytes;
use seriatim_proto::{
    batch::{BatchHeader, HEADER_BYTES, RecordBatch},
    ids::{LeaderEpoch, Offset},
    record::decode_records,
};
use seriatim_runtime::{clock::Instant, task};

use crate::{
    confirm::Unconfirmed,
    error::FetchError,
    partition::{Partition, epoch},
};

/// Which records to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// The first record.
    pub offset: Offset,
    /// How much to read; the first batch is read even if it is larger, unless this is 0.
    pub max_bytes: usize,
    /// How long to wait for a majority where there is no such record, as far as this replica knows.
    pub deadline: Instant,
}

/// Records, as they are stored.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Whole batches; a batch may be two pieces, so pieces concatenate to batches. The first batch may
    /// begin before the offset that was asked for. Empty at the high watermark.
    pub batches: Vec<Bytes>,
    /// Size of all pieces.
    pub bytes: usize,
    /// End of what may be read. All below it is committed and never changes.
    pub high_watermark: Offset,
    /// The first offset there is.
    pub log_start_offset: Offset,
}

/// Which offset is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The first offset there is.
    Start,
    /// The high watermark.
    End,
    /// The first record whose timestamp is at or after this time, in ms since the Unix epoch; the
    /// high watermark if there is none.
    Time(i64),
}

impl Partition {
    /// Reads records of this partition, of which this replica must be the leader.
    ///
    /// A leader that was cut off from the majority and does not know it yet still answers, with
    /// records that are committed and therefore right for ever; only the high watermark, and with it
    /// what [`At::End`] says, may be behind that of its successor. That an offset is beyond the end is
    /// said only by one that a majority confirms.
    pub async fn fetch(&self, fetch: Fetch) -> Result<Fetched, FetchError> {
        let high_watermark = self.end_for(fetch.offset, fetch.deadline).await?;
        let log = self.inner.machine.log();
        let log_start_offset = log.log_start_offset();
        if fetch.offset < log_start_offset || fetch.offset > high_watermark {
            return Err(FetchError::OffsetOutOfRange {
                offset: fetch.offset,
                start: log_start_offset,
                end: high_watermark,
            });
        }
        let batches = if fetch.offset == high_watermark || fetch.max_bytes == 0 {
            Vec::new()
        } else {
            let read = log.read_batches(fetch.offset, high_watermark, fetch.max_bytes);
            let read = read.await;
            // What was there when the read began may have been dropped before it ended.
            let start = log.log_start_offset();
            if fetch.offset < start {
                return Err(FetchError::OffsetOutOfRange {
                    offset: fetch.offset,
                    start,
                    end: high_watermark,
                });
            }
            read?
        };
        Ok(Fetched {
            bytes: batches.iter().map(Bytes::len).sum(),
            batches,
            high_watermark,
            log_start_offset,
        })
    }

    /// The offset that is asked for, and the term of the leader that says so. [`At::End`] may be
    /// behind, as [`Partition::fetch`] says.
    pub async fn list_offset(&self, at: At) -> Result<(Offset, LeaderEpoch), FetchError> {
        let (term, high_watermark) = self.serving()?;
        let offset = match at {
            At::Start => self.inner.machine.log().log_start_offset(),
            At::End => high_watermark,
            At::Time(time) => self.at_time(time, high_watermark).await?,
        };
        Ok((offset, epoch(term)))
    }

    async fn at_time(&self, time: i64, end: Offset) -> Result<Offset, FetchError> {
        let log = self.inner.machine.log();
        let mut from = log.log_start_offset();
        loop {
            let found = log.offset_for_time(time, from..end).await?;
            let Some((base, _)) = found.filter(|_| from < end) else {
                return Ok(end);
            };
            // The batch may begin before the first record there is.
            from = from.max(base).max(log.log_start_offset());
            let pieces = log.read_batches(from, end, 1).await;
            if log.log_start_offset() > from {
                // Dropped meanwhile.
                continue;
            }
            let pieces = pieces?;
            let look = move || first_at(&pieces, time, from);
            match task::blocking("find-time", look).await? {
                First::At(offset) => return Ok(offset),
                First::NotBefore(next) => from = next,
            }
        }
    }
}

/// Where the first record at or after a time is.
enum First {
    At(Offset),
    /// Not in this batch, of which this is the end.
    NotBefore(Offset),
}

/// The first record of a batch that is at or after a time, of those from an offset on.
fn first_at(pieces: &[Bytes], time: i64, from: Offset) -> Result<First, FetchError> {
    let undecodable = |what: String| FetchError::Undecodable { offset: from, what };
    let bytes = Bytes::from(pieces.concat());
    let header = BatchHeader::parse(&bytes).map_err(|error| undecodable(error.to_string()))?;
    if bytes.len() < header.total_bytes() {
        return Err(undecodable("it is cut short".to_owned()));
    }
    let body = bytes.slice(HEADER_BYTES..header.total_bytes());
    let batch = RecordBatch { header, body };
    let records = decode_records(&batch).map_err(|error| undecodable(error.to_string()))?;
    let late = |record: &&seriatim_proto::record::Record| {
        record.timestamp_ms >= time && record.offset >= from
    };
    let first = records.iter().find(late);
    Ok(
        first.map_or(First::NotBefore(header.next_offset()), |record| {
            First::At(record.offset)
        }),
    )
}

impl From<Unconfirmed> for FetchError {
    fn from(why: Unconfirmed) -> Self {
        match why {
            Unconfirmed::NotLeading(not) => match not.failed {
                Some(reason) => Self::Stopped(reason),
                None => Self::NotLeader {
                    leader: not.leader,
                    epoch: not.epoch,
                },
            },
            Unconfirmed::NotReady => Self::NotReady,
            Unconfirmed::NoMajority => Self::NoMajority,
        }
    }
}
