//! How a run is made up.

use std::{path::PathBuf, time::Duration};

use super::schedule::Kind;

/// What the command line says.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nodes at the beginning.
    pub nodes: u64,
    /// What is broken.
    pub kinds: Vec<Kind>,
    /// How long.
    pub time: Duration,
    /// Where everything is written to.
    pub out: PathBuf,
    /// What the schedule is drawn from.
    pub seed: u64,
    /// The binary, if it is not the one of this build.
    pub binary: Option<PathBuf>,
    /// An older binary, which nodes begin with, for upgrades.
    pub old_binary: Option<PathBuf>,
    /// Records per second that all producers send together.
    pub rate: u64,
    /// A schedule to play instead of one that is drawn.
    pub schedule: Option<PathBuf>,
    /// No namespaces, even if there could be some.
    pub loopback: bool,
}

impl Options {
    /// The longest time that recovery may take.
    pub const RECOVERY_MAX: Duration = Duration::from_secs(10);
}
