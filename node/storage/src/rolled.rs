//! Tells which logs began another segment, for those who look after old ones.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::LogKey;

/// Logs that sealed a segment since they were last asked for; each at most once.
#[derive(Debug, Default)]
pub(crate) struct Rolled {
    keys: Mutex<BTreeSet<LogKey>>,
    some: Notify,
}

impl Rolled {
    pub(crate) fn note(&self, key: LogKey) {
        let _new = self.keys.lock().insert(key);
        self.some.notify_one();
    }

    /// Waits until there are some, and takes them.
    pub(crate) async fn take(&self) -> BTreeSet<LogKey> {
        loop {
            let keys = std::mem::take(&mut *self.keys.lock());
            if !keys.is_empty() {
                return keys;
            }
            self.some.notified().await;
        }
    }
}
