//! A leader that dies or freezes is replaced soon.

use std::time::Duration;

use seriatim_tests::{
    cluster::Cluster,
    failover::{Stop, measure, median},
    story::{Load, Outcome, story},
};

/// The promise, at default settings.
const KILLED: Duration = Duration::from_secs(2);

/// A frozen leader's connections do not break, so its silence has to be waited for as well.
const FROZEN: Duration = Duration::from_secs(5);

#[test]
fn writes_succeed_again_within_two_seconds_of_the_leaders_death() -> Outcome {
    story(Load::Alone, async {
        let mut cluster = Cluster::of_three().await?;
        let times = measure(&mut cluster, Stop::Kill, 5).await?;
        assert!(median(&times) <= KILLED, "{times:?}");
        cluster.stop_and_check().await
    })
}

#[test]
fn a_frozen_leader_is_replaced_and_follows_when_it_thaws() -> Outcome {
    story(Load::Alone, async {
        let mut cluster = Cluster::of_three().await?;
        let times = measure(&mut cluster, Stop::Freeze, 3).await?;
        assert!(median(&times) <= FROZEN, "{times:?}");
        cluster.stop_and_check().await
    })
}
