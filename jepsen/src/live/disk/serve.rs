//! The process that is a disk.

use std::{
    io::{BufRead as _, Write as _},
    os::unix::process::parent_id,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use fuser::{Config, MountOption, SessionACL};

use super::{
    control::{Answer, Command},
    fs::Fs,
    image::Image,
    syncs::Syncs,
};
use crate::live::{net::leftovers::DISK, tool};

/// Mounts a disk and does what the lines of standard input say, until they end.
///
/// # Errors
/// If it cannot be mounted.
pub fn serve(mount: &Path, store: &Path, seed: u64) -> anyhow::Result<()> {
    let syncs = Syncs::of(Image::new(store, seed), seed);
    let mut config = Config::default();
    config.acl = SessionACL::Owner;
    config.mount_options = vec![
        MountOption::FSName(format!("{DISK}{}", parent_id())),
        MountOption::Subtype("seriatim".to_owned()),
        MountOption::NoAtime,
        MountOption::NoDev,
        MountOption::NoSuid,
    ];
    let fs = Fs {
        syncs: Arc::clone(&syncs),
    };
    let session = fuser::spawn_mount(fs, mount, &config)
        .with_context(|| format!("mount a disk at {}", mount.display()))?;
    answer(&Answer::Done("mounted".to_owned()))?;
    for line in std::io::stdin().lock().lines() {
        let told = match serde_json::from_str(&line?) {
            Ok(command) => carry_out(&syncs, &command),
            Err(error) => Answer::Failed(error.to_string()),
        };
        answer(&told)?;
    }
    // Whoever still waits for a sync would keep the mount busy.
    syncs.with(|state| {
        state.stuck = false;
        state.give_up();
    });
    if session.umount_and_join().is_err() {
        // Somebody still has a file open: a store that was closed just now, or an onlooker. It is of no
        // use to them, because the disk ends with this process.
        detach(mount)?;
    }
    Ok(())
}

/// Takes the mount away, whoever uses it.
fn detach(mount: &Path) -> anyhow::Result<()> {
    let (program, args): (_, &[&str]) = if rustix::process::geteuid().is_root() {
        ("umount", &["-l"])
    } else {
        ("fusermount3", &["-u", "-z"])
    };
    let path = tool::find(program).with_context(|| format!("{program} is not installed"))?;
    let status = std::process::Command::new(path)
        .args(args)
        .arg(mount)
        .status();
    let status = status.with_context(|| format!("run {program}"))?;
    ensure!(status.success(), "{program} {}: {status}", mount.display());
    Ok(())
}

fn answer(answer: &Answer) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

fn carry_out(syncs: &Syncs, command: &Command) -> Answer {
    let done = syncs.with(|state| {
        match *command {
            Command::Room(bytes) => state.image.set_room(bytes),
            Command::Slow(ms) => state.slow = Duration::from_millis(ms),
            Command::Stuck(stuck) => state.stuck = stuck,
            Command::Failing(failing) => state.failing = failing,
            Command::PowerLoss => {
                state.give_up();
                return state.image.crash();
            }
            Command::Rot(flips) => return state.image.rot(flips),
        }
        Ok(String::new())
    });
    match done {
        Ok(what) => Answer::Done(what),
        Err(error) => Answer::Failed(error.to_string()),
    }
}
