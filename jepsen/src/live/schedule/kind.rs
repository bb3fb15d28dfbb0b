//! The kinds of faults that a run can be asked for.

use clap::ValueEnum;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// SIGKILL to some nodes; they are started again
    Kill,
    /// SIGKILL to all nodes at once
    KillAll,
    /// SIGSTOP to some nodes, then SIGCONT
    Pause,
    /// SIGTERM to a node, which is started again
    Restart,
    /// Nodes that do not hear each other, in every shape
    Partition,
    /// Packets that are lost
    Loss,
    /// Clients whose connections are slow, thin, or cut after the request went through
    Proxy,
    /// Wall clocks that jump and are wrong
    Clock,
    /// A disk without room
    FullDisk,
    /// Nodes that lose what they did not sync
    PowerLoss,
    /// Bits that flip in files at rest
    Rot,
    /// Syncs that take long
    SlowDisk,
    /// Syncs that do not return
    StuckDisk,
    /// Syncs that fail
    FailingDisk,
    /// Nodes that are added, decommissioned, and replaced with an empty disk
    Membership,
    /// All nodes, one after the other, from one build to another
    Upgrade,
}

impl Kind {
    /// As it is written.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it is something that an operator does, one thing after the other.
    pub const fn is_operator(self) -> bool {
        matches!(self, Self::Rot | Self::Membership | Self::Upgrade)
    }

    /// Whether it needs disks that can be told to fail.
    pub const fn is_disk(self) -> bool {
        matches!(
            self,
            Self::FullDisk
                | Self::PowerLoss
                | Self::Rot
                | Self::SlowDisk
                | Self::StuckDisk
                | Self::FailingDisk
        )
    }
}

/// The kinds of a list such as `kill,pause`, or `all`.
///
/// # Errors
/// For a name that is none.
pub fn parse(list: &str) -> Result<Vec<Kind>, String> {
    let mut kinds = Vec::new();
    for name in list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        match name {
            "all" => kinds.extend(Kind::value_variants()),
            "none" => {}
            name => kinds.push(one(name)?),
        }
    }
    kinds.sort_unstable();
    kinds.dedup();
    Ok(kinds)
}

fn one(name: &str) -> Result<Kind, String> {
    Kind::from_str(name, false).map_err(|_unknown| {
        let names = Kind::value_variants().iter().map(|kind| kind.name());
        let names: Vec<String> = names.collect();
        format!(
            "'{name}' is no nemesis; choose of all, none, {}",
            names.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_kinds() {
        let listed = parse("pause, kill,kill").unwrap();
        assert_eq!(listed, [Kind::Kill, Kind::Pause]);
        assert_eq!(parse("all").unwrap(), Kind::value_variants());
        assert_eq!(parse("none").unwrap(), []);
        assert!(parse("kil").unwrap_err().contains("full-disk"));
    }
}
