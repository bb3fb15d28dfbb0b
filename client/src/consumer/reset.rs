//! Where to go on when the records asked for are gone.

/// What to do where a partition has no record at the offset that is wanted: retention has removed it,
/// or it was never there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResetPolicy {
    /// Go on at the oldest record there is, with a warning in the log. Records that retention has
    /// removed are lost to this consumer; nothing that is there is skipped.
    Start,
    /// Go on at the end, with a warning in the log. Everything that is there is skipped.
    End,
    /// Stop reading that partition with an error that carries the valid range.
    Fail,
}
