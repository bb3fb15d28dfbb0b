//! Members of a group are killed, stopped and added while nodes are killed.

use std::time::Duration;

use anyhow::ensure;
use seriatim_tests::{
    group_churn::{self, Plan},
    story::{Load, Outcome, story},
};

/// The smaller sister of the scenario of the same name.
#[test]
fn every_event_is_processed_and_none_again_without_a_reason() -> Outcome {
    story(Load::Shared, async {
        let plan = Plan {
            program: vec![
                env!("CARGO_BIN_EXE_scenario").to_owned(),
                "group-member".to_owned(),
            ],
            events: 16_000,
            partitions: 6,
            members: 4,
            rate: 2_000,
            member_every: Duration::from_secs(1),
            node_every: Duration::from_secs(4),
            session_timeout: Duration::from_secs(3),
            seed: 4,
        };
        let done = group_churn::run(&plan, |_progress| {}).await?;
        let verdict = &done.verdict;
        ensure!(verdict.violation_count == 0, "{verdict:#?}");
        ensure!(
            verdict.missing == 0 && verdict.processed == plan.events,
            "{verdict:#?}"
        );
        // It was no quiet run.
        ensure!(done.nodes_killed >= 1, "{done:?}");
        ensure!(
            done.killed + done.paused + done.evicted + done.added >= 4,
            "{done:?}"
        );
        Ok(())
    })
}
