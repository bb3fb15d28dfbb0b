//! Settings of a topic.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// When an append is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Fsynced on a majority of the replicas.
    #[default]
    Fsync,
    /// In the page cache of a majority: loses acknowledged records if a majority loses power at once.
    Os,
}

/// A topic's settings, each with its default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TopicSettings {
    /// `durability`: `fsync` (default) or `os`.
    pub durability: Durability,
    /// `max.message.bytes`: largest record batch in bytes; 1 KiB to 16 MiB, default 16 MiB.
    pub max_message_bytes: u32,
    /// `segment.bytes`: size at which a segment is sealed; 1 MiB to 1 GiB, default 128 MiB.
    pub segment_bytes: u32,
    /// `retention.ms`: how long records are kept, in milliseconds; 1 or more, default 7 days; `None`
    /// (`-1`): for ever.
    pub retention_ms: Option<u64>,
    /// `retention.bytes`: how many bytes of records each partition keeps at least before old ones go;
    /// 8 MiB or more; `None` (`-1`, default): all.
    pub retention_bytes: Option<u64>,
    /// `cleanup.policy`: what becomes of old records.
    pub cleanup_policy: CleanupPolicy,
}

/// What becomes of old records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CleanupPolicy {
    /// They are deleted, oldest first, as the retention settings say.
    #[default]
    Delete,
}

/// Seven days.
const DEFAULT_RETENTION_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// Smallest `retention.bytes`: below it, files would be too small to be worth their names.
const MIN_RETENTION_BYTES: u64 = 8 << 20;

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            max_message_bytes: 16 << 20,
            segment_bytes: 128 << 20,
            retention_ms: Some(DEFAULT_RETENTION_MS),
            retention_bytes: None,
            cleanup_policy: CleanupPolicy::default(),
        }
    }
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No such setting.
    #[error(
        "unknown topic setting '{0}'; known are cleanup.policy, durability, max.message.bytes, \
         retention.bytes, retention.ms, segment.bytes"
    )]
    Unknown(String),
    /// A value outside the range.
    #[error("'{value}' is not a value of '{name}': {expected}")]
    Value {
        /// The setting.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is accepted.
        expected: &'static str,
    },
}

impl TopicSettings {
    /// Sets one setting from text; an empty value returns it to its default.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        let default = Self::default();
        match name {
            "durability" => {
                self.durability = match value {
                    "" => default.durability,
                    "fsync" => Durability::Fsync,
                    "os" => Durability::Os,
                    _ => {
                        return Err(SettingError::Value {
                            name: "durability",
                            value: value.to_owned(),
                            expected: "fsync or os",
                        });
                    }
                }
            }
            "max.message.bytes" => {
                self.max_message_bytes = number(
                    "max.message.bytes",
                    value,
                    default.max_message_bytes,
                    (1 << 10, 16 << 20),
                    "a number of bytes from 1024 to 16777216",
                )?;
            }
            "segment.bytes" => {
                self.segment_bytes = number(
                    "segment.bytes",
                    value,
                    default.segment_bytes,
                    (1 << 20, 1 << 30),
                    "a number of bytes from 1048576 to 1073741824",
                )?;
            }
            "retention.ms" => {
                self.retention_ms = limit(
                    "retention.ms",
                    value,
                    default.retention_ms,
                    1,
                    "-1 (for ever) or a number of milliseconds from 1",
                )?;
            }
            "retention.bytes" => {
                self.retention_bytes = limit(
                    "retention.bytes",
                    value,
                    default.retention_bytes,
                    MIN_RETENTION_BYTES,
                    "-1 (all) or a number of bytes from 8388608",
                )?;
            }
            "cleanup.policy" => match value {
                "" | "delete" => self.cleanup_policy = CleanupPolicy::Delete,
                _ => {
                    return Err(SettingError::Value {
                        name: "cleanup.policy",
                        value: value.to_owned(),
                        expected: "delete; compaction by key is not there yet",
                    });
                }
            },
            _ => return Err(SettingError::Unknown(name.to_owned())),
        }
        Ok(())
    }

    /// All settings as text.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let durability = match self.durability {
            Durability::Fsync => "fsync",
            Durability::Os => "os",
        };
        BTreeMap::from([
            ("durability".to_owned(), durability.to_owned()),
            (
                "max.message.bytes".to_owned(),
                self.max_message_bytes.to_string(),
            ),
            ("segment.bytes".to_owned(), self.segment_bytes.to_string()),
            ("retention.ms".to_owned(), shown(self.retention_ms)),
            ("retention.bytes".to_owned(), shown(self.retention_bytes)),
            ("cleanup.policy".to_owned(), "delete".to_owned()),
        ])
    }
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string())
}

/// A number from `low`, or -1 for none.
fn limit(
    name: &'static str,
    value: &str,
    default: Option<u64>,
    low: u64,
    expected: &'static str,
) -> Result<Option<u64>, SettingError> {
    // What does not fit a signed number would be read by no other program.
    let most = u64::try_from(i64::MAX).unwrap_or_default();
    match (value, value.parse::<u64>()) {
        ("", _) => Ok(default),
        ("-1", _) => Ok(None),
        (_, Ok(number)) if (low..=most).contains(&number) => Ok(Some(number)),
        _ => Err(SettingError::Value {
            name,
            value: value.to_owned(),
            expected,
        }),
    }
}

fn number(
    name: &'static str,
    value: &str,
    default: u32,
    (low, high): (u32, u32),
    expected: &'static str,
) -> Result<u32, SettingError> {
    if value.is_empty() {
        return Ok(default);
    }
    match value.parse() {
        Ok(number) if (low..=high).contains(&number) => Ok(number),
        _ => Err(SettingError::Value {
            name,
            value: value.to_owned(),
            expected,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_and_list() {
        let mut settings = TopicSettings::default();
        settings.set("durability", "os").unwrap();
        settings.set("segment.bytes", "1048576").unwrap();
        settings.set("retention.ms", "-1").unwrap();
        settings.set("retention.bytes", "100000000").unwrap();
        settings.set("cleanup.policy", "delete").unwrap();
        assert_eq!(settings.durability, Durability::Os);
        let mut copy = TopicSettings::default();
        for (name, value) in settings.to_map() {
            copy.set(&name, &value).unwrap();
        }
        assert_eq!(copy, settings);
        copy.set("durability", "").unwrap();
        assert_eq!(copy.durability, Durability::Fsync);
        assert_eq!(copy.retention_ms, None);
        copy.set("retention.ms", "").unwrap();
        assert_eq!(copy.retention_ms, Some(604_800_000));
    }

    #[test]
    fn refused() {
        let mut settings = TopicSettings::default();
        assert!(matches!(
            settings.set("durabilty", "os"),
            Err(SettingError::Unknown(_))
        ));
        for (name, value) in [
            ("durability", "no"),
            ("segment.bytes", "1"),
            ("segment.bytes", "x"),
            ("retention.ms", "0"),
            ("retention.ms", "-2"),
            ("retention.bytes", "8388607"),
            ("retention.bytes", "9223372036854775808"),
            ("cleanup.policy", "compact"),
        ] {
            assert!(matches!(
                settings.set(name, value),
                Err(SettingError::Value { .. })
            ));
        }
        assert_eq!(settings, TopicSettings::default());
    }
}
