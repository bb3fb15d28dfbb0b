//! The part of a run that counts.

use std::time::Duration;

use seriatim_runtime::clock::Instant;

/// Warm-up, then the time that is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// Start of the load.
    pub(crate) begin: Instant,
    /// End of the warm-up.
    pub(crate) from: Instant,
    /// End of the load.
    pub(crate) until: Instant,
}

impl Window {
    pub(crate) fn new(begin: Instant, warmup: Duration, length: Duration) -> Self {
        let from = begin + warmup;
        Self {
            begin,
            from,
            until: from + length,
        }
    }

    /// A window without an end that matters, for work that is not measured by time.
    pub(crate) fn open(begin: Instant) -> Self {
        Self::new(begin, Duration::ZERO, Duration::from_secs(86_400))
    }

    pub(crate) fn contains(&self, at: Instant) -> bool {
        self.from <= at && at < self.until
    }

    pub(crate) fn length(&self) -> Duration {
        self.until - self.from
    }
}

#[cfg(test)]
mod tests {
    use seriatim_runtime::clock;

    use super::*;

    #[test]
    fn the_warm_up_is_outside() {
        let begin = clock::now();
        let second = Duration::from_secs(1);
        let window = Window::new(begin, second, second);
        assert!(!window.contains(begin));
        assert!(window.contains(begin + second));
        assert!(!window.contains(begin + second * 2));
        assert_eq!(window.length(), second);
    }
}
