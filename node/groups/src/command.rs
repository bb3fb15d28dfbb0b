//! Commands of a shard and their answers, as values and as bytes.
//!
//! A command carries the version it needs. A node that does not know the version, or finds no
//! command it can read, refuses it: the same answer on every replica of that software, no change
//! and no panic.

use bytes::Bytes;
use prost::Message as _;
use seriatim_proto::{error::ErrorCode, internal::v1 as wire, v1};
use wire::{group_command::Command, group_reply::Reply};

use crate::state::Tp;

/// The newest command version that this software applies.
const VERSION: u32 = 1;

/// A command on one group.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GroupCommand {
    pub(crate) group: String,
    /// The proposer's wall clock.
    pub(crate) now_ms: i64,
    pub(crate) command: Command,
}

impl GroupCommand {
    /// As an entry of the log.
    pub(crate) fn encode(self) -> Bytes {
        let command = wire::GroupCommand {
            version: VERSION,
            group: self.group,
            now_ms: self.now_ms,
            command: Some(self.command),
        };
        command.encode_to_vec().into()
    }

    /// Reads an entry of the log.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Refusal> {
        let unknown = |version| Refusal::UnknownCommand { version };
        let command = match wire::GroupCommand::decode(bytes) {
            Ok(command) if command.version > VERSION => return Err(unknown(command.version)),
            Ok(command) => command,
            Err(error) => {
                tracing::error!(%error, "unreadable command in a log of consumer groups");
                return Err(unknown(0));
            }
        };
        Ok(Self {
            group: command.group,
            now_ms: command.now_ms,
            command: command.command.ok_or_else(|| unknown(command.version))?,
        })
    }
}

/// Why a command was not carried out. Decided while it is applied, thus the same on every replica;
/// nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "this version of seriatim does not know a command of version {version}; upgrade every node"
    )]
    UnknownCommand { version: u32 },
    #[error("there is no such group: it has neither members nor offsets")]
    UnknownGroup,
    #[error("the group does not know the member (any more); join again with a new member id")]
    UnknownMember,
    #[error("another process joined under the same instance id; give every process one of its own")]
    MemberFenced,
    #[error(
        "the member does not own partition {tp} in that generation: it moved; drop its records"
    )]
    StaleGeneration { tp: Tp },
    #[error("the group has members, and only they may do that; stop them first")]
    GroupNotEmpty,
    #[error(
        "the commit of offset {asked} for partition {tp} is below the stored offset {stored}; \
         reset the group, or commit with leave to go back"
    )]
    OffsetWentBack { tp: Tp, stored: i64, asked: i64 },
    #[error("the group changed in the meantime")]
    Superseded,
    #[error("a group has at most {most} members")]
    TooManyMembers { most: i64 },
    #[error("{most} groups share a partition of groups at most; delete groups that are not used")]
    TooManyGroups { most: i64 },
    #[error("a group has offsets for at most {most} partitions")]
    TooManyOffsets { most: i64 },
    #[error(
        "the groups that share a partition of groups with it are too large together; delete \
         groups that are not used"
    )]
    ShardFull,
    #[error("malformed command: {what}")]
    Malformed { what: String },
}

impl Refusal {
    pub(crate) fn malformed(what: &str) -> Self {
        Self::Malformed {
            what: what.to_owned(),
        }
    }

    pub(crate) const fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownCommand { .. } => ErrorCode::UnsupportedVersion,
            Self::UnknownGroup => ErrorCode::UnknownGroup,
            Self::UnknownMember => ErrorCode::UnknownMember,
            Self::MemberFenced => ErrorCode::MemberFenced,
            Self::StaleGeneration { .. } => ErrorCode::StaleGeneration,
            Self::GroupNotEmpty => ErrorCode::GroupNotEmpty,
            Self::OffsetWentBack { .. } => ErrorCode::OffsetWentBack,
            Self::TooManyMembers { .. }
            | Self::TooManyGroups { .. }
            | Self::TooManyOffsets { .. }
            | Self::ShardFull
            | Self::Malformed { .. } => ErrorCode::InvalidRequest,
            // Only proposed by the coordinator, which proposes anew.
            Self::Superseded => ErrorCode::Internal,
        }
    }

    /// As clients see it.
    pub(crate) fn to_error(&self, group: &str) -> v1::Error {
        v1::Error::new(self.code(), format!("group '{group}': {self}"))
    }
}

impl From<Refusal> for wire::GroupRefusal {
    fn from(refusal: Refusal) -> Self {
        let plain = |kind, text| Self {
            kind,
            text,
            ..Self::default()
        };
        let number = |kind, first| Self {
            kind,
            first,
            ..Self::default()
        };
        match refusal {
            Refusal::UnknownCommand { version } => number(1, i64::from(version)),
            Refusal::UnknownGroup => plain(2, String::new()),
            Refusal::UnknownMember => plain(3, String::new()),
            Refusal::MemberFenced => plain(4, String::new()),
            Refusal::StaleGeneration { tp } => Self {
                partition: tp.partition,
                ..plain(5, (*tp.topic).to_owned())
            },
            Refusal::GroupNotEmpty => plain(6, String::new()),
            Refusal::OffsetWentBack { tp, stored, asked } => Self {
                kind: 7,
                text: (*tp.topic).to_owned(),
                partition: tp.partition,
                first: stored,
                second: asked,
            },
            Refusal::Superseded => plain(8, String::new()),
            Refusal::TooManyMembers { most } => number(9, most),
            Refusal::TooManyGroups { most } => number(10, most),
            Refusal::TooManyOffsets { most } => number(11, most),
            Refusal::Malformed { what } => plain(12, what),
            Refusal::ShardFull => plain(13, String::new()),
        }
    }
}

impl From<wire::GroupRefusal> for Refusal {
    fn from(refusal: wire::GroupRefusal) -> Self {
        let most = refusal.first;
        let tp = || Tp::new(refusal.text.as_str(), refusal.partition);
        match refusal.kind {
            1 => Self::UnknownCommand {
                version: u32::try_from(refusal.first).unwrap_or(u32::MAX),
            },
            2 => Self::UnknownGroup,
            3 => Self::UnknownMember,
            4 => Self::MemberFenced,
            5 => Self::StaleGeneration { tp: tp() },
            6 => Self::GroupNotEmpty,
            7 => Self::OffsetWentBack {
                tp: tp(),
                stored: refusal.first,
                asked: refusal.second,
            },
            8 => Self::Superseded,
            9 => Self::TooManyMembers { most },
            10 => Self::TooManyGroups { most },
            11 => Self::TooManyOffsets { most },
            12 => Self::Malformed { what: refusal.text },
            13 => Self::ShardFull,
            other => Self::Malformed {
                what: format!("refused by a newer node for reason {other}"),
            },
        }
    }
}

/// Encodes what a command answered.
pub(crate) fn encode_reply(reply: Result<(), Refusal>) -> Bytes {
    let reply = match reply {
        Ok(()) => Reply::Done(wire::GroupDone {}),
        Err(refusal) => Reply::Refused(refusal.into()),
    };
    wire::GroupReply { reply: Some(reply) }
        .encode_to_vec()
        .into()
}

/// Reads what a command answered.
pub(crate) fn decode_reply(bytes: &[u8]) -> Result<(), Refusal> {
    match wire::GroupReply::decode(bytes).map(|reply| reply.reply) {
        Ok(Some(Reply::Done(_))) => Ok(()),
        Ok(Some(Reply::Refused(refusal))) => Err(refusal.into()),
        Ok(None) | Err(_) => Err(Refusal::malformed("an answer of another version")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_survive_the_wire() {
        let tp = Tp::new("t", 3);
        for refusal in [
            Refusal::UnknownCommand { version: 9 },
            Refusal::UnknownGroup,
            Refusal::UnknownMember,
            Refusal::MemberFenced,
            Refusal::StaleGeneration { tp: tp.clone() },
            Refusal::GroupNotEmpty,
            Refusal::OffsetWentBack {
                tp,
                stored: 5,
                asked: 4,
            },
            Refusal::Superseded,
            Refusal::TooManyMembers { most: 1 },
            Refusal::TooManyGroups { most: 2 },
            Refusal::TooManyOffsets { most: 3 },
            Refusal::ShardFull,
            Refusal::malformed("w"),
        ] {
            let bytes = encode_reply(Err(refusal.clone()));
            assert_eq!(decode_reply(&bytes), Err(refusal));
        }
        assert_eq!(decode_reply(&encode_reply(Ok(()))), Ok(()));
    }

    #[test]
    fn unknown_commands_are_refused() {
        let unknown = |version| Err(Refusal::UnknownCommand { version });
        let newer = wire::GroupCommand {
            version: VERSION + 1,
            command: Some(Command::DropGroup(wire::DropGroup {})),
            ..wire::GroupCommand::default()
        };
        assert_eq!(
            GroupCommand::decode(&newer.encode_to_vec()),
            unknown(VERSION + 1)
        );
        assert_eq!(GroupCommand::decode(&[8, 1, 0x9a, 0x06, 0]), unknown(1));
        assert_eq!(GroupCommand::decode(&[0xff; 9]), unknown(0));
    }
}
