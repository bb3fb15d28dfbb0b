//! The real client in simulation: all of its workloads get something done, and keep every promise.

use std::{collections::BTreeSet, time::Duration};

use seriatim_jepsen::{
    history::{Action, History, Kind},
    sim::run::{Options, run},
};

/// Entries of completed operations that say what was done.
fn done(history: &History, what: impl Fn(&Action) -> bool) -> usize {
    let ops = history.ops.iter();
    ops.filter(|op| op.kind == Kind::Ok && what(&op.action))
        .count()
}

#[test]
fn sim_real_clients_do_everything_under_faults() {
    let options = Options {
        real: true,
        faults_for: Duration::from_secs(8),
        ..Options::default()
    };
    let verdict = run(4, &options, None).expect("build the executors");
    assert!(verdict.holds(), "{}", verdict.verdict);
    let history = &verdict.history;
    let names = &history.header.keys;
    let orders: BTreeSet<_> = names
        .iter()
        .filter(|(_, name)| name.starts_with("orders-"))
        .map(|(key, _)| *key)
        .collect();
    assert_eq!(orders.len(), 2, "{names:?}");
    let sent = done(history, |action| match action {
        Action::Send(send) => orders.contains(&send.key),
        _ => false,
    });
    assert!(sent > 50, "{sent} records sent");
    let read = done(history, |action| match action {
        Action::Poll(poll) => {
            let of_orders = poll.reads.keys().any(|key| orders.contains(key));
            of_orders && poll.group.is_none()
        }
        _ => false,
    });
    assert!(read > 50, "{read} batches read");
    for group in ["automatic", "manual"] {
        let read = done(history, |action| match action {
            Action::Poll(poll) => poll.group.as_deref() == Some(group) && !poll.reads.is_empty(),
            _ => false,
        });
        assert!(read > 10, "group {group} read {read} batches");
        let known = done(history, |action| match action {
            Action::Committed(told) => {
                told.group == group && told.offsets.values().any(Option::is_some)
            }
            _ => false,
        });
        assert!(known > 0, "group {group} committed nothing");
    }
    let deleted = done(history, |action| matches!(action, Action::DeleteTopic(_)));
    let trimmed = done(history, |action| match action {
        Action::Trim(trim) => !orders.contains(&trim.key),
        _ => false,
    });
    assert!(deleted > 0 && trimmed > 0, "{deleted} and {trimmed}");
}
