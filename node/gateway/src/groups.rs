//! The `Groups` service.

use std::pin::Pin;

use futures::Stream;
use seriatim_broker::{Broker, MemberStream};
use seriatim_proto::{error::ErrorCode, v1};
use seriatim_runtime::task;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};
use v1::{member_request::Request as Message, member_response::Response as Answer};

use crate::status;

/// Consumer groups.
#[derive(Debug, Clone)]
pub(crate) struct GroupsService(pub(crate) Broker);

type Answers = Pin<Box<dyn Stream<Item = Result<v1::MemberResponse, Status>> + Send>>;

#[tonic::async_trait]
impl v1::groups_server::Groups for GroupsService {
    type MemberStream = Answers;

    async fn find_coordinators(
        &self,
        request: Request<v1::FindCoordinatorsRequest>,
    ) -> Result<Response<v1::FindCoordinatorsResponse>, Status> {
        let found = self.0.find_coordinators(&request.into_inner()).await;
        found.map(Response::new).map_err(|error| status::of(&error))
    }

    async fn member(
        &self,
        request: Request<Streaming<v1::MemberRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let address = request.remote_addr();
        let mut requests = request.into_inner();
        let first = requests.message().await?;
        let Some(Message::Join(mut join)) = first.and_then(|first| first.request) else {
            let text = "the first message of a member's stream must be to join";
            let error = v1::Error::new(ErrorCode::InvalidRequest, text);
            return Ok(Response::new(last(error)));
        };
        if join.client_host.is_empty() {
            join.client_host = address.map_or_else(String::new, |from| from.ip().to_string());
        }
        let (member, answers) = match self.0.join_group(join).await {
            Ok(joined) => joined,
            Err(error) => return Ok(Response::new(last(error))),
        };
        let _serving = task::spawn("member-stream", receive(member, requests));
        Ok(Response::new(Box::pin(stream(answers))))
    }

    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        let committed = self.0.commit_offsets(request.into_inner()).await;
        Ok(Response::new(committed))
    }

    async fn fetch_offsets(
        &self,
        request: Request<v1::FetchOffsetsRequest>,
    ) -> Result<Response<v1::FetchOffsetsResponse>, Status> {
        let fetched = self.0.fetch_offsets(request.into_inner()).await;
        Ok(Response::new(fetched))
    }

    async fn list_groups(
        &self,
        _request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        let listed = self.0.list_groups();
        listed
            .map(Response::new)
            .map_err(|error| status::of(&error))
    }

    async fn describe_group(
        &self,
        request: Request<v1::DescribeGroupRequest>,
    ) -> Result<Response<v1::DescribeGroupResponse>, Status> {
        let described = self.0.describe_group(&request.into_inner().group).await;
        Ok(Response::new(described))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        let deleted = self.0.delete_group(&request.into_inner().group).await;
        Ok(Response::new(deleted))
    }
}

/// A stream that is refused.
fn last(error: v1::Error) -> Answers {
    let message = v1::MemberResponse {
        response: Some(Answer::Error(error)),
    };
    Box::pin(tokio_stream::once(Ok(message)))
}

fn stream(
    answers: mpsc::Receiver<v1::MemberResponse>,
) -> impl Stream<Item = Result<v1::MemberResponse, Status>> + Send {
    ReceiverStream::new(answers).map(Ok)
}

/// Hands on what the member sends until its stream ends on either side.
async fn receive(member: MemberStream, mut requests: Streaming<v1::MemberRequest>) {
    loop {
        let request = tokio::select! {
            biased;
            () = member.ended() => return,
            request = requests.message() => request,
        };
        match request {
            Ok(Some(request)) => member.receive(request).await,
            Ok(None) => break,
            Err(error) => {
                tracing::debug!(%error, "a member's stream broke");
                return;
            }
        }
    }
    // The member has nothing more to say, but may wait for the end of a leave.
    member.ended().await;
}
