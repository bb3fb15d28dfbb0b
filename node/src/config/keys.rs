//! Every key of the configuration: its default and what it may be.
//!
//! The meaning of a key, its flag and its environment variable stand beside the field in
//! `settings.rs`; `docs/configuration.md` is held to both by a test.

use anyhow::bail;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    /// As in the file; `section.name` where it stands in a section.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// What a key takes.
#[derive(Debug)]
pub(super) enum Kind {
    /// Text: the default in words, and what is allowed.
    Text(&'static str, &'static str),
    /// A list of texts, likewise.
    List(&'static str, &'static str),
    /// A whole number.
    Number(Range),
    /// A number of bytes, also written as "64MiB".
    Bytes(Range),
}

/// Bounds of a number, both included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) default: Option<u64>,
    pub(super) low: u64,
    pub(super) high: u64,
    /// 0 is allowed beside the range and means this.
    pub(super) zero: Option<&'static str>,
}

const fn range(default: u64, low: u64, high: u64) -> Range {
    Range {
        default: Some(default),
        low,
        high,
        zero: None,
    }
}

const fn text(name: &'static str, default: &'static str, allowed: &'static str) -> Key {
    Key {
        name,
        kind: Kind::Text(default, allowed),
    }
}

const fn number(name: &'static str, range: Range) -> Key {
    Key {
        name,
        kind: Kind::Number(range),
    }
}

const fn bytes(name: &'static str, range: Range) -> Key {
    Key {
        name,
        kind: Kind::Bytes(range),
    }
}

const ADDRESS: &str = "\"host:port\"";

/// All of them, in the order of the reference.
pub(super) const KEYS: &[Key] = &[
    number(
        "node_id",
        Range {
            default: None,
            low: 1,
            high: i64::MAX as u64,
            zero: None,
        },
    ),
    text("data_dir", "none, must be set", "a path"),
    Key {
        name: "seeds",
        kind: Kind::List(
            "this node alone: a cluster of one",
            "a list of \"host:port\", at least one",
        ),
    },
    text("rack", "\"\"", "any text"),
    text("listen.grpc", "\"127.0.0.1:7401\"", ADDRESS),
    text("listen.replication", "\"127.0.0.1:7402\"", ADDRESS),
    text("listen.http", "\"127.0.0.1:7403\"", ADDRESS),
    text("advertise.grpc", "like `listen.grpc`", ADDRESS),
    text(
        "advertise.replication",
        "like `listen.replication`",
        ADDRESS,
    ),
    text("advertise.http", "like `listen.http`", ADDRESS),
    text(
        "log_level",
        "\"info,openraft=error\"",
        "a level (off, error, warn, info, debug, trace) or a list of them by module",
    ),
    text("log_format", "\"text\"", "\"text\" or \"json\""),
    bytes("append_bytes", range(256 * MIB, MIB, 64 * GIB)),
    bytes("cache_bytes", range(64 * MIB, MIB, 64 * GIB)),
    bytes("reserve_bytes", range(64 * MIB, 0, 1024 * GIB)),
    number("disk_threads", range(4, 1, 64)),
    bytes(
        "scrub_bytes_per_s",
        Range {
            zero: Some("no verification in the background"),
            ..range(64 * MIB, MIB, 16 * GIB)
        },
    ),
    number("heartbeat_interval_ms", range(250, 25, 10_000)),
    number("election_timeout_ms", range(800, 100, 60_000)),
    bytes(
        "replication_batch_bytes",
        range(4 * MIB, 64 * KIB, 32 * MIB),
    ),
    bytes(
        "catch_up_bytes_per_s",
        Range {
            zero: Some("no limit"),
            ..range(64 * MIB, MIB, 16 * GIB)
        },
    ),
    number("retention_interval_ms", range(30_000, 100, 3_600_000)),
    number(
        "leader_balance_interval_ms",
        Range {
            zero: Some("leaders stay where they are"),
            ..range(5_000, 100, 3_600_000)
        },
    ),
    number(
        "group_retention_ms",
        range(7 * DAY_MS, 1_000, 3_650 * DAY_MS),
    ),
];

/// The key of that name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// The key that was probably meant.
pub(super) fn nearest(name: &str) -> &'static str {
    fn last(name: &str) -> &str {
        name.rsplit('.').next().unwrap_or_default()
    }
    let likeness = |key: &&Key| {
        // A `grpc` outside its section is nearly as good as a misspelt `listen.grpc`.
        let inside = 0.95 * strsim::jaro_winkler(last(key.name), last(name));
        strsim::jaro_winkler(key.name, name).max(inside)
    };
    // Of equals the first, which `max_by` takes last.
    let nearest = KEYS
        .iter()
        .rev()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    nearest.map(|key| key.name).unwrap_or_default()
}

/// The value of a number, or its default; fails if it is not allowed.
pub(super) fn in_range(name: &str, value: Option<u64>) -> anyhow::Result<u64> {
    let key = find(name);
    let Some(Kind::Number(range) | Kind::Bytes(range)) = key.map(|key| &key.kind) else {
        bail!("{name} is no number");
    };
    let Some(value) = value.or(range.default) else {
        bail!("{name} is not set; it must be {}", range.allowed());
    };
    let fits = (range.low..=range.high).contains(&value) || (value == 0 && range.zero.is_some());
    if !fits {
        bail!(
            "{name}: {value} is not allowed; it must be {}",
            range.allowed()
        );
    }
    Ok(value)
}

impl Kind {
    /// The default, in words where it is no value.
    pub(super) fn default(&self) -> String {
        match self {
            Self::Text(default, _) | Self::List(default, _) => (*default).to_owned(),
            Self::Number(range) | Self::Bytes(range) => match range.default {
                Some(number) => number.to_string(),
                None => "none, must be set".to_owned(),
            },
        }
    }

    /// What a value may be, as the end of "it must be ...".
    pub(super) fn allowed(&self) -> String {
        match self {
            Self::Text(_, allowed) | Self::List(_, allowed) => (*allowed).to_owned(),
            Self::Number(range) => range.allowed(),
            Self::Bytes(range) => format!("{} bytes, or text such as \"64MiB\"", range.allowed()),
        }
    }
}

impl Range {
    fn allowed(&self) -> String {
        let range = if self.high >= i64::MAX as u64 {
            format!("{} or more", self.low)
        } else {
            format!("{} to {}", self.low, self.high)
        };
        match self.zero {
            Some(meaning) => format!("0 ({meaning}) or {range}"),
            None => range,
        }
    }
}
