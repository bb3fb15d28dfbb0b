//! `seriatim demo` as it is: it succeeds, says what it verified, and leaves nothing behind.

mod common;

use std::{fs, process::Stdio};

use common::{command, ended, processes_of, signal};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt as _, BufReader};

#[tokio::test]
async fn it_succeeds_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = command(&["demo", "--rate", "20000"]);
    let demo = demo.env("TMPDIR", folder.path()).spawn().unwrap();
    let done = ended(demo).await.ok();
    for row in [
        "events",
        "bytes",
        "events/s",
        "acknowledged events read exactly once",
        "order kept for every key",
        "replicas byte-identical",
        "writes again after SIGKILL of the leader",
    ] {
        assert!(done.text().contains(row), "'{row}' is not in {done:?}");
    }
    assert!(!done.text().contains("NO:"), "{done:?}");
    // Progress is told where there is no terminal for bars, and not among the results.
    assert!(done.err.contains("killed node "), "{done:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(processes_of(folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn ctrl_c_ends_its_nodes_and_removes_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = command(&["demo"]);
    let mut demo = demo
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(demo.stderr.take().unwrap()).lines();
    while let Some(line) = told.next_line().await.unwrap() {
        if line.contains("producing") {
            break;
        }
    }
    assert_eq!(processes_of(folder.path()).len(), 3);
    signal(&demo, Signal::INT);
    assert_eq!(ended(demo).await.code, Some(130));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(processes_of(folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = command(&["demo"]);
    let demo = demo
        .env("TMPDIR", folder.path().join("none"))
        .spawn()
        .unwrap();
    let _failed = ended(demo).await.failed(&["make a temporary folder"]);
}
