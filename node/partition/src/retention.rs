//! Which part of a log is too old or too much. Pure.

use seriatim_proto::{ids::Offset, settings::TopicSettings};
use seriatim_storage::{LogId, SegmentInfo};

/// Files that hold the bytes of `retention.bytes`, about. What is kept beyond it is less than one file
/// on the leader and two on a follower, whose files end elsewhere.
const RETAINED_SEGMENTS: u64 = 16;

/// A file is sealed when its first record is this part of `retention.ms` old, so that a slow topic
/// does not keep old records because its file does not fill up.
const ROLLS: i64 = 8;

/// No file is sealed for its age before this, in ms.
const ROLL_MS_MIN: i64 = 1_000;

/// Smallest file.
const SEGMENT_BYTES_MIN: u64 = 1 << 20;

/// The size of a topic's files: what is set, but small enough for its retention.
pub(crate) fn segment_bytes(settings: &TopicSettings) -> u64 {
    let set = u64::from(settings.segment_bytes);
    match settings.retention_bytes {
        Some(bytes) => set.min((bytes / RETAINED_SEGMENTS).max(SEGMENT_BYTES_MIN)),
        None => set,
    }
}

/// Bytes of a log from which on appends are slowed down, because old records go more slowly than new
/// ones come: a quarter more than is to be kept.
pub(crate) fn crowded_bytes(settings: &TopicSettings) -> Option<u64> {
    let kept = settings.retention_bytes?;
    Some(kept.saturating_add(kept / 4))
}

/// The part of a log that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Its last entry.
    pub(crate) upto: LogId,
    /// Offset after its last record.
    pub(crate) offset: Offset,
}

/// What is to go of a log with these files, of which the entries up to `applied` are applied. `None`:
/// nothing of which the records are not gone already, with the log beginning at `start`.
pub(crate) fn cut(
    segments: &[SegmentInfo],
    settings: &TopicSettings,
    (start, applied): (Offset, u64),
    now_ms: i64,
) -> Option<Cut> {
    let mut kept: u64 = segments.iter().map(|segment| segment.bytes).sum();
    let oldest_ms = settings
        .retention_ms
        .map(|ms| now_ms.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)));
    let mut cut = None;
    for (at, segment) in segments.iter().enumerate() {
        if segment.last.index > applied {
            break;
        }
        let is_last = at + 1 == segments.len();
        let too_old = oldest_ms.is_some_and(|oldest| segment.max_timestamp < oldest);
        // The file that is written to counts and never goes.
        let too_much = !is_last
            && settings
                .retention_bytes
                .is_some_and(|most| kept.saturating_sub(segment.bytes) >= most);
        if !(too_old && segment.sealed || too_much) {
            break;
        }
        kept = kept.saturating_sub(segment.bytes);
        cut = Some(Cut {
            upto: segment.last,
            offset: segment.next_offset,
        });
    }
    cut.filter(|cut| cut.offset > start)
}

/// The last file whose records all lie below an offset, and which is applied.
pub(crate) fn last_below(segments: &[SegmentInfo], offset: Offset, applied: u64) -> Option<LogId> {
    let below = segments.iter().take_while(|segment| {
        segment.sealed && segment.next_offset <= offset && segment.last.index <= applied
    });
    below.last().map(|segment| segment.last)
}

/// Whether a file whose first record has this time is to be sealed.
pub(crate) fn is_due_to_roll(settings: &TopicSettings, first_ms: i64, now_ms: i64) -> bool {
    settings.retention_ms.is_some_and(|ms| {
        let age = (i64::try_from(ms).unwrap_or(i64::MAX) / ROLLS).max(ROLL_MS_MIN);
        now_ms.saturating_sub(first_ms) >= age
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_000_000;

    fn settings(ms: Option<u64>, bytes: Option<u64>) -> TopicSettings {
        TopicSettings {
            retention_ms: ms,
            retention_bytes: bytes,
            ..TopicSettings::default()
        }
    }

    /// Files of 100 bytes with ten entries and ten records each; the last is written to.
    fn files(times: &[i64]) -> Vec<SegmentInfo> {
        let count = times.len();
        let file = |(at, time): (usize, &i64)| {
            let end = u64::try_from(at + 1).unwrap() * 10;
            SegmentInfo {
                last: LogId {
                    term: 1,
                    index: end - 1,
                },
                base_offset: Offset(i64::try_from(end).unwrap() - 10),
                next_offset: Offset(i64::try_from(end).unwrap()),
                bytes: 100,
                max_timestamp: *time,
                sealed: at + 1 < count,
            }
        };
        times.iter().enumerate().map(file).collect()
    }

    fn offset_of(cut: Option<Cut>) -> Option<i64> {
        cut.map(|cut| cut.offset.0)
    }

    #[test]
    fn whole_files_go_while_enough_is_left() {
        let files = files(&[NOW; 5]);
        for (most, expected) in [
            (500, None),
            (401, None),
            (400, Some(10)),
            (399, Some(10)),
            (100, Some(40)),
            // The file that is written to never goes.
            (1, Some(40)),
        ] {
            let cut = cut(&files, &settings(None, Some(most)), (Offset(0), 49), NOW);
            assert_eq!(offset_of(cut), expected, "{most}");
        }
    }

    #[test]
    fn files_go_when_their_newest_record_is_too_old() {
        let times = [NOW - 900, NOW - 500, NOW - 700, NOW - 100, NOW];
        let files = files(&times);
        let at = |ms, start| {
            offset_of(cut(
                &files,
                &settings(Some(ms), None),
                (Offset(start), 49),
                NOW,
            ))
        };
        assert_eq!(at(900, 0), None);
        assert_eq!(at(899, 0), Some(10));
        // The second keeps the third, which is older.
        assert_eq!(at(600, 0), Some(10));
        assert_eq!(at(499, 0), Some(30));
        assert_eq!(at(499, 30), None, "gone already");
        assert_eq!(at(0, 0), Some(40));
    }

    #[test]
    fn a_sealed_log_may_go_altogether_for_its_age() {
        let mut files = files(&[NOW - 900, NOW - 500]);
        files[1].sealed = true;
        let cut = cut(&files, &settings(Some(100), None), (Offset(0), 30), NOW);
        assert_eq!(offset_of(cut), Some(20));
    }

    #[test]
    fn what_is_not_applied_stays() {
        let files = files(&[NOW; 5]);
        let least = settings(None, Some(1));
        let at = |applied| offset_of(cut(&files, &least, (Offset(0), applied), NOW));
        assert_eq!((at(8), at(9), at(28)), (None, Some(10), Some(20)));
        assert_eq!(
            last_below(&files, Offset(25), 49).map(|id| id.index),
            Some(19)
        );
        assert_eq!(
            last_below(&files, Offset(25), 18).map(|id| id.index),
            Some(9)
        );
        assert_eq!(last_below(&files, Offset(9), 49), None);
    }

    #[test]
    fn records_from_the_future_keep_what_follows_them() {
        let files = files(&[NOW - 900, NOW + 5_000, NOW - 900, NOW]);
        let cut = cut(&files, &settings(Some(100), None), (Offset(0), 39), NOW);
        assert_eq!(offset_of(cut), Some(10));
    }

    #[test]
    fn files_are_small_enough_for_what_is_kept() {
        let mut settings = settings(None, Some(80 << 20));
        assert_eq!(segment_bytes(&settings), 5 << 20);
        settings.segment_bytes = 4 << 20;
        assert_eq!(segment_bytes(&settings), 4 << 20);
        settings.retention_bytes = Some(1);
        assert_eq!(segment_bytes(&settings), 1 << 20);
        settings.retention_bytes = None;
        assert_eq!(segment_bytes(&settings), 4 << 20);
    }

    #[test]
    fn a_log_is_crowded_a_quarter_above_what_it_keeps() {
        assert_eq!(
            crowded_bytes(&settings(None, Some(80 << 20))),
            Some(100 << 20)
        );
        assert_eq!(
            crowded_bytes(&settings(None, Some(u64::MAX))),
            Some(u64::MAX)
        );
        assert_eq!(crowded_bytes(&settings(Some(1), None)), None);
    }

    #[test]
    fn a_file_is_sealed_for_its_age() {
        let week = settings(Some(8_000_000), None);
        assert!(!is_due_to_roll(&week, NOW - 999_999, NOW));
        assert!(is_due_to_roll(&week, NOW - 1_000_000, NOW));
        assert!(!is_due_to_roll(&settings(Some(0), None), NOW - 999, NOW));
        assert!(!is_due_to_roll(&settings(None, None), 0, NOW));
    }

    proptest! {
        #[test]
        fn what_is_left_is_at_least_what_was_asked_for(
            times in proptest::collection::vec(NOW - 1000..NOW, 1..12),
            most in 1_u64..1500,
        ) {
            let files = files(&times);
            let all = u64::try_from(files.len()).unwrap() * 100;
            let cut = cut(&files, &settings(None, Some(most)), (Offset(0), u64::MAX), NOW);
            let gone = u64::try_from(offset_of(cut).unwrap_or(0)).unwrap() * 10;
            prop_assert!(all - gone >= most.min(all));
            prop_assert!(all - gone < most + 100 || all - gone == 100);
        }
    }
}
