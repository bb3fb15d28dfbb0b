//! The disk of live runs, mounted: what is synced survives a power loss, what is not may go.
//!
//! Where nobody may mount a FUSE file system there is nothing to test; the tests say so.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "the helpers of a test, which may fail and say why it did not run"
)]

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader, Lines, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use seriatim_storage::{MetaBatch, Storage, StorageOptions, disk::PosixDisk};

/// Where the process of a test finds its data folder, if it is one that is to be killed.
const FOLDER: &str = "SERIATIM_JEPSEN_TEST_FOLDER";

struct Disk {
    folder: tempfile::TempDir,
    process: Child,
    commands: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Disk {
    /// `None` where nobody may mount.
    fn mount(seed: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let (mount, store) = (folder.path().join("mount"), folder.path().join("store"));
        fs::create_dir(&mount).unwrap();
        fs::create_dir(&store).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_seriatim-jepsen"))
            .arg("fuse-disk")
            .args([&mount, &store])
            .args(["--seed", &seed.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = process.stdin.take();
        let mut answers = BufReader::new(process.stdout.take().unwrap()).lines();
        if answers.next().is_none() {
            let status = process.wait().unwrap();
            eprintln!("not tested: no FUSE file system can be mounted here ({status})");
            return None;
        }
        Some(Self {
            folder,
            process,
            commands,
            answers,
        })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    fn tell(&mut self, command: &str) -> String {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
        let answer = self.answers.next().unwrap().unwrap();
        assert!(answer.starts_with("{\"done\":"), "{command}: {answer}");
        answer
    }

    /// Loses power until everything that was not synced is lost.
    fn lose_all(&mut self) {
        for _ in 0..100 {
            let _what = self.tell("\"power-loss\"");
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.commands.take());
        let _status = self.process.wait();
    }
}

fn sync_dir(path: &Path) {
    File::open(path).unwrap().sync_all().unwrap();
}

#[test]
fn files_and_names_survive_once_they_are_synced() {
    let Some(mut disk) = Disk::mount(1) else {
        return;
    };
    let root = disk.path();
    fs::create_dir(root.join("folder")).unwrap();
    let path = root.join("folder/file");
    let mut file = File::create(&path).unwrap();
    file.write_all(&[1; 100_000]).unwrap();
    file.sync_data().unwrap();
    sync_dir(&root.join("folder"));
    sync_dir(&root);
    // The first power loss after this may or may not take it; whole old sectors or whole new ones.
    file.write_all_at(&[2; 512], 4096).unwrap();
    fs::write(root.join("folder/unsynced"), "x").unwrap();
    drop(file);
    let _what = disk.tell("\"power-loss\"");
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 100_000);
    let changed: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] != 1).collect();
    assert!(changed.is_empty() || changed == (4096..4608).collect::<Vec<_>>());

    fs::rename(&path, root.join("folder/renamed")).unwrap();
    sync_dir(&root.join("folder"));
    disk.lose_all();
    assert!(!path.try_exists().unwrap());
    assert_eq!(
        fs::read(root.join("folder/renamed")).unwrap().len(),
        100_000
    );
    fs::remove_file(root.join("folder/renamed")).unwrap();
    sync_dir(&root.join("folder"));
    disk.lose_all();
    assert!(!root.join("folder/renamed").try_exists().unwrap());
}

#[test]
fn a_disk_is_full_slow_stuck_and_failing_when_it_is_told_to() {
    let Some(mut disk) = Disk::mount(1) else {
        return;
    };
    let path = disk.path().join("file");
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(&path)
        .unwrap();
    file.write_all(&[1; 1000]).unwrap();
    let _what = disk.tell("{\"room\":100000}");
    let full = file.write_all(&vec![1; 1 << 20]).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    file.write_all_at(&[2; 1000], 0).unwrap();
    let _what = disk.tell("{\"room\":null}");
    file.write_all(&[1; 1000]).unwrap();

    let _what = disk.tell("{\"failing\":true}");
    assert!(file.sync_data().is_err());
    let _what = disk.tell("{\"failing\":false}");

    let _what = disk.tell("{\"slow\":400}");
    let began = Instant::now();
    for _ in 0..5 {
        file.sync_data().unwrap();
    }
    assert!(began.elapsed() > Duration::from_millis(200));
    let _what = disk.tell("{\"slow\":0}");

    let _what = disk.tell("{\"stuck\":true}");
    let (done, ended) = std::sync::mpsc::channel();
    let syncing = std::thread::spawn(move || {
        file.sync_data().unwrap();
        done.send(()).unwrap();
    });
    assert!(ended.recv_timeout(Duration::from_millis(300)).is_err());
    let _what = disk.tell("{\"stuck\":false}");
    ended.recv_timeout(Duration::from_secs(10)).unwrap();
    syncing.join().unwrap();
}

#[test]
fn a_flushed_metadata_store_survives() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return flush_and_wait(Path::new(&folder));
    }
    for seed in 0..6 {
        let Some(mut disk) = Disk::mount(seed) else {
            return;
        };
        let folder = disk.path();
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_flushed_metadata_store_survives",
                "--nocapture",
            ])
            .env(FOLDER, &folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(writer.stdout.take().unwrap());
        let flushed = output
            .lines()
            .any(|line| line.unwrap().ends_with("flushed"));
        assert!(flushed, "the writer did not flush");
        writer.kill().unwrap();
        let _status = writer.wait().unwrap();
        let _what = disk.tell("\"power-loss\"");
        let storage = open(&folder);
        let value = storage.meta().get(b"key").unwrap();
        assert_eq!(value.as_deref(), Some(&b"value"[..]), "seed {seed}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(storage.shutdown());
    }
}

fn open(folder: &Path) -> Storage {
    let disk = std::sync::Arc::new(PosixDisk);
    Storage::open(disk, folder, StorageOptions::default()).unwrap()
}

/// What the process does that is killed.
fn flush_and_wait(folder: &Path) {
    let storage = open(folder);
    let mut batch = MetaBatch::default();
    batch.put(&b"key"[..], &b"value"[..]);
    storage.meta().transact(batch).unwrap();
    storage.meta().flush().unwrap();
    println!("flushed");
    // Until it is killed, or nobody is there any more who would.
    let _ended = std::io::stdin().lines().count();
}
