//! What a running node exports is what is declared, and the other way round.

mod common;

use std::collections::BTreeMap;

use common::{Dev, get};

#[tokio::test]
async fn exported_and_declared_are_the_same() {
    let node = Dev::start().await;
    let create = ["topic", "create", "t", "--partitions", "2"];
    let _created = node.run(&create).await.ok();
    let _produced = node.feed(&["produce", "t"], b"a\nb\n").await.ok();
    let read = ["consume", "t", "--from", "start", "--until", "end"];
    let _consumed = node.run(&read).await.ok();

    let (status, text) = get(&node.http, "/metrics").await.unwrap();
    assert_eq!(status, 200);
    let types = text.lines().filter_map(|l| l.strip_prefix("# TYPE "));
    let exported: BTreeMap<&str, &str> = types.filter_map(|l| l.split_once(' ')).collect();
    let declared: BTreeMap<&str, &str> = [
        seriatim_storage::metrics::METRICS,
        seriatim_consensus::metrics::METRICS,
        seriatim_groups::metrics::METRICS,
        seriatim_broker::metrics::METRICS,
    ]
    .into_iter()
    .flatten()
    .map(|metric| (metric.name, metric.kind.name()))
    // Of other nodes and of groups, of which there are none here.
    .filter(|(name, _kind)| {
        let nowhere = [
            "seriatim_replication_lag_entries",
            "seriatim_group_lag_records",
        ];
        !nowhere.contains(name)
    })
    .chain([("seriatim_build_info", "gauge")])
    .collect();
    assert_eq!(exported, declared);

    let value = |series: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(series));
        let value = line.unwrap_or_else(|| panic!("no {series} in {text}"));
        value.trim().parse::<f64>().unwrap()
    };
    let whole = |series: &str| format!("{:.0}", value(series));
    assert_eq!(whole("seriatim_append_records_total "), "2");
    assert_eq!(whole("seriatim_raft_groups "), "3");
    assert_eq!(whole("seriatim_raft_groups_led "), "3");
    assert_eq!(whole("seriatim_replicas{state=\"running\"} "), "2");
    assert_eq!(whole("seriatim_append_in_flight_bytes "), "0");
    assert!(value("seriatim_raft_leader_changes_total ") >= 3.0);
    assert!(value("seriatim_append_seconds_count ") >= 1.0);
    assert!(value("seriatim_fetch_seconds_count ") >= 1.0);
    assert!(value("seriatim_fetch_bytes_total ") > 0.0);
    assert!(value("seriatim_storage_fsync_seconds_count ") >= 1.0);

    assert_eq!(
        get(&node.http, "/healthz").await,
        Some((200, "ok\n".to_owned()))
    );
    assert_eq!(
        get(&node.http, "/readyz").await,
        Some((200, "ready\n".to_owned()))
    );
    let (status, index) = get(&node.http, "/").await.unwrap();
    assert_eq!(status, 200);
    assert!(index.contains("/metrics"), "{index}");
}
