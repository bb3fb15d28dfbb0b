//! Removing the files of purged segments, one at a time between the other work of the disk threads.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use super::LogInner;
use crate::{engine::Work, error::IoContext, segment::Segment};

/// Files of a log that are no longer part of it.
#[derive(Debug)]
pub(crate) struct Unlink {
    log: Arc<LogInner>,
    segments: Mutex<VecDeque<Arc<Segment>>>,
}

/// Has the files removed. Once the engine has stopped, they are left to the next start.
pub(super) fn submit(log: &Arc<LogInner>, segments: Vec<Arc<Segment>>) {
    if segments.is_empty() {
        return;
    }
    let unlink = Unlink {
        log: Arc::clone(log),
        segments: Mutex::new(segments.into()),
    };
    let _taken = log.core.engine.submit(Work::Unlink(Arc::new(unlink)));
}

impl Unlink {
    /// Removes the next file; makes the removals durable after the last.
    pub(crate) fn step(&self) {
        let (next, last) = {
            let mut segments = self.segments.lock();
            (segments.pop_front(), segments.is_empty())
        };
        let Some(segment) = next else {
            return;
        };
        let log = &self.log;
        let removed = log.unlink(&segment).and_then(|()| {
            if last {
                log.core.disk.sync_dir(&log.dir).at("sync", &log.dir)
            } else {
                Ok(())
            }
        });
        // Nothing refers to the file any more; a log that is being removed takes its folder along.
        if let Err(error) = removed
            && log.poisoned().is_none()
        {
            tracing::warn!(log = %log.key, %error, "a purged segment stays until the next start");
        }
    }

    /// Whether files are left.
    pub(crate) fn has_more(&self) -> bool {
        !self.segments.lock().is_empty()
    }
}
