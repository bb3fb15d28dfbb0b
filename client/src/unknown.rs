//! How long nodes may deny a topic or partition before they are believed.

use std::time::Duration;

use tokio::time::Instant;

/// How long a topic that nobody has heard of is looked for: it may have been created just now, and
/// nodes that are behind do not know it yet.
pub(crate) const TOPIC_DEADLINE: Duration = Duration::from_secs(3);

/// Since when nodes say, and nothing to the contrary, that there is no such topic or partition.
#[derive(Debug, Default)]
pub(crate) struct Unknown(Option<Instant>);

impl Unknown {
    /// Takes in that it is unknown; whether that has been so for long enough to be believed. It is
    /// counted anew then.
    pub(crate) fn is_believed(&mut self, now: Instant) -> bool {
        let since = *self.0.get_or_insert(now);
        let believed = since + TOPIC_DEADLINE <= now;
        if believed {
            self.known();
        }
        believed
    }

    /// Takes in that it exists.
    pub(crate) fn known(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A consumer took the word of a node that was behind after a second (simulator seed 8891).
    #[test]
    fn nodes_are_believed_once_they_agree_for_a_while() {
        let start = Instant::now();
        let at = |tenths: u32| start + TOPIC_DEADLINE / 10 * tenths;
        let mut unknown = Unknown::default();
        for tenths in 0..10 {
            assert!(!unknown.is_believed(at(tenths)), "{tenths}");
        }
        unknown.known();
        for tenths in 10..20 {
            assert!(!unknown.is_believed(at(tenths)), "{tenths}");
        }
        assert!(unknown.is_believed(at(20)));
        assert!(!unknown.is_believed(at(21)), "counted anew");
    }
}
