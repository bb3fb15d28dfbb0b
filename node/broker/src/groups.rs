//! Consumer groups.

use prost::Message as _;
use seriatim_groups::MemberStream;
use seriatim_proto::v1;
use tokio::sync::mpsc;

use crate::{Broker, broker};

/// How long an answer may take.
const TIMEOUT_MS: u32 = 10_000;

/// How long the first question for a coordinator, which makes the partitions of groups, may take.
const CREATION_MS: u32 = 30_000;

impl Broker {
    /// Who coordinates these groups.
    pub async fn find_coordinators(
        &self,
        request: &v1::FindCoordinatorsRequest,
    ) -> Result<v1::FindCoordinatorsResponse, v1::Error> {
        let deadline = broker::deadline(0, CREATION_MS);
        let found = self.groups.coordinators(&request.groups, deadline).await;
        found.map(|coordinators| v1::FindCoordinatorsResponse { coordinators })
    }

    /// Begins a member's stream with its first message; what the member is told comes out of the
    /// receiver.
    pub async fn join_group(
        &self,
        join: v1::JoinGroup,
    ) -> Result<(MemberStream, mpsc::Receiver<v1::MemberResponse>), v1::Error> {
        self.groups.join(join).await
    }

    /// Stores offsets. What is being stored counts for the node's budget of bytes.
    pub async fn commit_offsets(
        &self,
        request: v1::CommitOffsetsRequest,
    ) -> v1::CommitOffsetsResponse {
        let deadline = broker::deadline(0, TIMEOUT_MS);
        let committed = async {
            let room = self.reserve(request.encoded_len(), deadline).await?;
            let committed = self.groups.commit(request, deadline).await;
            drop(room);
            committed
        };
        v1::CommitOffsetsResponse {
            error: committed.await.err(),
        }
    }

    /// Where a group is.
    pub async fn fetch_offsets(
        &self,
        request: v1::FetchOffsetsRequest,
    ) -> v1::FetchOffsetsResponse {
        let deadline = broker::deadline(0, TIMEOUT_MS);
        match self.groups.fetch_offsets(request, deadline).await {
            Ok(offsets) => v1::FetchOffsetsResponse {
                error: None,
                offsets,
            },
            Err(error) => v1::FetchOffsetsResponse {
                error: Some(error),
                offsets: Vec::new(),
            },
        }
    }

    /// The groups that this node coordinates.
    pub fn list_groups(&self) -> Result<v1::ListGroupsResponse, v1::Error> {
        self.groups.list()
    }

    /// A group with its members and offsets.
    pub async fn describe_group(&self, group: &str) -> v1::DescribeGroupResponse {
        let deadline = broker::deadline(0, TIMEOUT_MS);
        let described = self.groups.describe(group, deadline).await;
        described.unwrap_or_else(|error| v1::DescribeGroupResponse {
            error: Some(error),
            group: group.to_owned(),
            ..v1::DescribeGroupResponse::default()
        })
    }

    /// Deletes a group with its offsets.
    pub async fn delete_group(&self, group: &str) -> v1::DeleteGroupResponse {
        let deadline = broker::deadline(0, TIMEOUT_MS);
        v1::DeleteGroupResponse {
            error: self.groups.delete(group, deadline).await.err(),
        }
    }
}
