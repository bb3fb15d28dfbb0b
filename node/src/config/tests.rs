use std::path::PathBuf;

use seriatim_broker::BrokerLimits;

use super::*;

const COMPLETE: &str = r#"
    node_id = 1
    data_dir = "/tmp/n1"
    seeds = ["127.0.0.1:7402", "127.0.0.1:7412", "127.0.0.1:7422"]
    [listen]
    grpc = "127.0.0.1:7401"
    replication = "127.0.0.1:7402"
    http = "127.0.0.1:7403"
"#;

/// The configuration of a file that begins with `first` and is complete otherwise.
fn with(first: &str) -> anyhow::Result<Config> {
    resolve(&file::parse(&format!("{first}\n{COMPLETE}"))?)
}

/// Why that is refused.
fn refused(first: &str) -> String {
    with(first).map(drop).unwrap_err().to_string()
}

#[test]
fn a_complete_file_is_read() {
    let config = with("").unwrap();
    assert_eq!(config.node_id, NodeId(1));
    assert_eq!(config.seeds.len(), 3);
    assert_eq!(config.advertise, config.listen);
}

#[test]
fn the_defaults_are_those_of_the_layers() {
    let config = with("").unwrap();
    let (storage, consensus) = (StorageOptions::default(), ConsensusOptions::default());
    assert_eq!(format!("{:?}", config.storage), format!("{storage:?}"));
    let consensus = ConsensusOptions {
        node_id: NodeId(1),
        ..consensus
    };
    assert_eq!(format!("{:?}", config.consensus), format!("{consensus:?}"));
    assert_eq!(config.append_bytes, BrokerLimits::default().append_bytes);
    let groups = GroupOptions::default();
    assert_eq!(config.groups.retention, groups.retention);
}

#[test]
fn everything_that_can_be_set_arrives() {
    let config = with(
        "append_bytes = \"2MiB\"\ncache_bytes = 3145728\nreserve_bytes = 0\ndisk_threads = 2\n\
         scrub_bytes_per_s = 0\nheartbeat_interval_ms = 50\nelection_timeout_ms = 150\n\
         replication_batch_bytes = \"1MiB\"\nleader_balance_interval_ms = 0\nrack = \"r1\"\nlog_level = \"warn\"\n\
         log_format = \"json\"\nadvertise.grpc = \"a:1\"\ngroup_retention_ms = 2000",
    )
    .unwrap();
    assert_eq!(config.append_bytes, 2 << 20);
    assert_eq!(config.storage.cache_bytes, 3 << 20);
    assert_eq!(config.storage.reserve_bytes, 0);
    assert_eq!(config.storage.disk_threads, 2);
    assert!(!config.storage.scrub);
    assert_eq!(config.consensus.heartbeat_interval.as_millis(), 50);
    assert_eq!(config.consensus.election_timeout.as_millis(), 150);
    assert_eq!(config.consensus.max_append_bytes, 1 << 20);
    assert!(config.leader_balance_interval.is_zero());
    assert_eq!(
        (config.rack.as_str(), config.log_level.as_str()),
        ("r1", "warn")
    );
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.groups.retention.as_millis(), 2_000);
    assert_eq!(config.advertise.grpc, "a:1");
    assert_eq!(config.advertise.http, config.listen.http);
}

#[test]
fn flags_are_above_the_file() {
    let above = Settings {
        node_id: Some(9),
        ..Settings::default()
    };
    let config = resolve(&above.or(file::parse(COMPLETE).unwrap())).unwrap();
    assert_eq!(config.node_id, NodeId(9));
    assert_eq!(config.data_dir, PathBuf::from("/tmp/n1"));
}

#[test]
fn unknown_keys_name_the_nearest() {
    for (text, meant) in [
        ("nodeid = 1", "'node_id'"),
        ("[listen]\ngprc = \"x\"", "'listen.grpc'"),
        ("grpc = \"x\"", "'listen.grpc'"),
        ("cache_byte = 1", "'cache_bytes'"),
        ("heartbeat_ms = 1", "'heartbeat_interval_ms'"),
    ] {
        let error = file::parse(text).unwrap_err().to_string();
        assert!(
            error.starts_with("unknown key '") && error.contains(meant),
            "{error}"
        );
    }
}

#[test]
fn a_value_that_cannot_be_says_what_can() {
    for (first, expected) in [
        (
            "disk_threads = 0",
            "disk_threads: 0 is not allowed; it must be 1 to 64",
        ),
        (
            "disk_threads = \"a\"",
            "disk_threads: \"a\" is not allowed; it must be 1 to 64",
        ),
        (
            "cache_bytes = 5",
            "cache_bytes: 5 is not allowed; it must be 1048576 to",
        ),
        ("cache_bytes = \"5 apples\"", "or text such as \"64MiB\""),
        (
            "scrub_bytes_per_s = 7",
            "must be 0 (no verification in the background) or 1048576 to",
        ),
        ("rack = 7", "rack: 7 is not allowed; it must be any text"),
        (
            "advertise.grpc = \"x\"",
            "advertise.grpc: \"x\" is not allowed; it must be \"host:port\"",
        ),
        (
            "advertise.http = \"x:0\"",
            "port 0 is none that others could know",
        ),
        (
            "advertise = 3",
            "'advertise' is a section: write its keys below a line [advertise]",
        ),
        (
            "heartbeat_interval_ms = 500",
            "at least twice heartbeat_interval_ms (500)",
        ),
        (
            "log_level = \"a=b=c\"",
            "log_level: \"a=b=c\" is not allowed",
        ),
        (
            "log_format = \"xml\"",
            "unknown variant `xml`, expected `text` or `json`",
        ),
    ] {
        let error = refused(first);
        assert!(error.contains(expected), "{first}: {error}");
    }
}

#[test]
fn what_must_be_there_is_asked_for() {
    let missing = |line: &str| {
        let text: String = COMPLETE
            .lines()
            .filter(|l| !l.trim_start().starts_with(line))
            .map(|l| format!("{l}\n"))
            .collect();
        resolve(&file::parse(&text).unwrap())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        missing("node_id"),
        "node_id is not set; it must be 1 or more"
    );
    assert!(missing("data_dir").starts_with("data_dir is not set"));
    let everywhere = COMPLETE.replace("127.0.0.1:7401", "0.0.0.0:7401");
    let error = resolve(&file::parse(&everywhere).unwrap()).unwrap_err();
    assert!(
        error.to_string().starts_with("advertise.grpc is not set"),
        "{error}"
    );
    let nobody = COMPLETE.replace("seeds = [", "seeds = [] #");
    let error = resolve(&file::parse(&nobody).unwrap()).unwrap_err();
    assert!(error.to_string().starts_with("seeds: []"), "{error}");
}

#[test]
fn misspelt_variables_are_noticed() {
    let names = [
        "PATH",
        "SERIATIM_CONFIG",
        "SERIATIM_SERVERS",
        "SERIATIM_LISTEN_GRPC",
        "SERIATIM_DATADIR",
    ];
    let found = unknown_variables(names.into_iter().map(Into::into));
    let expected = (
        "SERIATIM_DATADIR".to_owned(),
        "SERIATIM_DATA_DIR".to_owned(),
    );
    assert_eq!(found, [expected]);
}
