//! Hard state: the votes of all replicas in one journal, so that many elections share a sync.
//!
//! ```text
//! offset size field
//!      0   64 file header (`file.rs`), kind votes, padded with zeros
//!     64   64 record, any number of them, then zeros up to the end of the file:
//!        0  4   CRC-32 of the rest of the record
//!        4  1   kind: 1 vote, 2 forget
//!        5  1   flags: 1 committed, 2 a replica has the vote
//!        6  2   reserved, zero
//!        8  8   group
//!       16  8   replica
//!       24  8   term
//!       32  8   the replica that has the vote
//!       40  8   sequence number: one more than that of the record before
//!       48  8   every record with a smaller number was durable before this one was written
//!       56  8   reserved, zero
//! ```
//! A record never crosses a sector, so a disk writes it in full or not at all. After a power loss a record
//! may be missing (zeros) if no sync confirmed it. One that fails its CRC, or that is missing although a later one
//! calls it durable, is damage: a forgotten vote could be cast again, so the node must not start.

use std::{
    collections::BTreeMap,
    io::IoSlice,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use seriatim_proto::ids::{GroupId, ReplicaId};
use seriatim_runtime::{
    hit,
    mutant::{self, Mutant},
};
use tokio::sync::oneshot;

use crate::{
    LogKey, Result, StorageError, Vote,
    bin::{Reader, len_usize, len64},
    disk::{Disk, DiskFile, OpenMode},
    engine::{Begun, Engine, Work},
    error::IoContext,
    file::{self, FileKind},
};

/// Name of the journal in the data directory.
pub(crate) const NAME: &str = "votes";

const RECORD_BYTES: usize = 64;
const COMMITTED: u8 = 1;
const HAS_VOTE: u8 = 2;

/// The journal is rewritten when it is larger than this and mostly outdated.
const COMPACT_BYTES: u64 = 1 << 20;

/// The file is written ahead in steps of this size.
const AHEAD_BYTES: usize = 64 << 10;

/// Votes of all replicas of this node.
#[derive(Debug)]
pub struct HardState {
    journal: Arc<Journal>,
    engine: Arc<Engine>,
}

impl HardState {
    pub(crate) fn new(journal: Journal, engine: Arc<Engine>) -> Self {
        Self {
            journal: Arc::new(journal),
            engine,
        }
    }

    /// The last vote that was saved.
    pub fn vote(&self, key: LogKey) -> Option<Vote> {
        self.journal.state.lock().votes.get(&key).copied()
    }

    /// Saves a vote; durable on return. Votes saved at the same time share one sync.
    pub async fn save_vote(&self, key: LogKey, vote: Vote) -> Result<()> {
        self.save(key, Some(vote)).await
    }

    /// Forgets a replica; durable on return. For replicas whose id never comes back.
    pub async fn forget(&self, key: LogKey) -> Result<()> {
        if self.vote(key).is_none() {
            return Ok(());
        }
        self.save(key, None).await
    }

    async fn save(&self, key: LogKey, vote: Option<Vote>) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.journal.state.lock();
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            state.pending.push(Pending { key, vote, reply });
            if !state.scheduled {
                state.scheduled = self.engine.submit(Work::Votes(Arc::clone(&self.journal)));
                if !state.scheduled {
                    drop(state.pending.pop());
                    return Err(StorageError::Closed);
                }
            }
        }
        answer.await.unwrap_or(Err(StorageError::Closed))
    }
}

#[derive(Debug)]
struct Pending {
    key: LogKey,
    /// `None` forgets.
    vote: Option<Vote>,
    reply: oneshot::Sender<Result<()>>,
}

/// The journal; written by the engine.
#[derive(Debug)]
pub(crate) struct Journal {
    disk: Arc<dyn Disk>,
    engine: std::sync::OnceLock<std::sync::Weak<Engine>>,
    dir: PathBuf,
    path: PathBuf,
    state: Mutex<State>,
    writer: Mutex<Writer>,
}

#[derive(Debug, Default)]
struct State {
    /// Durable votes.
    votes: BTreeMap<LogKey, Vote>,
    pending: Vec<Pending>,
    scheduled: bool,
    /// A write or sync failed: nothing is saved any more.
    failed: Option<StorageError>,
}

#[derive(Debug)]
struct Writer {
    file: Arc<dyn DiskFile>,
    /// Where the next record goes.
    position: u64,
    /// The file's length.
    len: u64,
    /// Number of the next record.
    next_sequence: u64,
    /// Every record with a smaller number is durable.
    synced_sequence: u64,
}

/// A round of votes between its steps.
pub(crate) struct VoteRound {
    pending: Vec<Pending>,
    next_sequence: u64,
    failed: Option<StorageError>,
}

impl Journal {
    /// Opens the journal; creates it if `may_create`, and else reports a missing one as damage.
    pub(crate) fn open(disk: Arc<dyn Disk>, dir: &Path, may_create: bool) -> Result<Self> {
        let path = dir.join(NAME);
        let known = disk
            .list(dir)
            .at("list", dir)?
            .iter()
            .any(|entry| entry.name == NAME);
        if !known && !may_create {
            let what = "the journal of votes is missing; this node could vote twice in one term";
            return Err(StorageError::damaged(&path, 0, what));
        }
        let file = disk.open(&path, OpenMode::Create).at("open", &path)?;
        let len = file.len().at("read the length of", &path)?;
        let bytes = file.read_at(0, len_usize(len)).at("read", &path)?;
        let (votes, writer) = if may_create && bytes.iter().all(|&byte| byte == 0) {
            let (len, next) = write_all(&*file, &path, &BTreeMap::new(), 1)?;
            disk.sync_dir(dir).at("sync", dir)?;
            (BTreeMap::new(), Writer::new(file, len, next, 0))
        } else {
            let replayed = replay(&path, &bytes).inspect_err(|_damage| {
                hit!("storage.votes.damaged");
            })?;
            let end = len64(RECORD_BYTES) * (replayed.records + 1);
            if bytes
                .get(len_usize(end)..)
                .is_some_and(|rest| rest.iter().any(|&byte| byte != 0))
            {
                // Records behind a gap: no sync confirmed them.
                hit!("storage.votes.gap-cut");
                file.set_len(end).at("cut", &path)?;
            }
            // What was read may be in the page cache only.
            file.sync().at("sync", &path)?;
            let len = file.len().at("read the length of", &path)?;
            let records = replayed.records;
            (
                replayed.votes,
                Writer::new(file, len, replayed.next_sequence, records),
            )
        };
        Ok(Self {
            disk,
            engine: std::sync::OnceLock::new(),
            dir: dir.to_owned(),
            path,
            state: Mutex::new(State {
                votes,
                ..State::default()
            }),
            writer: Mutex::new(writer),
        })
    }

    /// Tells the journal who measures its syncs.
    pub(crate) fn measure_with(&self, engine: &Arc<Engine>) {
        let _first = self.engine.set(Arc::downgrade(engine));
    }

    /// Writes what is pending. Called by the one disk thread that holds the journal.
    pub(crate) fn begin(&self) -> Begun<VoteRound> {
        let (pending, live) = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.pending), state.votes.len())
        };
        if pending.is_empty() {
            return Begun::Idle;
        }
        let mut writer = self.writer.lock();
        let mut round = VoteRound {
            pending,
            next_sequence: 0,
            failed: None,
        };
        match self.write(&mut writer, &round.pending, live) {
            Ok(next_sequence) => round.next_sequence = next_sequence,
            Err(error) if error.is_no_space() => {
                let mut state = self.state.lock();
                let later = std::mem::replace(&mut state.pending, round.pending);
                state.pending.extend(later);
                return Begun::Full;
            }
            Err(error) => round.failed = Some(error),
        }
        Begun::Round(round)
    }

    fn write(&self, writer: &mut Writer, pending: &[Pending], live: usize) -> Result<u64> {
        let outdated = writer.position > 4 * len64(RECORD_BYTES * (live + 1));
        if writer.position > COMPACT_BYTES && outdated {
            self.compact(writer)?;
        }
        let mut bytes = Vec::with_capacity(pending.len() * RECORD_BYTES);
        let mut sequence = writer.next_sequence;
        for one in pending {
            encode(
                &mut bytes,
                one.key,
                one.vote,
                sequence,
                writer.synced_sequence,
            );
            sequence += 1;
        }
        let end = writer.position + len64(bytes.len());
        let zeros = if end > writer.len {
            vec![0; AHEAD_BYTES]
        } else {
            Vec::new()
        };
        let mut slices = [IoSlice::new(&bytes), IoSlice::new(&zeros)];
        writer
            .file
            .write_at(writer.position, &mut slices)
            .at("write", &self.path)?;
        writer.len = writer.len.max(end + len64(zeros.len()));
        writer.position = end;
        writer.next_sequence = sequence;
        Ok(sequence)
    }

    /// Rewrites the journal with the live votes only.
    fn compact(&self, writer: &mut Writer) -> Result<()> {
        hit!("storage.votes.compacted");
        let votes = self.state.lock().votes.clone();
        let temporary = self.dir.join("votes.tmp");
        let file = self
            .disk
            .open(&temporary, OpenMode::Create)
            .at("create", &temporary)?;
        file.set_len(0).at("empty", &temporary)?;
        let (len, next) = write_all(&*file, &temporary, &votes, writer.next_sequence)?;
        self.disk
            .rename(&temporary, &self.path)
            .at("rename", &temporary)?;
        self.disk.sync_dir(&self.dir).at("sync", &self.dir)?;
        *writer = Writer::new(file, len, next, len64(votes.len()));
        Ok(())
    }

    /// Makes the round durable.
    pub(crate) fn sync(&self, round: &mut VoteRound) {
        if round.failed.is_some() || mutant::on(Mutant::VoteNotSynced) {
            return;
        }
        let mut writer = self.writer.lock();
        let result = match self.engine.get().and_then(std::sync::Weak::upgrade) {
            Some(engine) => engine.sync(&*writer.file, &self.path),
            None => writer.file.sync().at("sync", &self.path),
        };
        match result {
            Ok(()) => writer.synced_sequence = round.next_sequence,
            Err(error) => round.failed = Some(error),
        }
    }

    /// Publishes the round and tells the callers.
    pub(crate) fn finish(&self, round: VoteRound) {
        let mut state = self.state.lock();
        if let Some(error) = round.failed {
            hit!("storage.votes.failed");
            tracing::error!(%error, "no vote can be saved any more");
            state.failed = Some(error.clone());
            let later = std::mem::take(&mut state.pending);
            drop(state);
            for one in round.pending.into_iter().chain(later) {
                // The caller may have stopped waiting, here and below.
                drop(one.reply.send(Err(error.clone())));
            }
            return;
        }
        for one in &round.pending {
            let _ = match one.vote {
                Some(vote) => state.votes.insert(one.key, vote),
                None => state.votes.remove(&one.key),
            };
        }
        drop(state);
        for one in round.pending {
            drop(one.reply.send(Ok(())));
        }
    }

    /// Whether there is more to do; if not, the journal is no longer scheduled.
    pub(crate) fn has_more(&self) -> bool {
        let mut state = self.state.lock();
        state.scheduled = !state.pending.is_empty();
        state.scheduled
    }

    /// The engine stopped while the journal waited for space.
    pub(crate) fn abandon(&self) {
        let pending = {
            let mut state = self.state.lock();
            // The next vote is refused by the engine instead of waiting for it.
            state.scheduled = false;
            std::mem::take(&mut state.pending)
        };
        for one in pending {
            drop(one.reply.send(Err(StorageError::Closed)));
        }
    }
}

impl Writer {
    fn new(file: Arc<dyn DiskFile>, len: u64, next_sequence: u64, records: u64) -> Self {
        Self {
            file,
            position: len64(RECORD_BYTES) * (records + 1),
            len,
            next_sequence,
            synced_sequence: next_sequence,
        }
    }
}

/// Writes a journal with these votes and syncs it; returns its length and the next number.
fn write_all(
    file: &dyn DiskFile,
    path: &Path,
    votes: &BTreeMap<LogKey, Vote>,
    first_sequence: u64,
) -> Result<(u64, u64)> {
    let mut bytes = file::encode_header(FileKind::Votes, &[]);
    bytes.resize(RECORD_BYTES, 0);
    let mut sequence = first_sequence;
    for (key, vote) in votes {
        encode(&mut bytes, *key, Some(*vote), sequence, first_sequence);
        sequence += 1;
    }
    bytes.resize(bytes.len().next_multiple_of(AHEAD_BYTES), 0);
    file.write_at(0, &mut [IoSlice::new(&bytes)])
        .at("write", path)?;
    file.sync().at("sync", path)?;
    Ok((len64(bytes.len()), sequence))
}

/// Reads the journal of a data directory without touching it, if there is one.
pub(crate) fn verify(disk: &dyn Disk, dir: &Path) -> Result<()> {
    let path = dir.join(NAME);
    let Ok(file) = disk.open(&path, OpenMode::Read) else {
        return Ok(());
    };
    let len = file.len().at("read the length of", &path)?;
    let bytes = file.read_at(0, len_usize(len)).at("read", &path)?;
    if bytes.iter().all(|&byte| byte == 0) {
        // The directory lost power while it was made.
        return Ok(());
    }
    replay(&path, &bytes).map(drop)
}

/// What a journal says.
pub(crate) struct Replayed {
    pub(crate) votes: BTreeMap<LogKey, Vote>,
    /// Records that count.
    pub(crate) records: u64,
    next_sequence: u64,
}

/// Reads a whole journal.
pub(crate) fn replay(path: &Path, bytes: &[u8]) -> Result<Replayed> {
    let _no_fields = file::parse_header(path, bytes, FileKind::Votes, 0)?;
    let mut replayed = Replayed {
        votes: BTreeMap::new(),
        records: 0,
        next_sequence: 1,
    };
    // The first place without a record.
    let mut gap = None;
    let slots = bytes
        .get(RECORD_BYTES..)
        .unwrap_or_default()
        .chunks(RECORD_BYTES);
    for (slot, record) in slots.enumerate() {
        let position = len64(RECORD_BYTES) * (len64(slot) + 1);
        if record.iter().all(|&byte| byte == 0) {
            gap = gap.or(Some(position));
            continue;
        }
        let Some(record) = decode(record) else {
            return Err(StorageError::damaged(
                path,
                position,
                "the CRC of a vote does not match",
            ));
        };
        if let Some(gap) = gap {
            if record.synced_sequence > replayed.next_sequence {
                let what = "a vote is missing that was durable";
                return Err(StorageError::damaged(path, gap, what));
            }
            continue;
        }
        if replayed.records > 0 && record.sequence != replayed.next_sequence {
            let what = "a vote is out of sequence";
            return Err(StorageError::damaged(path, position, what));
        }
        replayed.records += 1;
        replayed.next_sequence = record.sequence + 1;
        let _ = match record.vote {
            Some(vote) => replayed.votes.insert(record.key, vote),
            None => replayed.votes.remove(&record.key),
        };
    }
    Ok(replayed)
}

struct Record {
    key: LogKey,
    vote: Option<Vote>,
    sequence: u64,
    synced_sequence: u64,
}

fn encode(out: &mut Vec<u8>, key: LogKey, vote: Option<Vote>, sequence: u64, synced: u64) {
    let mut flags = 0;
    if vote.is_some_and(|vote| vote.committed) {
        flags |= COMMITTED;
    }
    let voted_for = vote.and_then(|vote| vote.voted_for);
    if voted_for.is_some() {
        flags |= HAS_VOTE;
    }
    let mut rest = Vec::with_capacity(RECORD_BYTES);
    rest.extend_from_slice(&[if vote.is_some() { 1 } else { 2 }, flags, 0, 0]);
    rest.extend_from_slice(&key.group.0.to_be_bytes());
    rest.extend_from_slice(&key.replica.0.to_be_bytes());
    rest.extend_from_slice(&vote.map_or(0, |vote| vote.term).to_be_bytes());
    rest.extend_from_slice(&voted_for.unwrap_or_default().0.to_be_bytes());
    rest.extend_from_slice(&sequence.to_be_bytes());
    rest.extend_from_slice(&synced.to_be_bytes());
    rest.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&crc32fast::hash(&rest).to_be_bytes());
    out.extend_from_slice(&rest);
}

fn decode(bytes: &[u8]) -> Option<Record> {
    let mut reader = Reader(bytes);
    let crc = reader.u32()?;
    if reader.0.len() != RECORD_BYTES - 4 || crc32fast::hash(reader.0) != crc {
        return None;
    }
    let (kind, flags, _reserved) = (reader.u8()?, reader.u8()?, reader.u16()?);
    let key = LogKey {
        group: GroupId(reader.u64()?),
        replica: ReplicaId(reader.u64()?),
    };
    let vote = Vote {
        term: reader.u64()?,
        voted_for: Some(ReplicaId(reader.u64()?)).filter(|_| flags & HAS_VOTE != 0),
        committed: flags & COMMITTED != 0,
    };
    Some(Record {
        key,
        vote: match kind {
            1 => Some(vote),
            2 => None,
            _ => return None,
        },
        sequence: reader.u64()?,
        synced_sequence: reader.u64()?,
    })
}

#[cfg(test)]
#[path = "votes_tests.rs"]
mod tests;
