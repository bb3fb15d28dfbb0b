//! A shard in the metadata store: what is read again is what was applied.

use std::path::Path;

use proptest::prelude::*;
use seriatim_proto::ids::{GroupId, ReplicaId};
use seriatim_storage::{StorageOptions, disk::sim::SimDisk};
use wire::group_command::Command;

use super::*;

const KEY: LogKey = LogKey {
    group: GroupId(7),
    replica: ReplicaId(70),
};

fn open(disk: &SimDisk) -> Storage {
    Storage::open(
        Arc::new(disk.clone()),
        Path::new("/data"),
        StorageOptions::default(),
    )
    .unwrap()
}

fn load(storage: &Storage, key: LogKey) -> Handle {
    Handle(ShardMachine::load(storage, key, "shard".to_owned()).unwrap())
}

fn shard(handle: &Handle) -> Shard {
    handle.0.state.read().shard.clone()
}

/// A commit from outside, a deletion, or somebody who joins or leaves.
fn command(kind: u8, group: u8, number: u8) -> Bytes {
    let group = format!("g{group}");
    let member_id = format!("m{number}");
    let command = match kind {
        0 => Command::DropGroup(wire::DropGroup {}),
        1 => Command::UpdateMembers(wire::UpdateMembers {
            joins: vec![wire::MemberSpec {
                member_id: member_id.clone(),
                topics: vec!["t".to_owned()],
                ..wire::MemberSpec::default()
            }],
            targets: vec![wire::MemberTarget {
                member_id,
                partitions: vec![wire::GroupPartitions {
                    topic: "t".to_owned(),
                    partitions: vec![number.into()],
                }],
            }],
            ..wire::UpdateMembers::default()
        }),
        2 => Command::UpdateMembers(wire::UpdateMembers {
            expected_generation: 1,
            leaves: vec![member_id],
            ..wire::UpdateMembers::default()
        }),
        _ => Command::StoreOffsets(wire::StoreOffsets {
            offsets: vec![wire::OffsetChange {
                topic: format!("t{}", number % 2),
                partition: number.into(),
                offset: i64::from(kind) - 4,
                metadata: "text".to_owned(),
                ..wire::OffsetChange::default()
            }],
            ..wire::StoreOffsets::default()
        }),
    };
    GroupCommand {
        group,
        now_ms: 5,
        command,
    }
    .encode()
}

fn entries(commands: &[Bytes], first: u64) -> Vec<AppliedEntry> {
    (first..)
        .zip(commands)
        .map(|(index, bytes)| AppliedEntry {
            log_id: LogId { term: 1, index },
            base_offset: Offset(0),
            payload: AppliedPayload::Command(bytes.clone()),
        })
        .collect()
}

fn simulated<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    task::simulate(true);
    let done = runtime.block_on(test);
    task::simulate(false);
    done
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_read_again_is_what_was_applied(
        steps in proptest::collection::vec((0_u8..9, 0_u8..3, 0_u8..4), 0..60),
        batch in 1_usize..8,
    ) {
        let commands: Vec<Bytes> =
            steps.into_iter().map(|(kind, group, number)| command(kind, group, number)).collect();
        simulated(async {
            let disk = SimDisk::new(1);
            let storage = open(&disk);
            let machine = load(&storage, KEY);
            let mut index = 0;
            for commands in commands.chunks(batch) {
                let replies = machine.apply(entries(commands, index)).await.unwrap();
                assert_eq!(replies.len(), commands.len());
                index += u64::try_from(commands.len()).unwrap();
                // However the commands were batched.
                let again = load(&storage, KEY);
                assert_eq!(shard(&again), shard(&machine));
                let applied = machine.applied_state().unwrap();
                assert_eq!(again.applied_state().unwrap(), applied);
                assert_eq!(applied.log_id.unwrap().index + 1, index);
            }
            // Another replica that installs a snapshot has the same, and nothing of what it had.
            let other_key = LogKey { replica: ReplicaId(71), ..KEY };
            let other = load(&storage, other_key);
            let stale = [command(9, 2, 1), command(9, 0, 3), command(9, 1, 0)];
            let _replies = other.apply(entries(&stale, 0)).await.unwrap();
            other.install(machine.snapshot().await.unwrap()).await.unwrap();
            assert_eq!(shard(&other), shard(&machine));
            let again = load(&storage, other_key);
            assert_eq!(shard(&again), shard(&machine));
            assert_eq!(again.applied_state().unwrap(), machine.applied_state().unwrap());
            // One replica's removal leaves the other's.
            store::remove(storage.meta(), &Keys::new(KEY)).unwrap();
            assert_eq!(shard(&load(&storage, KEY)), Shard::default());
            assert_eq!(shard(&load(&storage, other_key)), shard(&machine));
            storage.shutdown().await;
        });
    }
}

#[test]
fn a_crash_leaves_the_state_as_of_one_entry() {
    simulated(async {
        let disk = SimDisk::new(1);
        let storage = open(&disk);
        let machine = load(&storage, KEY);
        let mut states = vec![(None, Shard::default())];
        let mut index = 0;
        for round in 0..40_u8 {
            let batch = [command(7, round % 3, round), command(8, round % 2, round)];
            let _replies = machine.apply(entries(&batch, index)).await.unwrap();
            index += 2;
            states.push((machine.applied_state().unwrap().log_id, shard(&machine)));
            if round == 20 {
                storage.meta().flush().unwrap();
            }
        }
        disk.crash();
        let storage = open(&disk);
        let machine = load(&storage, KEY);
        let found = (machine.applied_state().unwrap().log_id, shard(&machine));
        let at = states.iter().position(|state| *state == found);
        assert!(at.is_some_and(|at| at > 20), "{:?}", found.0);
        // The rest is applied again.
        let at = at.unwrap();
        for round in (0..40_u8).skip(at) {
            let batch = [command(7, round % 3, round), command(8, round % 2, round)];
            let first = u64::from(round) * 2;
            let _replies = machine.apply(entries(&batch, first)).await.unwrap();
        }
        let found = (machine.applied_state().unwrap().log_id, shard(&machine));
        assert_eq!(Some(&found), states.last());
    });
}

#[test]
fn snapshots_of_another_version_are_refused() {
    simulated(async {
        let storage = open(&SimDisk::new(1));
        let machine = load(&storage, KEY);
        let mut snapshot = machine.snapshot().await.unwrap();
        for data in [&[8, 9][..], &[0xff; 5]] {
            snapshot.data = Bytes::copy_from_slice(data);
            assert!(machine.install(snapshot.clone()).await.is_err());
        }
        storage.shutdown().await;
    });
}
