//! The end of a process and of the power, after every operation of a script and at random.

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use seriatim_runtime::mark;
use seriatim_storage::Storage;
use seriatim_storage::disk::sim::SimDisk;
use std::{path::Path, sync::Arc, time::Duration};

use crate::{
    common::{Maker, append, eventually, faulty::Faulty, read_file, segments, start_append},
    life::{GROUPS, Known, key_of, recovered, run, small_segments, storage_options, work},
    model::Step,
};

/// Everything a replica does, each at least once after each other kind of thing.
fn script() -> Vec<(usize, Step)> {
    use Step::*;
    vec![
        (0, Append(1, 1, 100)),
        (0, Vote),
        (1, Append(3, 2, 300)),
        (0, Append(4, 1, 900)),
        (0, Append(1, 5, 1000)),
        (0, Truncate(3)),
        (0, Blank),
        (1, Vote),
        (0, Append(2, 1, 20)),
        (0, Checkpoint),
        (0, Append(1, 3, 1500)),
        (0, Truncate(2)),
        (0, Append(6, 1, 600)),
        (0, Purge(3)),
        (0, Boundary),
        (0, Truncate(100)),
        (0, Blank),
        (0, Append(1, 2, 4000)),
        (1, Restart(9)),
        (1, Append(3, 1, 700)),
        (0, Purge(0)),
        (0, Roll),
        (0, Append(3, 2, 900)),
        (0, Roll),
        (0, Append(1, 2, 500)),
        (0, Compact(1)),
        (0, Append(2, 1, 700)),
        (0, Compact(0)),
        (0, Roll),
        (0, Truncate(1)),
        (1, Vote),
        (0, Append(2, 2, 1200)),
        (1, Append(1, 4, 800)),
        (1, Truncate(6)),
        (1, Restart(0)),
        (1, Blank),
        (0, Sync),
    ]
}

/// How a process ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The power goes with it.
    Power,
    /// It is killed, and the power goes after the next one has started.
    Kill,
}

/// Ends a process, checks what the next one finds, and what is left of that without power.
fn ended(disk: &SimDisk, known: &Known, end: End) -> Known {
    match end {
        End::Power => disk.crash(),
        End::Kill => disk.kill_process(),
    }
    let first = run(recovered(disk, known));
    disk.crash();
    // What a killed process had cut or purged, and not synced, may come back.
    let found = run(recovered(disk, known));
    for (first, found) in first.acked.iter().zip(&found.acked) {
        found.check_kept(first);
    }
    found
}

/// A log of several segments that restarts within them, behind a boundary of another leader's.
fn conflict() -> Vec<(usize, Step)> {
    use Step::*;
    vec![
        (0, Append(2, 1, 900)),
        (0, Append(7, 1, 1200)),
        (0, Conflict(2)),
        (0, Append(2, 1, 700)),
        (0, Conflict(0)),
    ]
}

/// Lets a script run for so many operations; whether it ended before them.
fn ended_after(script: &[(usize, Step)], seed: u64, operations: u64, end: End) -> bool {
    let disk = SimDisk::new(seed);
    let faulty = Faulty::new(Arc::new(disk.clone()));
    faulty.stop_after(operations);
    let mut known = Known::default();
    let finished = run(work(&faulty, script, &mut known)).is_ok();
    let found = ended(&disk, &known, end);
    // And the log goes on.
    disk.kill_process();
    let mut known = found;
    let faulty = Faulty::new(Arc::new(disk.clone()));
    run(work(&faulty, script, &mut known)).unwrap();
    disk.crash();
    let _found = run(recovered(&disk, &known));
    finished
}

fn after_every_operation(script: &[(usize, Step)], seeds: std::ops::Range<u64>, end: End) {
    let mut runs = 0;
    for seed in seeds {
        let mut operations = 0;
        loop {
            let caught = std::panic::catch_unwind(|| ended_after(script, seed, operations, end));
            let Ok(finished) = caught else {
                panic!("seed {seed}, {end:?} after {operations} operations");
            };
            runs += 1;
            if finished {
                break;
            }
            operations += 1;
        }
        assert!(operations > 100, "{operations}");
    }
    assert!(runs > 100);
}

#[test]
fn power_loss_after_every_operation() {
    after_every_operation(&script(), 0..3, End::Power);
}

#[test]
fn power_loss_after_every_operation_with_other_seeds() {
    after_every_operation(&script(), 3..6, End::Power);
}

#[test]
fn a_kill_after_every_operation_and_power_loss_later() {
    after_every_operation(&script(), 20..21, End::Kill);
}

/// What such a restart leaves over must not be taken for a part of the log behind the boundary.
#[test]
fn an_interrupted_restart_within_the_log_leaves_nothing_of_its_old_history() {
    after_every_operation(&conflict(), 0..8, End::Power);
    after_every_operation(&conflict(), 8..12, End::Kill);
    let entered = mark::visits_of("storage.recover.other-history");
    assert!(entered > 0, "recovery met no old history");
}

fn random_step(rng: &mut SmallRng) -> Step {
    match rng.random_range(0..24) {
        0..9 => Step::Append(
            rng.random_range(1..5),
            rng.random_range(1..4),
            rng.random_range(0..2000),
        ),
        9 | 10 => Step::Blank,
        11 | 12 => Step::Truncate(rng.random_range(1..8)),
        13 => Step::Purge(rng.random_range(0..6)),
        14 => Step::Checkpoint,
        15 => Step::Boundary,
        16 => Step::Restart(rng.random_range(0..5)),
        17 | 18 => Step::Vote,
        20 => Step::Roll,
        21 | 22 => Step::Compact(rng.random_range(0..5)),
        23 => Step::Conflict(rng.random_range(0..5)),
        _ => Step::Sync,
    }
}

#[test]
fn many_lives_with_random_ends() {
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let disk = SimDisk::new(seed);
        let mut known = Known::default();
        for life in 0..8 {
            let steps: Vec<_> = (0..30)
                .map(|_| (rng.random_range(0..GROUPS), random_step(&mut rng)))
                .collect();
            let operations = rng.random_range(0..150);
            let end = [End::Power, End::Kill][rng.random_range(0..2usize)];
            let mut one_life = || {
                let faulty = Faulty::new(Arc::new(disk.clone()));
                faulty.stop_after(operations);
                let _ended = run(work(&faulty, &steps, &mut known));
                known = ended(&disk, &known, end);
                disk.kill_process();
            };
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut one_life));
            assert!(caught.is_ok(), "seed {seed}, life {life}");
        }
    }
}

/// How many entries are left of one that was synced and one that waits for its sync.
async fn left_of_two(seed: u64) -> u64 {
    let (disk, dir, key) = (SimDisk::new(seed), Path::new("/data"), key_of(0));
    let open = || Storage::open(Arc::new(disk.clone()), dir, storage_options()).unwrap();
    let storage = open();
    let log = storage.open_log(key, small_segments()).await.unwrap();
    let mut maker = Maker::new();
    append(&log, vec![maker.batch(1, 100)]).await.unwrap();
    let content = || read_file(&disk, &segments(&disk, dir, key)[0]);
    let before = content();
    disk.set_usual_sync_time(Duration::from_secs(3600));
    let mut waiting = start_append(&log, vec![maker.batch(1, 100)]).unwrap();
    eventually("it is written", || content() != before).await;
    assert!(waiting.try_recv().is_err());
    disk.crash();
    drop((log, storage));
    disk.kill_process();
    disk.set_usual_sync_time(Duration::ZERO);
    let log = open().open_log(key, small_segments()).await.unwrap();
    log.last_log_id().map_or(0, |last| last.index + 1)
}

#[test]
fn what_waits_for_its_sync_may_be_lost_with_the_power() {
    let left: Vec<u64> = (0..20).map(|seed| run(left_of_two(seed))).collect();
    assert!(left.contains(&1) && left.contains(&2), "{left:?}");
    assert!(left.iter().all(|entries| (1..=2).contains(entries)));
}
