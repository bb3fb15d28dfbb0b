//! A node-wide budget of bytes.

use std::sync::Arc;

use seriatim_runtime::clock::{self, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are granted in units of this, so that a budget of any size fits a semaphore.
const UNIT: usize = 256;

/// Bytes that may be in use at once.
#[derive(Debug)]
pub(crate) struct Budget {
    permits: Arc<Semaphore>,
    /// Units in all. Invariant: no request is granted more, so none waits for ever.
    units: u32,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        let units = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX / 4).max(1);
        Self {
            permits: Arc::new(Semaphore::new(units as usize)),
            units,
        }
    }

    /// Takes `bytes`; waits for them until `deadline`. They are given back when the permit is
    /// dropped.
    pub(crate) async fn take(
        &self,
        bytes: usize,
        deadline: Instant,
    ) -> Option<OwnedSemaphorePermit> {
        let wanted = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let granted = self
            .permits
            .clone()
            .acquire_many_owned(wanted.min(self.units));
        clock::timeout_at(deadline, granted).await.ok()?.ok()
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> usize {
        (self.units as usize).saturating_sub(self.permits.available_permits()) * UNIT
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_is_in_use_is_waited_for_until_the_deadline() {
        let budget = Budget::new(1024);
        let soon = || clock::now() + Duration::from_millis(10);
        let all = budget.take(4096, soon()).await;
        assert!(
            all.is_some(),
            "a request larger than the budget takes all of it"
        );
        assert_eq!(budget.used(), 1024);
        assert!(budget.take(1, soon()).await.is_none());
        drop(all);
        assert!(budget.take(1, soon()).await.is_some());
    }
}
