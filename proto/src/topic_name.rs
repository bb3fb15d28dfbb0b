//! Topic names follow Kafka's rules.

/// Longest topic name in bytes.
pub const MAX_BYTES: usize = 249;

/// Why a name cannot be a topic's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// No characters.
    #[error("a topic name must not be empty")]
    Empty,
    /// Longer than [`MAX_BYTES`].
    #[error("a topic name has at most {MAX_BYTES} characters, this one has {0}")]
    TooLong(usize),
    /// `.` or `..`.
    #[error("a topic must not be named '.' or '..'")]
    Dots,
    /// A character outside the allowed set.
    #[error("a topic name consists of ASCII letters, digits, '.', '_' and '-'; {0:?} is none")]
    Character(char),
}

/// Checks a topic name: 1 to 249 ASCII letters, digits, `.`, `_` and `-`, and not `.` or `..`.
pub fn validate(name: &str) -> Result<(), TopicNameError> {
    if name.is_empty() {
        return Err(TopicNameError::Empty);
    }
    if name.len() > MAX_BYTES {
        return Err(TopicNameError::TooLong(name.len()));
    }
    if name == "." || name == ".." {
        return Err(TopicNameError::Dots);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name.chars().find(|&c| !allowed(c)) {
        Some(c) => Err(TopicNameError::Character(c)),
        None => Ok(()),
    }
}

/// Two names collide where they differ only in `.` and `_`, because metric names turn one into the
/// other.
pub fn collide(a: &str, b: &str) -> bool {
    a != b && a.replace('.', "_") == b.replace('.', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "flights.v1", "A-b_c.9", &"x".repeat(249)] {
            assert_eq!(validate(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", &"x".repeat(250)] {
            assert!(validate(bad).is_err(), "{bad}");
        }
        assert!(collide("a.b", "a_b"));
        assert!(!collide("a.b", "a.b"));
    }
}
