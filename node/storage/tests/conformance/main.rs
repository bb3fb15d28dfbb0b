//! What every log must do, on every disk: one suite, run on the real file system and on the
//! simulated disk.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may"
)]

mod appends;
#[path = "../common/mod.rs"]
mod common;
mod cuts;
mod faults;
mod formats;
mod reads;
mod recovery;
mod state;

/// Runs functions over a [`common::Harness`] on every disk.
macro_rules! on_every_disk {
    ($($module:ident :: $name:ident,)*) => {
        mod posix {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    crate::$module::$name(<crate::common::Posix as crate::common::Harness>::new())
                        .await;
                }
            )*
        }
        mod sim {
            $(
                #[tokio::test]
                async fn $name() {
                    crate::$module::$name(<crate::common::Sim as crate::common::Harness>::new())
                        .await;
                }
            )*
        }
    };
}

on_every_disk! {
    appends::append_read_reopen,
    appends::frames_are_readable_before_they_are_written,
    appends::what_does_not_continue_the_log_is_refused,
    appends::frames_too_large_to_be_read_are_refused,
    appends::durability_decides_about_syncs,
    appends::options_change_with_the_next_round,
    appends::many_appends_share_a_sync,
    cuts::a_truncation_takes_indexes_and_offsets,
    cuts::a_truncated_segment_is_written_on,
    cuts::what_was_purged_or_checkpointed_is_not_truncated,
    cuts::a_purge_drops_whole_segments,
    cuts::a_log_restarts_behind_a_boundary,
    cuts::a_longer_log_restarts_behind_a_conflicting_boundary,
    reads::offsets_times_and_indexes_across_segments,
    reads::a_read_keeps_its_limits,
    reads::readers_follow_an_appender,
    reads::readers_of_a_log_that_is_cut_see_no_damage,
    reads::the_tail_cache_keeps_its_limit,
    state::votes_survive,
    state::small_files_survive,
    state::a_metadata_transaction_is_whole,
    state::the_data_directory_is_locked,
    state::a_removed_log_is_gone_and_one_set_aside_stays_away,
    faults::a_failed_write_stops_the_log_and_no_other,
    faults::a_failed_sync_is_never_tried_again,
    faults::a_full_disk_delays_and_loses_nothing,
    faults::a_damaged_frame_stops_the_log,
    faults::a_log_that_lost_its_last_files_is_damaged,
    recovery::a_long_active_segment_is_not_read_from_its_beginning,
    recovery::what_recovery_did_not_read_is_verified_behind_it,
    formats::an_unknown_version_is_refused_in_every_file,
}
