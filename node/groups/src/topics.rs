//! What the groups need to know of the cluster's topics.

use std::{collections::BTreeMap, sync::Arc};

use seriatim_cluster::{Image, is_internal};

use crate::{
    assign::Counts,
    state::{Committed, Tp},
};

/// The topics of one image.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    /// Partitions of each topic that clients read.
    pub(crate) partitions: Counts,
    /// Which topic of its name each is: the Raft group of its first partition, by name.
    origins: BTreeMap<u64, Arc<str>>,
    by_name: BTreeMap<Arc<str>, u64>,
    /// Groups below it that no topic has were deleted.
    next_group: u64,
}

impl Topics {
    pub(crate) fn of(image: &Image) -> Self {
        let mut topics = Self {
            next_group: image.next_group,
            ..Self::default()
        };
        for (name, topic) in &image.topics {
            let Some(first) = topic.partitions.first().filter(|_| !is_internal(name)) else {
                continue;
            };
            let name: Arc<str> = name.as_str().into();
            let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
            let _none = topics.partitions.insert(Arc::clone(&name), count);
            let _none = topics.origins.insert(first.group.0, Arc::clone(&name));
            let _none = topics.by_name.insert(name, first.group.0);
        }
        topics
    }

    /// Which topic of that name there is.
    pub(crate) fn origin(&self, topic: &str) -> Option<u64> {
        self.by_name.get(topic).copied()
    }

    /// Whether the topic was deleted. One of a newer image was not.
    pub(crate) fn is_gone(&self, origin: u64) -> bool {
        origin != 0 && origin < self.next_group && !self.origins.contains_key(&origin)
    }

    /// Whether a stored offset is one of a topic that there is.
    pub(crate) fn counts(&self, committed: &Committed) -> bool {
        !self.is_gone(committed.origin)
    }

    /// Whether there is such a partition; `None` where there is no such topic.
    pub(crate) fn has(&self, tp: &Tp) -> Option<bool> {
        let count = *self.partitions.get(&tp.topic)?;
        Some((0..count).contains(&tp.partition))
    }

    /// Whether another image has other topics or partitions.
    pub(crate) fn differs(&self, other: &Self) -> bool {
        self.partitions != other.partitions || self.by_name != other.by_name
    }
}

#[cfg(test)]
mod tests {
    use seriatim_cluster::{PartitionInfo, Topic};
    use seriatim_proto::ids::GroupId;

    use super::*;

    fn topic(groups: &[u64]) -> Arc<Topic> {
        let partition = |group: &u64| PartitionInfo {
            group: GroupId(*group),
            ..PartitionInfo::default()
        };
        Arc::new(Topic {
            partitions: groups.iter().map(partition).collect(),
            ..Topic::default()
        })
    }

    #[test]
    fn a_topic_is_gone_once_an_image_that_could_know_it_does_not() {
        let image = Image {
            topics: [
                ("a".to_owned(), topic(&[3, 4])),
                ("__groups".to_owned(), topic(&[5])),
            ]
            .into(),
            next_group: 8,
            ..Image::default()
        };
        let topics = Topics::of(&image);
        assert_eq!(topics.origin("a"), Some(3));
        assert_eq!(topics.origin("__groups"), None);
        assert_eq!(topics.has(&Tp::new("a", 1)), Some(true));
        assert_eq!(topics.has(&Tp::new("a", 2)), Some(false));
        assert_eq!(topics.has(&Tp::new("a", -1)), Some(false));
        assert_eq!(topics.has(&Tp::new("b", 0)), None);
        for (origin, gone) in [(0, false), (3, false), (7, true), (8, false), (99, false)] {
            assert_eq!(topics.is_gone(origin), gone, "{origin}");
        }
    }
}
