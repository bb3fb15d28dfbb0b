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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use seriatim_proto::ids::Offset;

    use super::*;
    use crate::disk::sim::SimDisk;

    #[test]
    fn the_oldest_handle_is_closed_for_the_newest() {
        let disk = SimDisk::new(1);
        let handles = Handles::default();
        let key = "g1-r1".parse().unwrap();
        let segments: Vec<_> = (0..HANDLES_MAX + 10)
            .map(|at| {
                let index = crate::bin::len64(at);
                let segment = Arc::new(Segment::new(key, Path::new("/"), Offset(0), index));
                drop(segment.create(&disk).unwrap());
                segment
            })
            .collect();
        for segment in &segments {
            let file = handles.open(&disk, segment).unwrap();
            // Looking something up in the file opens no handle besides.
            segment.check_header(&*file).unwrap();
            drop(handles.open(&disk, segment).unwrap());
        }
        let open = |segment: &&Arc<Segment>| segment.reader.lock().is_some();
        assert_eq!(segments.iter().filter(open).count(), HANDLES_MAX);
        assert!(!open(&&segments[0]) && !open(&&segments[9]) && open(&&segments[10]));
    }
}
