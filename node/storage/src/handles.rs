//! Bounds the open files that readers keep.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

use crate::{
    Result,
    disk::{Disk, DiskFile},
    segment::Segment,
};

/// Most open files kept for readers.
const HANDLES_MAX: usize = 512;

/// Segments that have a reader's handle, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Handles(Mutex<VecDeque<Weak<Segment>>>);

impl Handles {
    /// A handle for reading the segment; closes the oldest of others where there are too many.
    pub(crate) fn open(
        &self,
        disk: &dyn Disk,
        segment: &Arc<Segment>,
    ) -> Result<Arc<dyn DiskFile>> {
        let had_one = segment.reader.lock().is_some();
        let file = segment.reader(disk)?;
        if !had_one {
            let mut open = self.0.lock();
            open.push_back(Arc::downgrade(segment));
            if open.len() > HANDLES_MAX
                && let Some(oldest) = open.pop_front().and_then(|oldest| oldest.upgrade())
                && !Arc::ptr_eq(&oldest, segment)
            {
                drop(oldest.reader.lock().take());
            }
        }
        Ok(file)
    }
}
