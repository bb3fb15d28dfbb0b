//! One I/O error, or a full disk for a while, at every operation of a script.

use std::{io::ErrorKind, path::Path, sync::Arc};

use seriatim_storage::{
    Storage,
    disk::{Disk, sim::SimDisk},
};

use crate::{
    common::{faulty::Faulty, *},
    life::{GROUPS, Known, key_of, recovered, run, small_segments, storage_options, work},
    model::Step,
};

fn script() -> Vec<(usize, Step)> {
    use Step::*;
    vec![
        (0, Append(2, 1, 900)),
        (1, Append(1, 2, 300)),
        (0, Vote),
        (0, Append(3, 2, 900)),
        (0, Truncate(4)),
        (0, Blank),
        (0, Checkpoint),
        (0, Append(2, 2, 1500)),
        (0, Purge(2)),
        (0, Boundary),
        (0, Roll),
        (0, Append(2, 2, 900)),
        (0, Compact(1)),
        (1, Restart(3)),
        (1, Append(2, 1, 2000)),
        (1, Vote),
        (0, Append(1, 2, 1500)),
    ]
}

fn sim(seed: u64) -> (SimDisk, Faulty) {
    let disk = SimDisk::new(seed);
    let faulty = Faulty::new(Arc::new(disk.clone()));
    (disk, faulty)
}

/// After an error somewhere in a log, the other one still works, or the node says why not.
async fn others_go_on(disk: &Faulty) {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let Ok(storage) = Storage::open(shared, Path::new("/data"), storage_options()) else {
        // The error hit what all logs need.
        return;
    };
    let mut working = 0;
    for group in 0..GROUPS {
        let Ok(log) = storage.open_log(key_of(group), small_segments()).await else {
            continue;
        };
        let term = log.last_log_id().map_or(1, |last| last.term);
        let mut maker = Maker::after(&log, term);
        match append(&log, vec![maker.batch(1, 100)]).await {
            Ok(()) => working += 1,
            Err(error) => {
                let why = log.poisoned().expect("a failed append stops its log");
                assert!(!error.to_string().is_empty() && !why.is_damage(), "{why}");
            }
        }
    }
    // One error stops one log at most.
    assert!(working + 1 >= GROUPS);
    storage.shutdown().await;
}

#[test]
fn an_error_at_every_operation_stops_one_log_and_loses_nothing() {
    let operations = operations_of(&script());
    assert!(operations > 50, "{operations}");
    for number in 0..operations {
        let caught = std::panic::catch_unwind(|| one_error_at(number));
        assert!(caught.is_ok(), "an error at operation {number}");
    }
}

/// How many operations opening the directory and some steps take.
fn operations_of(steps: &[(usize, Step)]) -> u64 {
    let (_disk, faulty) = sim(0);
    run(work(&faulty, steps, &mut Known::default())).unwrap();
    faulty.count()
}

fn one_error_at(number: u64) {
    let (disk, faulty) = sim(number);
    let mut known = Known::default();
    faulty.fail_at(number, 1, ErrorKind::Other);
    let _ended = run(work(&faulty, &script(), &mut known));
    disk.kill_process();
    let mut known = run(recovered(&disk, &known));
    // Once more, with the error while the next process runs beside another log.
    disk.kill_process();
    let again = Faulty::new(Arc::new(disk.clone()));
    again.fail_at(number % 12, 1, ErrorKind::Other);
    run(others_go_on(&again));
    disk.kill_process();
    for group in 0..GROUPS {
        // What was appended there may be here now.
        let acked = &known.acked[group];
        let mut maker = acked.maker(acked.last().map_or(1, |last| last.term));
        known.next[group].frames.push(maker.batch(1, 100));
    }
    let _found = run(recovered(&disk, &known));
}

#[test]
fn a_full_disk_at_any_operation_only_delays() {
    let operations = operations_of(&script());
    // Opening the directory does not wait for space, what comes later does.
    let opening = operations_of(&[]);
    for number in (opening..operations).step_by(4) {
        let (disk, faulty) = sim(number);
        let seen = std::sync::atomic::AtomicU64::new(0);
        faulty.refuse(move |op, _| {
            let grows = matches!(
                op,
                crate::common::faulty::Op::Create | crate::common::faulty::Op::Write
            );
            let now = seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            ((number..number + 3).contains(&now) && grows).then_some(ErrorKind::StorageFull)
        });
        let mut known = Known::default();
        let done = run(work(&faulty, &script(), &mut known));
        assert!(done.is_ok(), "full at {number}: {done:?}");
        disk.crash();
        let found = run(recovered(&disk, &known));
        for group in 0..GROUPS {
            assert_eq!(found.acked[group], known.acked[group], "full at {number}");
        }
    }
}
