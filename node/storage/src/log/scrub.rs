//! Verification of segments while the log is in use.

use std::sync::Arc;

use seriatim_runtime::hit;

use super::{Log, LogInner};
use crate::{
    Result, StorageError,
    segment::{Segment, footer},
};

impl Log {
    /// Reads all segments and verifies every checksum; damage stops the log.
    pub async fn verify(&self) -> Result<()> {
        for segment in self.0.segments() {
            let inner = Arc::clone(&self.0);
            let verify = move || inner.verify_segment(&segment);
            let _bytes = self.0.core.blocking("scrub", verify).await?;
        }
        Ok(())
    }
}

impl LogInner {
    /// All segments, of which recovery read only the last, and that perhaps not from its beginning.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.state.lock().segments.clone()
    }

    /// Reads one segment as far as it is written; returns how many bytes that are. Blocks.
    pub(crate) fn verify_segment(&self, segment: &Arc<Segment>) -> Result<u64> {
        let cuts = self.cuts();
        let result = self.read_whole(segment);
        let bytes = segment.summary.lock().end;
        self.judge_read(cuts, result)
            .map(|()| bytes)
            .or_else(|error| match error {
                // The segment was purged or cut while it was read.
                StorageError::OutOfRange { .. } => Ok(bytes),
                error => Err(error),
            })
    }

    fn read_whole(&self, segment: &Arc<Segment>) -> Result<()> {
        let file = segment.open_reader(&*self.core.disk)?;
        segment.check_header(&*file)?;
        let known = segment.summary.lock().clone();
        let (found, _) = segment.rebuild(&*file, known.end, None)?;
        if (found.end, found.last, found.next_offset) != (known.end, known.last, known.next_offset)
        {
            let what = "the frames are not those that were written";
            return Err(StorageError::damaged(&segment.path, found.end, what));
        }
        if !known.sealed {
            return Ok(());
        }
        let whole = match footer::read(&*file, &segment.path)? {
            Some(footer) => footer.read_index(&*file, &segment.path)?.is_some(),
            None => false,
        };
        if !whole {
            // The frames are whole and so is everything that can be asked of them.
            hit!("storage.scrub.footer");
            tracing::warn!(file = %segment.path.display(), "the footer of a segment is damaged");
        }
        Ok(())
    }
}
