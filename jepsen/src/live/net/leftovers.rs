//! What a run left behind whose janitor was killed as well.

use std::path::Path;

use crate::live::tool;

/// Names of namespaces and links begin with this and the id of the process that made them.
pub(super) const PREFIX: &str = "sj";

/// What the kernel's table of mounts calls a disk: this and the id of the process of its run.
pub(in crate::live) const DISK: &str = "seriatim-jepsen-";

/// The process that made something of this name, if it is one of a run.
pub(super) fn owner(name: &str) -> Option<u32> {
    let rest = name.strip_prefix(PREFIX)?;
    let digits = rest.split('-').next()?;
    digits.parse().ok()
}

/// Whether a run still goes on in that process.
fn runs(pid: u32) -> bool {
    // A process that has ended and that nobody has waited for has no program any more.
    let program = std::fs::read_link(format!("/proc/{pid}/exe"));
    let is_run = |name: &str| name.starts_with("seriatim-jepsen") || name.starts_with("seriatim_");
    let own = std::env::current_exe();
    program.is_ok_and(|program| {
        let name = program.file_name().and_then(|name| name.to_str());
        name.is_some_and(is_run) || own.is_ok_and(|own| own == program)
    })
}

/// Removes the namespaces of dead runs, with the processes in them, and their links.
pub(super) async fn remove() -> anyhow::Result<Vec<String>> {
    let mut removed = Vec::new();
    let list = tool::run("ip", &["netns", "list"]).await?;
    let names = list
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    for name in names.filter(|name| is_dead(name)) {
        let pids = tool::run("ip", &["netns", "pids", name]).await?;
        for pid in pids.split_whitespace() {
            // It may have ended since.
            let _gone = tool::run("kill", &["-9", pid]).await;
        }
        let _nothing = tool::run("ip", &["netns", "del", name]).await?;
        removed.push(name.to_owned());
    }
    let links = std::fs::read_dir(Path::new("/sys/class/net"));
    for link in links.into_iter().flatten().flatten() {
        let name = link.file_name();
        if let Some(name) = name.to_str().filter(|name| is_dead(name)) {
            // It goes with the namespace of its other end, sooner or later.
            let _gone = tool::run("ip", &["link", "del", name]).await;
            removed.push(name.to_owned());
        }
    }
    Ok(removed)
}

/// Unmounts the disks of dead runs.
pub(in crate::live) async fn unmount() -> anyhow::Result<()> {
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        let (Some(name), Some(place)) = (fields.next(), fields.next()) else {
            continue;
        };
        let owner = name.strip_prefix(DISK).and_then(|pid| pid.parse().ok());
        if owner.is_some_and(|pid| !runs(pid)) {
            tracing::warn!(place, "unmounting what a dead run left behind");
            let place = place.replace("\\040", " ");
            let _nothing = tool::run("umount", &["-l", &place]).await?;
        }
    }
    Ok(())
}

fn is_dead(name: &str) -> bool {
    owner(name).is_some_and(|pid| !runs(pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_runs_have_an_owner() {
        assert_eq!(owner("sj4711-n1"), Some(4711));
        assert_eq!(owner("sj4711"), Some(4711));
        for other in ["docker0", "sjx", "sj", "eth0", "sj-n1"] {
            assert_eq!(owner(other), None, "{other}");
        }
        assert!(!runs(u32::MAX));
    }
}
