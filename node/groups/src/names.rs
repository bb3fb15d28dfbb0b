//! Names of groups and members, and which shard a group belongs to.

use seriatim_cluster::is_internal;
use seriatim_proto::{error::ErrorCode, topic_name, v1};

use crate::{
    errors::invalid,
    limits::{
        DEFAULT_REBALANCE_MS, DEFAULT_SESSION_MS, MAX_ID_CHARS, MAX_MEMBER_TOPICS,
        MAX_MEMBER_TOPICS_BYTES, REBALANCE_MS, SESSION_MS,
    },
};

/// The shard of a group: the CRC-32 (IEEE) of its id in UTF-8, modulo the number of shards. Part of
/// the format: it can never change.
pub fn shard_of(group: &str, shards: u32) -> u32 {
    crc32fast::hash(group.as_bytes()) % shards.max(1)
}

/// Checks a group id: 1 to 255 characters without control characters.
pub(crate) fn check_group(id: &str) -> Result<(), v1::Error> {
    let chars = id.chars().count();
    if chars == 0 || chars > MAX_ID_CHARS || id.chars().any(char::is_control) {
        return Err(v1::Error::new(
            ErrorCode::InvalidGroup,
            format!(
                "a group id has 1 to {MAX_ID_CHARS} characters, none of them a control character; \
                 choose another"
            ),
        ));
    }
    Ok(())
}

fn check_text(what: &str, text: &str, least: usize) -> Result<(), v1::Error> {
    let chars = text.chars().count();
    if chars < least || chars > MAX_ID_CHARS || text.chars().any(char::is_control) {
        return Err(invalid(format!(
            "a {what} has {least} to {MAX_ID_CHARS} characters, none of them a control character"
        )));
    }
    Ok(())
}

/// Checks a member id.
pub(crate) fn check_member(id: &str) -> Result<(), v1::Error> {
    check_text("member id", id, 1)
}

fn timeout(
    name: &str,
    asked: u32,
    default: u32,
    allowed: &std::ops::RangeInclusive<u32>,
) -> Result<u32, v1::Error> {
    let value = if asked == 0 { default } else { asked };
    if !allowed.contains(&value) {
        return Err(invalid(format!(
            "{name} must be from {} to {} ms, not {value}",
            allowed.start(),
            allowed.end()
        )));
    }
    Ok(value)
}

/// Checks a request to join and fills in its defaults.
pub(crate) fn check_join(join: &mut v1::JoinGroup) -> Result<(), v1::Error> {
    check_group(&join.group)?;
    check_member(&join.member_id)?;
    check_text("instance id", &join.instance_id, 0)?;
    check_text("client id", &join.client_id, 0)?;
    check_text("client host", &join.client_host, 0)?;
    if join.topics.is_empty() || join.topics.len() > MAX_MEMBER_TOPICS {
        return Err(invalid(format!(
            "a member subscribes to 1 to {MAX_MEMBER_TOPICS} topics, not {}",
            join.topics.len()
        )));
    }
    if join.topics.iter().map(String::len).sum::<usize>() > MAX_MEMBER_TOPICS_BYTES {
        return Err(invalid(format!(
            "the names of a member's topics have at most {MAX_MEMBER_TOPICS_BYTES} bytes"
        )));
    }
    for topic in &join.topics {
        if let Err(error) = topic_name::validate(topic) {
            return Err(v1::Error::new(
                ErrorCode::InvalidTopicName,
                error.to_string(),
            ));
        }
        if is_internal(topic) {
            return Err(invalid(format!(
                "topic '{topic}' is internal: it is not read by clients"
            )));
        }
    }
    if v1::AssignmentStrategy::try_from(join.strategy).is_err() {
        return Err(invalid(format!(
            "assignment strategy {} is none that this node knows; use sticky, range or round robin",
            join.strategy
        )));
    }
    join.session_timeout_ms = timeout(
        "session_timeout_ms",
        join.session_timeout_ms,
        DEFAULT_SESSION_MS,
        &SESSION_MS,
    )?;
    join.rebalance_timeout_ms = timeout(
        "rebalance_timeout_ms",
        join.rebalance_timeout_ms,
        DEFAULT_REBALANCE_MS,
        &REBALANCE_MS,
    )?;
    join.topics.sort_unstable();
    join.topics.dedup();
    Ok(())
}

#[cfg(test)]
mod tests {
    use seriatim_cluster::GROUPS_PARTITIONS;

    use super::*;

    /// Groups stay where they are: these were computed once and must never change.
    #[test]
    fn shards_are_fixed() {
        let shards: Vec<u32> = ["a", "b", "billing", "flights-v1", "größe"]
            .into_iter()
            .map(|group| shard_of(group, GROUPS_PARTITIONS))
            .collect();
        assert_eq!(shards, [3, 1, 2, 1, 1]);
    }

    #[test]
    fn names_are_checked() {
        let long = "x".repeat(256);
        for bad in ["", "a\nb", "\u{7f}", &long] {
            let error = check_group(bad).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidGroup, "{bad:?}");
            assert!(check_member(bad).is_err());
        }
        for good in ["a", "größe 1", "ä".repeat(255).as_str()] {
            assert_eq!(check_group(good), Ok(()));
        }
    }

    #[test]
    fn joins_are_checked_and_completed() {
        let good = v1::JoinGroup {
            group: "g".into(),
            member_id: "m".into(),
            topics: vec!["b".into(), "a".into(), "b".into()],
            ..v1::JoinGroup::default()
        };
        let mut join = good.clone();
        check_join(&mut join).unwrap();
        assert_eq!(join.topics, ["a", "b"]);
        assert_eq!(join.session_timeout_ms, DEFAULT_SESSION_MS);
        assert_eq!(join.rebalance_timeout_ms, DEFAULT_REBALANCE_MS);
        type Spoil = fn(&mut v1::JoinGroup);
        let spoils: [Spoil; 9] = [
            |join| join.group.clear(),
            |join| join.member_id.clear(),
            |join| join.instance_id = "\u{1}".into(),
            |join| join.topics.clear(),
            |join| join.topics = vec!["a b".into()],
            |join| join.topics = vec!["__groups".into()],
            |join| join.strategy = 77,
            |join| join.session_timeout_ms = 2_999,
            |join| join.rebalance_timeout_ms = 3_600_001,
        ];
        for (number, spoil) in spoils.into_iter().enumerate() {
            let mut join = good.clone();
            spoil(&mut join);
            assert!(check_join(&mut join).is_err(), "{number}");
        }
    }
}
