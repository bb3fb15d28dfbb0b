//! What the simulated disk keeps and loses.

use std::{
    io::{ErrorKind, IoSlice},
    path::Path,
    sync::Arc,
    time::Duration,
};

use super::SimDisk;
use crate::disk::{Disk as _, DiskFile, OpenMode};

const DIR: &str = "/data";
const FILE: &str = "/data/file";

fn disk(seed: u64) -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new(seed);
    disk.create_dir_all(Path::new(DIR)).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let file = disk.open(Path::new(FILE), OpenMode::CreateNew).unwrap();
    (disk, file)
}

fn write(file: &dyn DiskFile, position: u64, bytes: &[u8]) -> std::io::Result<()> {
    file.write_at(position, &mut [IoSlice::new(bytes)])
}

fn content(disk: &SimDisk) -> Option<Vec<u8>> {
    let file = disk.open(Path::new(FILE), OpenMode::Read).ok()?;
    Some(file.read_at(0, 1 << 20).unwrap())
}

#[test]
fn a_killed_process_loses_its_handles_and_nothing_it_wrote() {
    let (disk, file) = disk(1);
    let _lock = disk.lock(Path::new("/data/lock")).unwrap();
    write(&*file, 0, b"written").unwrap();
    disk.kill_process();
    let late = write(&*file, 0, b"too late").unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Other);
    assert_eq!(content(&disk).unwrap(), b"written");
    let _again = disk.lock(Path::new("/data/lock")).unwrap();
    let second = disk.lock(Path::new("/data/lock")).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::WouldBlock);
}

#[test]
fn power_loss_keeps_what_was_synced_and_some_of_the_rest() {
    let (mut lost, mut kept, mut torn, mut nameless) = (0, 0, 0, 0);
    for seed in 0..200 {
        let (disk, file) = disk(seed);
        write(&*file, 0, &[1; 2048]).unwrap();
        file.sync().unwrap();
        if seed % 2 == 0 {
            disk.sync_dir(Path::new(DIR)).unwrap();
        }
        write(&*file, 1024, &[2; 2048]).unwrap();
        disk.crash();
        let Some(bytes) = content(&disk) else {
            assert_ne!(seed % 2, 0, "a synced name was lost");
            nameless += 1;
            continue;
        };
        assert_eq!(&bytes[..1024], &[1; 1024]);
        let new = bytes.iter().filter(|&&b| b == 2).count();
        assert_eq!(new % 512, 0, "torn inside a sector");
        match new {
            0 => lost += 1,
            2048 => kept += 1,
            _ => torn += 1,
        }
    }
    assert!(lost > 0 && kept > 0 && torn > 0 && nameless > 0);
}

#[test]
fn a_rename_is_durable_once_its_folder_is_synced() {
    let (disk, file) = disk(3);
    write(&*file, 0, b"new").unwrap();
    file.sync().unwrap();
    let to = Path::new("/data/renamed");
    disk.rename(Path::new(FILE), to).unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    disk.crash();
    assert!(content(&disk).is_none());
    let renamed = disk.open(to, OpenMode::Read).unwrap();
    assert_eq!(renamed.read_at(0, 10).unwrap(), b"new");
    let names = disk.list(Path::new(DIR)).unwrap();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn folders_move_and_go_with_what_is_in_them() {
    let (disk, _file) = disk(4);
    disk.rename(Path::new(DIR), Path::new("/aside")).unwrap();
    assert!(disk.open(Path::new("/aside/file"), OpenMode::Read).is_ok());
    disk.remove_dir_all(Path::new("/aside")).unwrap();
    let gone = disk.list(Path::new("/aside")).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[test]
fn a_full_disk_refuses_growth_and_nothing_else() {
    let (disk, file) = disk(5);
    write(&*file, 0, b"0123").unwrap();
    disk.set_full(true);
    assert_eq!(disk.free_space(Path::new(DIR)).unwrap(), 0);
    write(&*file, 0, b"abcd").unwrap();
    let grown = write(&*file, 2, b"xyz!").unwrap_err();
    assert_eq!(grown.kind(), ErrorKind::StorageFull);
    let path = Path::new("/data/other");
    let created = disk.open(path, OpenMode::Create).unwrap_err();
    assert_eq!(created.kind(), ErrorKind::StorageFull);
    disk.set_full(false);
    write(&*file, 2, b"xyz!").unwrap();
    assert_eq!(content(&disk).unwrap(), b"abxyz!");
}

#[test]
fn errors_delays_lies_and_rot_happen_as_ordered() {
    let (disk, file) = disk(6);
    disk.sync_dir(Path::new(DIR)).unwrap();
    disk.fail_writes(1);
    assert!(write(&*file, 0, b"x").is_err());
    write(&*file, 0, b"x").unwrap();
    disk.fail_syncs(1);
    assert!(file.sync().is_err());
    disk.set_sync_time(Duration::from_millis(7));
    file.sync().unwrap();
    assert_eq!(disk.take_delay(), Duration::from_millis(7));
    assert_eq!(disk.take_delay(), Duration::ZERO);
    assert!(disk.rot(|_, _| false).is_none());
    let (path, position) = disk.rot(|_, used| used == 1).unwrap();
    assert_eq!((path.as_path(), position), (Path::new(FILE), 0));
    assert_ne!(content(&disk).unwrap(), b"x");
    write(&*file, 0, &[1; 100]).unwrap();
    for _ in 0..20 {
        let (_, position) = disk.rot_end(10, |_, _| true).unwrap();
        assert!((90..100).contains(&position), "{position}");
    }
    // What a lying disk acknowledged is gone for at least some seeds.
    let losses = (0..50).filter(|&seed| {
        let (disk, file) = self::disk(seed);
        disk.sync_dir(Path::new(DIR)).unwrap();
        disk.lie_about_syncs(true);
        write(&*file, 0, b"acknowledged").unwrap();
        file.sync().unwrap();
        disk.crash();
        content(&disk).unwrap() != b"acknowledged"
    });
    assert!(losses.count() > 10);
}

#[test]
fn faults_begin_after_as_many_operations_as_were_said() {
    let (disk, file) = disk(7);
    disk.full_once_after(1);
    write(&*file, 0, &[1; 500]).unwrap();
    let full = write(&*file, 500, &[2; 1100]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    assert_eq!(
        content(&disk).unwrap().len(),
        1024,
        "whole blocks of its first half"
    );
    write(&*file, 500, &[2; 1100]).unwrap();
    assert_eq!(content(&disk).unwrap().len(), 1600);
    file.set_len(0).unwrap();
    write(&*file, 0, b"firstsecond").unwrap();
    disk.fill_after(2);
    write(&*file, 11, b"x").unwrap();
    assert!(disk.free_space(Path::new(DIR)).unwrap() > 0);
    write(&*file, 12, b"y").unwrap();
    assert_eq!(disk.free_space(Path::new(DIR)).unwrap(), 0);
    assert!(write(&*file, 13, b"z").is_err());
    assert!(write(&*file, 13, b"z").is_err(), "it stays full");
    disk.set_full(false);
    disk.fail_writes_after(1, 2);
    write(&*file, 13, b"z").unwrap();
    assert!(write(&*file, 14, b"!").is_err() && write(&*file, 14, b"!").is_err());
    write(&*file, 14, b"!").unwrap();
    disk.fail_syncs_after(1, 1);
    file.sync().unwrap();
    assert!(file.sync().is_err());
    disk.fail_reads_after(0, 1);
    assert!(file.read_at(0, 1).is_err());
    assert_eq!(content(&disk).unwrap(), b"firstsecondxyz!");
}

#[test]
fn the_power_goes_in_the_middle_and_comes_back_with_what_was_synced() {
    let (disk, file) = disk(8);
    disk.sync_dir(Path::new(DIR)).unwrap();
    write(&*file, 0, b"kept").unwrap();
    file.sync().unwrap();
    disk.lose_power_after(1);
    write(&*file, 0, b"lost or kept").unwrap();
    assert!(!disk.is_powerless());
    assert!(file.sync().is_err() && file.read_at(0, 4).is_err());
    assert!(disk.remove_file(Path::new(FILE)).is_err());
    let to = Path::new("/data/renamed");
    assert!(disk.rename(Path::new(FILE), to).is_err());
    assert!(disk.is_powerless());
    // A process that is killed then does not bring it back.
    disk.kill_process();
    assert!(disk.open(Path::new("/data/new"), OpenMode::Create).is_err());
    disk.crash();
    assert!(!disk.is_powerless());
    let bytes = content(&disk).unwrap();
    assert!(bytes == b"kept" || bytes == b"lost or kept", "{bytes:?}");
}

#[test]
fn slow_operations_end_when_the_disk_is_fast_again() {
    use seriatim_runtime::sim::clock;
    let (disk, file) = disk(9);
    clock::stand_still(Duration::from_secs(10));
    disk.slow_syncs(Duration::from_secs(3), Duration::from_secs(12));
    file.sync().unwrap();
    assert_eq!(disk.take_delay(), Duration::from_secs(2));
    disk.slow_reads(Duration::from_millis(5), Duration::from_secs(12));
    let _bytes = file.read_at(0, 1).unwrap();
    assert_eq!(disk.take_delay(), Duration::from_millis(5));
    clock::stand_still(Duration::from_secs(12));
    file.sync().unwrap();
    assert_eq!(disk.take_delay(), Duration::ZERO);
    clock::stand_still(Duration::ZERO);
}

#[test]
fn a_replaced_disk_is_empty_and_old_handles_fail() {
    let (disk, file) = disk(10);
    disk.sync_dir(Path::new(DIR)).unwrap();
    write(&*file, 0, b"gone").unwrap();
    file.sync().unwrap();
    disk.wipe();
    assert!(disk.list(Path::new(DIR)).is_err());
    assert!(write(&*file, 0, b"x").is_err());
    disk.create_dir_all(Path::new(DIR)).unwrap();
    let new = disk.open(Path::new(FILE), OpenMode::CreateNew).unwrap();
    assert_eq!(new.len().unwrap(), 0);
}
