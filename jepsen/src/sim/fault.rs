//! What can go wrong.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Whom a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Who {
    /// One node: `n2`.
    Node(u64),
    /// Every node: `all`.
    All,
    /// Who leads this partition of the topic then: `leader-of-0`.
    Leader(i32),
    /// Who leads the metadata group then: `controller`.
    Controller,
    /// Who coordinates the consumer group then: `coordinator`.
    Coordinator,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "n{node}"),
            Self::All => f.write_str("all"),
            Self::Leader(partition) => write!(f, "leader-of-{partition}"),
            Self::Controller => f.write_str("controller"),
            Self::Coordinator => f.write_str("coordinator"),
        }
    }
}

impl From<Who> for String {
    fn from(who: Who) -> Self {
        who.to_string()
    }
}

impl TryFrom<String> for Who {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let leader = text.strip_prefix("leader-of-").map(str::parse);
        let node = text.strip_prefix('n').map(str::parse);
        match (text, leader, node) {
            ("all", ..) => Ok(Self::All),
            ("controller", ..) => Ok(Self::Controller),
            ("coordinator", ..) => Ok(Self::Coordinator),
            (_, Some(Ok(partition)), _) if partition >= 0 => Ok(Self::Leader(partition)),
            (_, _, Some(Ok(node))) => Ok(Self::Node(node)),
            _ => Err(format!(
                "{text:?} is nobody; write n1, all, leader-of-0, controller or coordinator"
            )),
        }
    }
}

/// What rots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rot {
    /// Records of a partition. The replica is set aside and built anew.
    Segment,
    /// The index at the end of a file of records that is not written to any more. It is made anew from the
    /// records.
    Index,
    /// The journal of votes. The node must not start again; its operator gives it an empty disk.
    Votes,
    /// A small file beside the records: where the log starts, what was checked, what is durable. The
    /// replica is set aside, or the file is made anew from the records.
    Small,
}

/// What is broken. Everything but what happens at once lasts until its strike ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// The process is gone; what it wrote stays.
    Kill {
        /// Whose.
        who: Who,
    },
    /// The process is told to stop, as by a signal: it hands over what it leads, and ends. What has
    /// not ended when the strike does is killed.
    Stop {
        /// Whose.
        who: Who,
    },
    /// The process is killed, started, and killed again while it starts, over and over.
    CrashLoop {
        /// Whose.
        who: Who,
        /// How long it lives each time.
        lives_ms: u64,
    },
    /// One node after the other is killed and started again.
    RollingKill {
        /// How long each is down, and as long up before the next one.
        down_ms: u64,
    },
    /// The machine is gone; what was not synced may be lost.
    PowerLoss {
        /// Whose.
        who: Who,
        /// Not at once, but in the middle of what it does: at this operation of its disk from then on.
        #[serde(default, skip_serializing_if = "is_zero")]
        after_ops: u64,
    },
    /// The process stands still and then goes on, as if stopped by a signal.
    Pause {
        /// Whose.
        who: Who,
    },
    /// The machine comes back with an empty disk when the strike ends, under its old id.
    LoseDisk {
        /// Whose.
        node: u64,
    },
    /// Nodes talk only to those that they share a side with. A node may be on several sides.
    Split {
        /// Who talks to whom.
        sides: Vec<Vec<u64>>,
    },
    /// A node talks to no other.
    Isolate {
        /// Which.
        who: Who,
        /// Nor do clients reach it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        clients: bool,
    },
    /// Nothing gets from one node to the other.
    OneWay {
        /// Who is not heard.
        from: Who,
        /// Who does not hear.
        to: Who,
    },
    /// A node's network goes and comes.
    Flap {
        /// Whose.
        who: Who,
        /// How long it is away, and how long there.
        every_ms: u64,
    },
    /// Connections between two nodes break.
    Reset {
        /// One.
        a: u64,
        /// The other.
        b: u64,
    },
    /// One end forgets its connections, the other does not learn it before it sends something.
    HalfOpen {
        /// Who forgets.
        from: u64,
        /// Who believes.
        to: u64,
    },
    /// What is under way on the connections that there are arrives late: after the sender has given them
    /// up and connected anew, when the strike ends.
    Late {
        /// Who sends.
        from: u64,
        /// Who receives.
        to: u64,
        /// How much later than the strike's end.
        late_ms: u64,
    },
    /// A node's links are slow.
    SlowLink {
        /// Whose.
        who: Who,
        /// What every message takes in addition.
        delay_ms: u64,
        /// Bytes per second.
        bytes_per_s: u64,
    },
    /// A node's links lose packets: bytes are sent again, attempts to connect too.
    Loss {
        /// Whose.
        who: Who,
        /// Of a hundred.
        percent: u8,
    },
    /// Attempts to connect to a node arrive twice: it accepts connections that nobody has.
    Ghosts {
        /// Whose.
        who: Who,
        /// Of a hundred.
        percent: u8,
    },
    /// Clients do not reach a node.
    CutClients {
        /// Which.
        who: Who,
    },
    /// Requests of clients, and answers to them, are lost.
    LoseCalls {
        /// Of a hundred requests.
        requests: u8,
        /// Of a hundred answers.
        answers: u8,
    },
    /// Requests of clients take long.
    SlowCalls {
        /// At most.
        most_ms: u64,
    },
    /// Requests of producer sessions arrive a second time, later.
    RepeatCalls {
        /// Of a hundred.
        percent: u8,
        /// At most so much later.
        most_ms: u64,
    },
    /// Syncs take long.
    SlowSync {
        /// Whose.
        who: Who,
        /// How long each takes, though none beyond the end of the strike.
        sync_ms: u64,
    },
    /// Reads take long.
    SlowRead {
        /// Whose.
        who: Who,
        /// How long each takes.
        read_ms: u64,
    },
    /// Nothing can be written: no file grows any more. If that comes out of the blue, after some writes,
    /// the node's operator restarts it when there is room again.
    FullDisk {
        /// Whose.
        who: Who,
        /// After so many writes.
        #[serde(default, skip_serializing_if = "is_zero")]
        after_writes: u64,
    },
    /// A single write finds the disk full half way, the next one does not. When the strike ends, the node is
    /// restarted.
    FullOnce {
        /// Whose.
        who: Who,
        /// After so many writes.
        after_writes: u64,
    },
    /// A write, a sync or a read fails. What it hit has stopped for good; when the strike ends, the node's
    /// operator restarts it.
    BadDisk {
        /// Whose.
        who: Who,
        /// What fails.
        op: DiskOp,
        /// After so many of them.
        after: u64,
        /// How many fail.
        count: u64,
    },
    /// A bit flips.
    BitRot {
        /// Whose.
        node: u64,
        /// In what.
        file: Rot,
    },
    /// The wall clock is wrong by so much until the strike ends.
    ClockJump {
        /// Whose.
        who: Who,
        /// Forward, or back.
        by_ms: i64,
    },
    /// The wall clock, and all that a node waits for, runs at another speed.
    ClockDrift {
        /// Whose.
        who: Who,
        /// Of what is right.
        percent: u32,
    },
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// What a disk does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskOp {
    /// A write.
    Write,
    /// A sync of a file or a folder.
    Sync,
    /// A read.
    Read,
}

impl DiskOp {
    fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Sync => "sync",
            Self::Read => "read",
        }
    }
}

impl Fault {
    /// The name of its kind, as in a schedule.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::Stop { .. } => "stop",
            Self::CrashLoop { .. } => "crash-loop",
            Self::RollingKill { .. } => "rolling-kill",
            Self::PowerLoss { .. } => "power-loss",
            Self::Pause { .. } => "pause",
            Self::LoseDisk { .. } => "lose-disk",
            Self::Split { .. } => "split",
            Self::Isolate { .. } => "isolate",
            Self::OneWay { .. } => "one-way",
            Self::Flap { .. } => "flap",
            Self::Reset { .. } => "reset",
            Self::HalfOpen { .. } => "half-open",
            Self::Late { .. } => "late",
            Self::SlowLink { .. } => "slow-link",
            Self::Loss { .. } => "loss",
            Self::Ghosts { .. } => "ghosts",
            Self::CutClients { .. } => "cut-clients",
            Self::LoseCalls { .. } => "lose-calls",
            Self::SlowCalls { .. } => "slow-calls",
            Self::RepeatCalls { .. } => "repeat-calls",
            Self::SlowSync { .. } => "slow-sync",
            Self::SlowRead { .. } => "slow-read",
            Self::FullDisk { .. } => "full-disk",
            Self::FullOnce { .. } => "full-once",
            Self::BadDisk { .. } => "bad-disk",
            Self::BitRot { .. } => "bit-rot",
            Self::ClockJump { .. } => "clock-jump",
            Self::ClockDrift { .. } => "clock-drift",
        }
    }

    /// Everybody that it names.
    pub fn names(&self) -> Vec<Who> {
        match self {
            Self::Kill { who }
            | Self::Stop { who }
            | Self::CrashLoop { who, .. }
            | Self::PowerLoss { who, .. }
            | Self::Pause { who }
            | Self::Isolate { who, .. }
            | Self::Flap { who, .. }
            | Self::SlowLink { who, .. }
            | Self::Loss { who, .. }
            | Self::Ghosts { who, .. }
            | Self::CutClients { who }
            | Self::SlowSync { who, .. }
            | Self::SlowRead { who, .. }
            | Self::FullDisk { who, .. }
            | Self::FullOnce { who, .. }
            | Self::BadDisk { who, .. }
            | Self::ClockJump { who, .. }
            | Self::ClockDrift { who, .. } => vec![*who],
            Self::OneWay { from, to } => vec![*from, *to],
            Self::LoseDisk { node } | Self::BitRot { node, .. } => vec![Who::Node(*node)],
            Self::Reset { a, b } => vec![Who::Node(*a), Who::Node(*b)],
            Self::HalfOpen { from, to } | Self::Late { from, to, .. } => {
                vec![Who::Node(*from), Who::Node(*to)]
            }
            Self::Split { sides } => sides.iter().flatten().map(|n| Who::Node(*n)).collect(),
            Self::RollingKill { .. }
            | Self::LoseCalls { .. }
            | Self::SlowCalls { .. }
            | Self::RepeatCalls { .. } => Vec::new(),
        }
    }

    /// The node of which synced bytes are lost or changed.
    pub fn loses_data_of(&self) -> Option<u64> {
        match self {
            Self::LoseDisk { node } | Self::BitRot { node, .. } => Some(*node),
            _ => None,
        }
    }

    /// Whether it happens at once and leaves nothing to mend.
    pub fn is_instant(&self) -> bool {
        matches!(
            self,
            Self::Reset { .. }
                | Self::HalfOpen { .. }
                | Self::BitRot {
                    file: Rot::Segment | Rot::Index | Rot::Small,
                    ..
                }
        )
    }

    /// What is wrong with its numbers.
    pub fn check(&self) -> Result<(), String> {
        let percent = |n: u8| {
            if n <= 100 {
                Ok(())
            } else {
                Err(format!("{n} percent; write at most 100"))
            }
        };
        match self {
            Self::Loss { percent: n, .. } if *n > 90 => {
                Err(format!("{n} percent; above 90 write a cut instead"))
            }
            Self::Ghosts { percent: n, .. } | Self::RepeatCalls { percent: n, .. } => percent(*n),
            Self::LoseCalls { requests, answers } => percent(*requests).and(percent(*answers)),
            Self::ClockDrift { percent: n, .. } if !(25..=400).contains(n) => {
                Err(format!("{n} percent; write 25 to 400"))
            }
            Self::CrashLoop { lives_ms: 0, .. }
            | Self::RollingKill { down_ms: 0 }
            | Self::Flap { every_ms: 0, .. } => Err("an interval of 0 ms".to_owned()),
            Self::SlowLink { bytes_per_s: 0, .. } => Err("0 bytes per second".to_owned()),
            Self::Split { sides } if sides.is_empty() => Err("no side".to_owned()),
            Self::Reset { a, b }
            | Self::HalfOpen { from: a, to: b }
            | Self::Late { from: a, to: b, .. }
                if a == b =>
            {
                Err("one node twice".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Fault {
    #[expect(clippy::too_many_lines, reason = "one arm for each fault")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill { who } => write!(f, "kill {who}"),
            Self::Stop { who } => write!(f, "stop {who}"),
            Self::CrashLoop { who, lives_ms } => {
                write!(
                    f,
                    "kill {who} again and again, {lives_ms} ms after each start"
                )
            }
            Self::RollingKill { down_ms } => {
                write!(f, "kill one node after the other, for {down_ms} ms each")
            }
            Self::PowerLoss { who, after_ops: 0 } => write!(f, "power loss of {who}"),
            Self::PowerLoss { who, after_ops } => {
                write!(
                    f,
                    "power loss of {who} after {after_ops} operations of its disk"
                )
            }
            Self::Pause { who } => write!(f, "pause {who}"),
            Self::LoseDisk { node } => write!(f, "n{node} loses its disk"),
            Self::Split { sides } => write!(f, "only these talk to each other: {sides:?}"),
            Self::Isolate {
                who,
                clients: false,
            } => write!(f, "isolate {who} from the others"),
            Self::Isolate { who, clients: true } => {
                write!(f, "isolate {who} from the others and from clients")
            }
            Self::OneWay { from, to } => write!(f, "nothing gets from {from} to {to}"),
            Self::Flap { who, every_ms } => {
                write!(f, "the network of {who} goes and comes every {every_ms} ms")
            }
            Self::Reset { a, b } => write!(f, "connections of n{a} and n{b} break"),
            Self::HalfOpen { from, to } => write!(f, "n{from} forgets its connections with n{to}"),
            Self::Late { from, to, late_ms } => write!(
                f,
                "what n{from} sends n{to} arrives {late_ms} ms after it has connected anew"
            ),
            Self::SlowLink {
                who,
                delay_ms,
                bytes_per_s,
            } => {
                write!(
                    f,
                    "links of {who} take {delay_ms} ms more and carry {bytes_per_s} bytes/s"
                )
            }
            Self::Loss { who, percent } => {
                write!(f, "links of {who} lose {percent} % of all packets")
            }
            Self::Ghosts { who, percent } => {
                write!(f, "{percent} % of all connections arrive twice at {who}")
            }
            Self::CutClients { who } => write!(f, "clients do not reach {who}"),
            Self::LoseCalls { requests, answers } => {
                write!(
                    f,
                    "{requests} % of all requests and {answers} % of all answers are lost"
                )
            }
            Self::SlowCalls { most_ms } => write!(f, "requests take up to {most_ms} ms"),
            Self::RepeatCalls { percent, most_ms } => write!(
                f,
                "{percent} % of the requests of producer sessions arrive again up to {most_ms} ms later"
            ),
            Self::SlowSync { who, sync_ms } => write!(f, "a sync of {who} takes {sync_ms} ms"),
            Self::SlowRead { who, read_ms } => write!(f, "a read of {who} takes {read_ms} ms"),
            Self::FullDisk { who, after_writes } => {
                write!(f, "the disk of {who} is full after {after_writes} writes")
            }
            Self::FullOnce { who, after_writes } => write!(
                f,
                "one write of {who} finds the disk full, after {after_writes} others"
            ),
            Self::BadDisk {
                who,
                op,
                after,
                count,
            } => write!(
                f,
                "{count} {}s of {who} fail after {after} others, then it is restarted",
                op.name()
            ),
            Self::BitRot { node, file } => {
                let file = match file {
                    Rot::Segment => "the records",
                    Rot::Index => "an index",
                    Rot::Votes => "the votes",
                    Rot::Small => "a small file",
                };
                write!(f, "a bit of {file} of n{node} flips")
            }
            Self::ClockDrift { who, percent } => {
                write!(f, "the clocks of {who} run at {percent} % of their speed")
            }
            Self::ClockJump { who, by_ms } => {
                write!(f, "the clock of {who} is wrong by {by_ms} ms")
            }
        }
    }
}
