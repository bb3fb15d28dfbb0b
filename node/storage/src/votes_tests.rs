//! The journal of votes: its bytes, and what replaying says of every damage.

use proptest::prelude::*;

use super::*;
use crate::golden;

fn key(group: u64) -> LogKey {
    LogKey {
        group: GroupId(group),
        replica: ReplicaId(group + 100),
    }
}

fn vote(term: u64) -> Vote {
    Vote {
        term,
        voted_for: (!term.is_multiple_of(3)).then_some(ReplicaId(term + 7)),
        committed: term.is_multiple_of(2),
    }
}

/// A journal of votes, each with its number and what it calls durable.
fn journal(records: &[(LogKey, Option<Vote>, u64, u64)]) -> Vec<u8> {
    let mut bytes = file::encode_header(FileKind::Votes, &[]);
    bytes.resize(RECORD_BYTES, 0);
    for (key, vote, sequence, synced) in records {
        encode(&mut bytes, *key, *vote, *sequence, *synced);
    }
    bytes.resize(bytes.len() + 4 * RECORD_BYTES, 0);
    bytes
}

fn path() -> &'static Path {
    Path::new("/data/votes")
}

#[test]
fn golden_journal() {
    let records = [
        (key(1), Some(vote(4)), 1, 1),
        (key(2), Some(vote(3)), 2, 1),
        (key(1), None, 3, 3),
    ];
    let bytes = journal(&records);
    golden::check("votes.bin", &bytes);
    let replayed = replay(path(), &bytes).unwrap();
    assert_eq!(replayed.votes, BTreeMap::from([(key(2), vote(3))]));
    assert_eq!((replayed.records, replayed.next_sequence), (3, 4));
}

#[test]
fn a_record_lost_before_its_sync_takes_its_round_with_it() {
    // One, then a round of three of which the first was lost.
    let mut bytes = journal(&[
        (key(1), Some(vote(1)), 1, 1),
        (key(2), Some(vote(1)), 2, 2),
        (key(3), Some(vote(1)), 3, 2),
        (key(4), Some(vote(1)), 4, 2),
    ]);
    bytes[128..192].fill(0);
    let replayed = replay(path(), &bytes).unwrap();
    assert_eq!(replayed.votes, BTreeMap::from([(key(1), vote(1))]));
    assert_eq!(replayed.records, 1);
}

#[test]
fn a_record_lost_after_its_sync_is_damage() {
    let whole = journal(&[
        (key(1), Some(vote(1)), 1, 1),
        (key(1), Some(vote(2)), 2, 2),
        (key(1), Some(vote(3)), 3, 3),
    ]);
    for lost in [1, 2] {
        let mut bytes = whole.clone();
        bytes[lost * 64..(lost + 1) * 64].fill(0);
        let error = replay(path(), &bytes).err().unwrap();
        let StorageError::Damaged { file, position, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((file.as_path(), position), (path(), lost as u64 * 64));
    }
}

#[test]
fn every_flipped_bit_of_a_record_is_damage_where_it_is() {
    let whole = journal(&[(key(1), Some(vote(1)), 1, 1), (key(2), Some(vote(2)), 2, 2)]);
    for at in 64..192 {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let error = replay(path(), &bytes).err().unwrap();
            let StorageError::Damaged { position, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(position, at as u64 / 64 * 64);
        }
    }
    for len in 0..64 {
        let cut = &whole[..len.min(15)];
        assert!(replay(path(), cut).err().unwrap().is_damage(), "{len}");
    }
}

#[test]
fn a_record_out_of_sequence_is_damage() {
    let bytes = journal(&[(key(1), Some(vote(1)), 1, 1), (key(1), Some(vote(2)), 5, 2)]);
    assert!(replay(path(), &bytes).err().unwrap().is_damage());
}

fn open_journal(disk: &crate::disk::sim::SimDisk, may_create: bool) -> Result<Journal> {
    let dir = Path::new("/data");
    disk.create_dir_all(dir).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    Journal::open(Arc::new(disk.clone()), dir, may_create)
}

fn save(journal: &Journal, key: LogKey, vote: Option<Vote>) {
    let (reply, mut answer) = oneshot::channel();
    journal
        .state
        .lock()
        .pending
        .push(Pending { key, vote, reply });
    let Begun::Round(mut round) = journal.begin() else {
        panic!("nothing was written");
    };
    journal.sync(&mut round);
    journal.finish(round);
    answer.try_recv().unwrap().unwrap();
}

#[test]
fn a_journal_that_is_mostly_outdated_is_rewritten() {
    let disk = crate::disk::sim::SimDisk::new(3);
    let journal = open_journal(&disk, true).unwrap();
    let rounds = COMPACT_BYTES / 64 + 100;
    for term in 1..=rounds {
        save(&journal, key(term % 5), Some(vote(term)));
    }
    assert!(journal.writer.lock().position < COMPACT_BYTES / 2);
    save(&journal, key(1), None);
    drop(journal);
    disk.crash();
    let journal = open_journal(&disk, false).unwrap();
    let votes = journal.state.lock().votes.clone();
    let last = |group: u64| {
        (0..5)
            .map(|back| rounds - back)
            .find(|term| term % 5 == group)
    };
    let expected = [0, 2, 3, 4].map(|group| (key(group), vote(last(group).unwrap())));
    assert_eq!(votes, BTreeMap::from(expected));
    // And it goes on in sequence.
    save(&journal, key(9), Some(vote(1)));
    drop(journal);
    disk.crash();
    assert_eq!(
        open_journal(&disk, false).unwrap().state.lock().votes.len(),
        5
    );
}

#[test]
fn a_missing_journal_is_damage_unless_the_directory_is_new() {
    let disk = crate::disk::sim::SimDisk::new(3);
    assert!(open_journal(&disk, false).err().unwrap().is_damage());
    drop(open_journal(&disk, true).unwrap());
    drop(open_journal(&disk, false).unwrap());
}

proptest! {
    #[test]
    fn records_round_trip(
        group: u64,
        replica: u64,
        some: bool,
        term: u64,
        voted_for in proptest::option::of(any::<u64>()),
        committed: bool,
        sequence: u64,
        synced: u64,
    ) {
        let key = LogKey { group: GroupId(group), replica: ReplicaId(replica) };
        let vote = some.then_some(Vote {
            term,
            voted_for: voted_for.map(ReplicaId),
            committed,
        });
        let mut bytes = Vec::new();
        encode(&mut bytes, key, vote, sequence, synced);
        prop_assert_eq!(bytes.len(), RECORD_BYTES);
        let record = decode(&bytes).unwrap();
        prop_assert_eq!(record.key, key);
        prop_assert_eq!(record.vote, vote);
        prop_assert_eq!((record.sequence, record.synced_sequence), (sequence, synced));
        for len in 0..RECORD_BYTES {
            prop_assert!(decode(&bytes[..len]).is_none());
        }
    }

    #[test]
    fn replay_takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut with_header = journal(&[]);
        with_header.truncate(RECORD_BYTES);
        with_header.extend(&bytes);
        // Never a panic; arbitrary records never check.
        if bytes.iter().any(|&byte| byte != 0) {
            prop_assert!(replay(path(), &with_header).is_err());
        }
        let _any = replay(path(), &bytes).is_ok();
    }
}
