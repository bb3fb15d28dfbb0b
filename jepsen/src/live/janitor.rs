//! Undoes what a run did to the machine, however the run ends.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use parking_lot::Mutex;

/// Keeps a list of commands, by number; a number alone takes one back. Runs them at the end of its
/// input, the last first. That end comes when this process closes it, or is gone.
const SCRIPT: &str = "trap '' INT TERM HUP
while read -r id command; do
  if [ -n \"$command\" ]; then eval \"undo_$id=\\$command\"; order=\"$id $order\"
  else unset \"undo_$id\"; fi
done
for id in $order; do eval \"command=\\${undo_$id-}\"; eval \"$command\"; done";

/// A shell that outlives this process for as long as it takes to clean up behind it.
#[derive(Debug, Clone)]
pub(super) struct Janitor {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    shell: Child,
    input: Option<ChildStdin>,
    next: u64,
}

/// Something to undo.
#[derive(Debug)]
#[must_use = "a chore that is not kept cannot be taken back"]
pub(super) struct Chore {
    id: u64,
    state: Arc<Mutex<State>>,
}

impl Janitor {
    /// One with nothing to do yet.
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "seriatim-janitor"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C in the terminal is not for it.
            .process_group(0)
            .spawn()
            .context("start a shell")?;
        let input = shell.stdin.take();
        let state = State {
            shell,
            input,
            next: 0,
        };
        Ok(Self {
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// Runs a command of the shell in the end.
    pub(super) fn after(&self, command: &str) -> anyhow::Result<Chore> {
        if command.contains('\n') {
            bail!("a line break in {command:?}");
        }
        let mut state = self.state.lock();
        state.next += 1;
        let id = state.next;
        let input = state.input.as_mut().context("it has ended")?;
        writeln!(input, "{id} {command}").context("the janitor is gone")?;
        Ok(Chore {
            id,
            state: Arc::clone(&self.state),
        })
    }

    /// Kills a process in the end.
    pub(super) fn kill_after(&self, pid: u32) -> anyhow::Result<Chore> {
        self.after(&format!("kill -9 {pid}"))
    }

    /// Undoes everything that is left, now.
    pub(super) fn clean(&self) {
        self.state.lock().clean();
    }
}

impl State {
    fn clean(&mut self) {
        drop(self.input.take());
        let _status = self.shell.wait();
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.clean();
    }
}

impl Chore {
    /// It need not be undone any more.
    pub(super) fn done(self) {
        let mut state = self.state.lock();
        if let Some(input) = &mut state.input {
            // A janitor that is gone undoes nothing either.
            let _gone = writeln!(input, "{}", self.id);
        }
    }
}

/// A path as one word of the shell.
pub(super) fn quoted(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().context("a path that is not UTF-8")?;
    Ok(format!("'{}'", text.replace('\'', "'\\''")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_undone_in_reverse() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("it's here");
        let path = quoted(&file).unwrap();
        let janitor = Janitor::new().unwrap();
        let say = |what: &str| janitor.after(&format!("echo {what} >> {path}")).unwrap();
        let (_first, second, _third) = (say("one"), say("two"), say("three"));
        second.done();
        janitor.clean();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "three\none\n");
        assert!(janitor.after("true").is_err());
        assert!(quoted(Path::new("a\nb")).is_ok_and(|path| janitor.after(&path).is_err()));
    }

    #[test]
    fn a_process_that_is_left_is_killed() {
        let mut sleeper = Command::new("sleep").arg("600").spawn().unwrap();
        let janitor = Janitor::new().unwrap();
        let _chore = janitor.kill_after(sleeper.id()).unwrap();
        drop(_chore);
        drop(janitor);
        assert!(!sleeper.wait().unwrap().success());
    }
}
