//! One fault with its parameters.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Kind, Shape};

/// What is broken, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// SIGKILL.
    Kill {
        /// To whom.
        nodes: Vec<u64>,
    },
    /// SIGSTOP.
    Pause {
        /// To whom.
        nodes: Vec<u64>,
    },
    /// SIGTERM.
    Restart {
        /// To whom.
        node: u64,
    },
    /// Nodes do not hear each other.
    Partition {
        /// Which.
        shape: Shape,
    },
    /// Packets that come to a node are lost.
    Loss {
        /// The node.
        node: u64,
        /// How many of a hundred.
        percent: u8,
    },
    /// What clients send and are sent.
    Proxy {
        /// Through which node's proxy.
        node: u64,
        /// What becomes of it.
        weather: Weather,
    },
    /// The wall clock of a node jumps.
    Clock {
        /// The node.
        node: u64,
        /// By so many milliseconds from the right time.
        offset_ms: i64,
    },
    /// No room on the disk.
    FullDisk {
        /// Of which node.
        node: u64,
        /// But for so many bytes. A node refuses appends before there are none.
        room_bytes: u64,
    },
    /// SIGKILL, and what was not synced is lost.
    PowerLoss {
        /// Of which nodes.
        nodes: Vec<u64>,
    },
    /// Bits flip in files of partitions.
    Rot {
        /// Of which node.
        node: u64,
        /// How many.
        flips: u32,
    },
    /// Syncs take long.
    SlowDisk {
        /// Of which node.
        node: u64,
        /// How long, at most.
        sync_ms: u64,
    },
    /// Syncs do not return.
    StuckDisk {
        /// Of which node.
        node: u64,
    },
    /// Syncs fail. Then the power does.
    FailingDisk {
        /// Of which node.
        node: u64,
    },
    /// A node more, and a share of all partitions for it.
    Grow {
        /// The new node.
        node: u64,
    },
    /// Everything is moved away from a node, which is stopped then.
    Shrink {
        /// The node.
        node: u64,
    },
    /// A node comes back with an empty disk.
    Replace {
        /// The node.
        node: u64,
    },
    /// The next build, one node after the other.
    Upgrade,
}

/// What becomes of what clients send and are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weather {
    /// Everything arrives so many milliseconds later.
    Slow(u64),
    /// So many bytes per second and connection.
    Thin(u64),
    /// Of so many answers one is dropped, and its connection is cut.
    DropAnswers(u64),
    /// Connections are cut after so many milliseconds.
    Reset(u64),
    /// Nobody gets through.
    Closed,
}

impl Fault {
    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Kill { .. } => Kind::Kill,
            Self::Pause { .. } => Kind::Pause,
            Self::Restart { .. } => Kind::Restart,
            Self::Partition { .. } => Kind::Partition,
            Self::Loss { .. } => Kind::Loss,
            Self::Proxy { .. } => Kind::Proxy,
            Self::Clock { .. } => Kind::Clock,
            Self::FullDisk { .. } => Kind::FullDisk,
            Self::PowerLoss { .. } => Kind::PowerLoss,
            Self::Rot { .. } => Kind::Rot,
            Self::SlowDisk { .. } => Kind::SlowDisk,
            Self::StuckDisk { .. } => Kind::StuckDisk,
            Self::FailingDisk { .. } => Kind::FailingDisk,
            Self::Grow { .. } | Self::Shrink { .. } | Self::Replace { .. } => Kind::Membership,
            Self::Upgrade => Kind::Upgrade,
        }
    }

    /// The nodes whose process or disk is in its hands, so that no other fault may have them.
    pub fn nodes(&self) -> Vec<u64> {
        match self {
            Self::Kill { nodes } | Self::Pause { nodes } | Self::PowerLoss { nodes } => {
                nodes.clone()
            }
            Self::Restart { node }
            | Self::FullDisk { node, .. }
            | Self::Rot { node, .. }
            | Self::SlowDisk { node, .. }
            | Self::StuckDisk { node }
            | Self::FailingDisk { node }
            | Self::Replace { node } => vec![*node],
            Self::Partition { .. }
            | Self::Loss { .. }
            | Self::Proxy { .. }
            | Self::Clock { .. }
            | Self::Grow { .. }
            | Self::Shrink { .. }
            | Self::Upgrade => Vec::new(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { nodes } => write!(f, "kill {nodes:?}"),
            Self::Pause { nodes } => write!(f, "pause {nodes:?}"),
            Self::Restart { node } => write!(f, "restart node {node}"),
            Self::Partition { shape } => write!(f, "partition: {shape}"),
            Self::Loss { node, percent } => {
                write!(f, "{percent} % of the packets to node {node} are lost")
            }
            Self::Proxy { node, weather } => write!(f, "clients of node {node}: {weather}"),
            Self::Clock { node, offset_ms } => {
                write!(f, "the clock of node {node} is {offset_ms} ms off")
            }
            Self::FullDisk { node, room_bytes } => {
                write!(
                    f,
                    "the disk of node {node} is full but for {room_bytes} bytes"
                )
            }
            Self::PowerLoss { nodes } => write!(f, "power loss of {nodes:?}"),
            Self::Rot { node, flips } => write!(f, "{flips} bits of node {node} flip"),
            Self::SlowDisk { node, sync_ms } => {
                write!(f, "syncs of node {node} take up to {sync_ms} ms")
            }
            Self::StuckDisk { node } => write!(f, "syncs of node {node} are stuck"),
            Self::FailingDisk { node } => write!(f, "syncs of node {node} fail"),
            Self::Grow { node } => write!(f, "add node {node}"),
            Self::Shrink { node } => write!(f, "decommission node {node}"),
            Self::Replace { node } => write!(f, "node {node} loses its disk"),
            Self::Upgrade => write!(f, "upgrade all nodes, one after the other"),
        }
    }
}

impl fmt::Display for Weather {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow(ms) => write!(f, "{ms} ms more each way"),
            Self::Thin(bytes) => write!(f, "{bytes} bytes per second"),
            Self::DropAnswers(of) => write!(f, "one answer of {of} is dropped"),
            Self::Reset(ms) => write!(f, "connections are reset after {ms} ms"),
            Self::Closed => write!(f, "nobody gets through"),
        }
    }
}
