//! Reading a segment from its beginning, frame by frame, every checksum verified.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use seriatim_proto::ids::Offset;

use super::{HEADER_BYTES, IndexEntry, Segment, Summary, footer, mark_of};
use crate::{
    LogId, Result,
    bin::{len_usize, len64},
    disk::DiskFile,
    error::IoContext,
    frame::{self, Frame, FrameError, FrameHeader},
};

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// One step of a [`Frames`].
pub(crate) enum Step {
    /// The frame at a position.
    Frame(u64, Frame),
    /// Zeros begin here: nothing was written, or a write was lost.
    Zeros,
    /// The footer's magic.
    Footer,
    /// The end of the file, or of what was to be read.
    End,
    /// Something else.
    Bad(FrameError),
}

/// Frames of a file from a position on.
pub(crate) struct Frames<'a> {
    file: &'a dyn DiskFile,
    path: &'a Path,
    /// Bytes at and after `position`, as far as they were read.
    buffer: Bytes,
    /// Where the next frame begins.
    pub(crate) position: u64,
    /// Read no byte from here on.
    end: u64,
    chunk: usize,
}

impl<'a> Frames<'a> {
    /// Reads from `position` up to `end`, about `chunk` bytes at a time.
    pub(crate) fn new(
        file: &'a dyn DiskFile,
        path: &'a Path,
        position: u64,
        end: u64,
        chunk: usize,
    ) -> Self {
        Self {
            file,
            path,
            buffer: Bytes::new(),
            position,
            end,
            chunk,
        }
    }

    /// The next frame.
    pub(crate) fn next(&mut self) -> Result<Step> {
        self.fill(frame::HEADER_BYTES)?;
        if self.buffer.is_empty() {
            return Ok(Step::End);
        }
        let header = match FrameHeader::parse(&self.buffer) {
            Ok(header) => header,
            Err(error) => return Ok(self.no_header(error)),
        };
        self.fill(header.total_bytes())?;
        match Frame::parse(self.buffer.clone()) {
            Ok((frame, rest)) => {
                let at = self.position;
                self.position += len64(frame.total_bytes());
                self.buffer = rest;
                Ok(Step::Frame(at, frame))
            }
            Err(error) => Ok(Step::Bad(error)),
        }
    }

    fn no_header(&self, error: FrameError) -> Step {
        let head = self
            .buffer
            .get(..footer::MAGIC.len())
            .unwrap_or(&self.buffer);
        if head == footer::MAGIC {
            Step::Footer
        } else if head.iter().all(|&byte| byte == 0) {
            Step::Zeros
        } else {
            Step::Bad(error)
        }
    }

    /// Sees to it that the buffer has `need` bytes, unless the file ends before.
    fn fill(&mut self, need: usize) -> Result<()> {
        if self.buffer.len() >= need {
            return Ok(());
        }
        let have = len64(self.buffer.len());
        let left = len_usize(self.end.saturating_sub(self.position + have));
        let want = need
            .max(self.chunk)
            .saturating_sub(self.buffer.len())
            .min(left);
        if want == 0 {
            return Ok(());
        }
        let more = self
            .file
            .read_at(self.position + have, want)
            .at("read", self.path)?;
        self.buffer = if self.buffer.is_empty() {
            Bytes::from(more)
        } else {
            let mut joined = BytesMut::with_capacity(self.buffer.len() + more.len());
            joined.extend_from_slice(&self.buffer);
            joined.extend_from_slice(&more);
            joined.freeze()
        };
        Ok(())
    }
}

/// Why a scan stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Zeros follow the last frame.
    Zeros,
    /// The footer's magic follows it.
    Footer,
    /// The file ends with it.
    End,
    /// Something else follows it.
    Bad {
        /// Where.
        position: u64,
        /// Why it is no frame in this place.
        error: FrameError,
    },
}

/// What a scan from the beginning found.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    segment: &'a Segment,
    pub(crate) summary: Summary,
    pub(crate) index: Vec<IndexEntry>,
    /// The largest index+1 that a Mark called durable.
    pub(crate) synced_end: u64,
    pub(crate) frames: u64,
    pub(crate) batches: u64,
    pub(crate) records: u64,
}

impl<'a> Found<'a> {
    pub(crate) fn new(segment: &'a Segment) -> Self {
        Self {
            segment,
            summary: Summary {
                end: HEADER_BYTES,
                last: None,
                next_offset: segment.base_offset,
                max_timestamp: i64::MIN,
                epochs: Vec::new(),
                sealed: false,
            },
            index: Vec::new(),
            synced_end: 0,
            frames: 0,
            batches: 0,
            records: 0,
        }
    }

    /// A scan that goes on from a place where everything before is known.
    pub(crate) fn resume(segment: &'a Segment, summary: Summary, index: Vec<IndexEntry>) -> Self {
        Self {
            synced_end: summary.end_index(),
            summary,
            index,
            ..Self::new(segment)
        }
    }

    /// Index that the next entry must have.
    pub(crate) fn next_index(&self) -> u64 {
        self.summary
            .last
            .map_or(self.segment.first_index, |last| last.index + 1)
    }

    /// Reads until something stops it.
    pub(crate) fn run(&mut self, file: &dyn DiskFile) -> Result<Stop> {
        self.run_with(file, u64::MAX, &mut |_, _| true)
    }

    /// The same, and looks at no byte from `end` on.
    pub(crate) fn run_to(&mut self, file: &dyn DiskFile, end: u64) -> Result<Stop> {
        self.run_with(file, end, &mut |_, _| true)
    }

    /// The same, and shows every frame; stops early with [`Stop::End`] when told `false`.
    pub(crate) fn run_with(
        &mut self,
        file: &dyn DiskFile,
        end: u64,
        each: &mut dyn FnMut(u64, &Frame) -> bool,
    ) -> Result<Stop> {
        let path = &self.segment.path;
        let len = file.len().at("read the length of", path)?;
        let start = self.summary.end;
        let mut frames = Frames::new(file, path, start, len.min(end), CHUNK_BYTES);
        loop {
            let position = frames.position;
            match frames.next()? {
                Step::Frame(at, frame) => {
                    if !self.continues(&frame) {
                        return Ok(Stop::Bad {
                            position,
                            error: FrameError::Mismatch,
                        });
                    }
                    self.take(at, &frame);
                    if !each(at, &frame) {
                        return Ok(Stop::End);
                    }
                }
                Step::Zeros => return Ok(Stop::Zeros),
                Step::Footer => return Ok(Stop::Footer),
                Step::End => return Ok(Stop::End),
                Step::Bad(error) => return Ok(Stop::Bad { position, error }),
            }
        }
    }

    /// Whether the frame may follow what was found so far.
    fn continues(&self, frame: &Frame) -> bool {
        let LogId { term, index } = frame.log_id();
        frame.base_offset() == self.summary.next_offset
            && (!frame.kind().is_entry()
                || (index == self.next_index()
                    && self.summary.last.is_none_or(|last| last.term <= term)))
    }

    fn take(&mut self, at: u64, frame: &Frame) {
        Segment::note(&mut self.summary, &mut self.index, at, frame);
        self.frames += 1;
        if frame.records() > 0 {
            self.batches += 1;
            self.records += u64::from(frame.records());
        }
        if let Some(synced_end) = mark_of(frame) {
            self.synced_end = self.synced_end.max(synced_end);
        }
    }

    /// Offset after the last record found.
    pub(crate) fn next_offset(&self) -> Offset {
        self.summary.next_offset
    }
}
