//! Moving the offsets of a group that has no members.

use std::collections::BTreeMap;

use seriatim_proto::{
    ids::{Offset, TopicPartition},
    v1,
};

use super::{
    admin::{DEADLINE, failed},
    plan::OFFSETS_MAX,
};
use crate::{admin::Admin, consumer::Position, error::ClientError};

/// Where to move a group's offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetTo {
    /// To a position. An offset that is not there becomes the nearest one that is.
    Position(Position),
    /// On by so many records, back if negative, but not beyond what is there. From the start where the
    /// group has no offset.
    ShiftBy(i64),
}

/// A reset of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetChange {
    /// The partition.
    pub partition: TopicPartition,
    /// Where the group was, if it was anywhere.
    pub before: Option<Offset>,
    /// Where it is now.
    pub after: Offset,
    /// What was asked for is not there; this is the nearest offset that is.
    pub clamped: bool,
}

impl Admin {
    /// Moves a group's offsets, all or (above 10,000 partitions) in parts. With `dry_run` everything
    /// is checked and nothing is moved. Returns what was changed, or would be.
    ///
    /// # Errors
    /// `GROUP_NOT_EMPTY` while the group has members: stop them first. [`ClientError::UnknownTopic`],
    /// [`ClientError::UnknownPartition`]; [`ClientError::Timeout`] if that does not succeed in time.
    pub async fn reset_group(
        &self,
        group: &str,
        targets: &[(TopicPartition, ResetTo)],
        dry_run: bool,
    ) -> Result<Vec<OffsetChange>, ClientError> {
        if targets.is_empty() {
            return Ok(Vec::new());
        }
        let changes = self.plan_reset(group, targets).await?;
        for part in changes.chunks(OFFSETS_MAX) {
            let offset = |change: &OffsetChange| v1::OffsetCommit {
                topic: change.partition.topic.clone(),
                partition: change.partition.partition.0,
                offset: change.after.0,
                metadata: String::new(),
                allow_back: true,
            };
            let request = v1::CommitOffsetsRequest {
                group: group.to_owned(),
                offsets: part.iter().map(offset).collect(),
                validate_only: dry_run,
                ..v1::CommitOffsetsRequest::default()
            };
            self.commit_from_outside(request).await?;
        }
        Ok(changes)
    }

    /// Where each partition is and is to be.
    async fn plan_reset(
        &self,
        group: &str,
        targets: &[(TopicPartition, ResetTo)],
    ) -> Result<Vec<OffsetChange>, ClientError> {
        let partitions: Vec<_> = targets.iter().map(|(tp, _)| tp.clone()).collect();
        let before = self.committed_offsets(group, &partitions).await?;
        let before: BTreeMap<_, _> = before
            .into_iter()
            .map(|c| (c.partition, c.offset))
            .collect();
        let at = |position: Position| {
            let of = move |tp: &TopicPartition| (tp.clone(), position);
            partitions.iter().map(of).collect::<Vec<_>>()
        };
        let starts = self.list_offsets(&at(Position::Start)).await?;
        let ends = self.list_offsets(&at(Position::End)).await?;
        let wanted: Vec<_> = targets
            .iter()
            .map(|(tp, to)| match to {
                ResetTo::Position(position) => (tp.clone(), *position),
                ResetTo::ShiftBy(_) => (tp.clone(), Position::Start),
            })
            .collect();
        let wanted = self.list_offsets(&wanted).await?;
        let ranges = starts.into_iter().zip(ends);
        let changes = targets.iter().zip(wanted).zip(ranges);
        Ok(changes
            .map(|(((tp, to), wanted), range)| {
                let before = before.get(tp).copied().flatten();
                change(tp, before, (*to, wanted), range)
            })
            .collect())
    }

    async fn commit_from_outside(
        &self,
        request: v1::CommitOffsetsRequest,
    ) -> Result<(), ClientError> {
        let client = self.client();
        let group = request.group.clone();
        let committed = client.at_coordinator((&group, "reset the group"), DEADLINE, |at| {
            let request = request.clone();
            async move {
                let mut groups = client.metadata().channels.groups(&at)?;
                let answer = groups.commit_offsets(request).await;
                let answer = answer.map_err(|status| ClientError::from_status(&at, status))?;
                failed(answer.into_inner().error, ())
            }
        });
        committed.await
    }
}

fn change(
    tp: &TopicPartition,
    before: Option<Offset>,
    (to, wanted): (ResetTo, Offset),
    (start, end): (Offset, Offset),
) -> OffsetChange {
    let wanted = match to {
        ResetTo::Position(_) => wanted.0,
        ResetTo::ShiftBy(by) => before.unwrap_or(start).0.saturating_add(by),
    };
    let after = wanted.clamp(start.0, end.0.max(start.0));
    OffsetChange {
        partition: tp.clone(),
        before,
        after: Offset(after),
        clamped: after != wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_stay_where_records_are() {
        let range = (Offset(100), Offset(200));
        let to = |before: Option<i64>, to: ResetTo, wanted: i64| {
            let tp = TopicPartition::new("t", 0);
            let change = change(&tp, before.map(Offset), (to, Offset(wanted)), range);
            (change.after.0, change.clamped)
        };
        let offset = |n| ResetTo::Position(Position::Offset(Offset(n)));
        assert_eq!(to(Some(150), offset(120), 120), (120, false));
        assert_eq!(to(Some(150), offset(5), 5), (100, true));
        assert_eq!(to(None, offset(500), 500), (200, true));
        assert_eq!(to(Some(150), ResetTo::ShiftBy(-20), 100), (130, false));
        assert_eq!(to(Some(150), ResetTo::ShiftBy(-80), 100), (100, true));
        assert_eq!(to(Some(150), ResetTo::ShiftBy(i64::MAX), 100), (200, true));
        assert_eq!(to(None, ResetTo::ShiftBy(7), 100), (107, false));
    }
}
