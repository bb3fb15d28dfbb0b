//! Checks of what an operator or a client gives, before anything is done.

use std::collections::BTreeMap;

use seriatim_proto::settings::TopicSettings;

use crate::{cluster::ClusterOptions, error::ClusterError, internal};

pub(crate) fn options(options: &ClusterOptions) -> Result<(), ClusterError> {
    let wrong = |what: &str| {
        Err(ClusterError::Configuration {
            what: what.to_owned(),
        })
    };
    if options.node_id.0 == 0 {
        return wrong("`node_id` must be 1 or more");
    }
    if options.seeds.is_empty() {
        return wrong("`seeds` must name the replication address of at least one node");
    }
    let mut seeds = options.seeds.clone();
    seeds.sort();
    seeds.dedup();
    if seeds.len() != options.seeds.len() {
        return wrong("`seeds` names an address twice");
    }
    Ok(())
}

/// Internal topics are the cluster's own.
pub(crate) fn not_internal(topic: &str) -> Result<(), ClusterError> {
    if internal::is_internal(topic) {
        return Err(ClusterError::InternalTopic {
            name: topic.to_owned(),
        });
    }
    Ok(())
}

pub(crate) fn settings(settings: &BTreeMap<String, String>) -> Result<(), ClusterError> {
    let mut probe = TopicSettings::default();
    for (name, value) in settings {
        probe.set(name, value)?;
    }
    Ok(())
}

pub(crate) fn range(what: &'static str, value: u32, high: u32) -> Result<(), ClusterError> {
    if value > high {
        return Err(ClusterError::OutOfRange {
            what,
            value: value.into(),
            low: 1,
            high: high.into(),
        });
    }
    Ok(())
}
