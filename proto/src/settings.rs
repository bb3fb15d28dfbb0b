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
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            max_message_bytes: 16 << 20,
            segment_bytes: 128 << 20,
        }
    }
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No such setting.
    #[error("unknown topic setting '{0}'; known are durability, max.message.bytes, segment.bytes")]
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
        ])
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
        assert_eq!(settings.durability, Durability::Os);
        let mut copy = TopicSettings::default();
        for (name, value) in settings.to_map() {
            copy.set(&name, &value).unwrap();
        }
        assert_eq!(copy, settings);
        copy.set("durability", "").unwrap();
        assert_eq!(copy.durability, Durability::Fsync);
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
        ] {
            assert!(matches!(
                settings.set(name, value),
                Err(SettingError::Value { .. })
            ));
        }
        assert_eq!(settings, TopicSettings::default());
    }
}
