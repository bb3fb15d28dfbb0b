//! One member stream to one coordinator.

use std::time::Duration;

use seriatim_proto::v1::{
    self, JoinGroup, MemberRequest, member_request::Request, member_response::Response,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{client::Client, error::ClientError, rt};

/// Requests that wait for the connection: a heartbeat each third of a session, and what is let go of.
const QUEUE: usize = 64;
const FIND_TIMEOUT: Duration = Duration::from_secs(5);
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// What a link reports.
#[derive(Debug)]
pub(super) enum Event {
    Message(Response),
    /// The stream ended; the coordinator has not said why.
    Broken(ClientError),
}

/// A stream to the coordinator; what it says comes as events with the link's number.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) number: u64,
    /// When the join was sent, or before.
    pub(super) joined: Instant,
    requests: mpsc::Sender<MemberRequest>,
    _task: rt::Task,
}

impl Link {
    pub(super) fn open(
        client: Client,
        join: JoinGroup,
        number: u64,
        events: mpsc::Sender<(u64, Event)>,
    ) -> Self {
        let (requests, queued) = mpsc::channel(QUEUE);
        let joined = Instant::now();
        let group = join.group.clone();
        let first = MemberRequest {
            request: Some(Request::Join(join)),
        };
        // The queue is empty, so there is room.
        let _sent = requests.try_send(first);
        let _task = rt::Task::spawn(async move {
            let error = run(&client, &group, queued, (number, &events)).await;
            client.coordinators().learn(&group, &error);
            // The member may be gone already.
            let _gone = events.send((number, Event::Broken(error))).await;
        });
        Self {
            number,
            joined,
            requests,
            _task,
        }
    }

    /// False if the queue is full or the stream ended.
    pub(super) fn send(&self, request: Request) -> bool {
        let request = MemberRequest {
            request: Some(request),
        };
        self.requests.try_send(request).is_ok()
    }
}

/// Returns why the stream ended.
async fn run(
    client: &Client,
    group: &str,
    queued: mpsc::Receiver<MemberRequest>,
    (number, events): (u64, &mpsc::Sender<(u64, Event)>),
) -> ClientError {
    let address = match client.coordinator(group, FIND_TIMEOUT).await {
        Ok(address) => address,
        Err(error) => return error,
    };
    let mut groups = match client.metadata().channels.groups(&address) {
        Ok(groups) => groups,
        Err(error) => return error,
    };
    let opening = groups.member(ReceiverStream::new(queued));
    let mut answers = match timeout(OPEN_TIMEOUT, opening).await {
        Ok(Ok(answers)) => answers.into_inner(),
        Ok(Err(status)) => return ClientError::from_status(&address, status),
        Err(_elapsed) => {
            return ClientError::Timeout {
                what: "open a member stream",
                after: OPEN_TIMEOUT,
                maybe_applied: true,
                last: None,
            };
        }
    };
    loop {
        match answers.message().await {
            Ok(Some(v1::MemberResponse {
                response: Some(Response::Error(error)),
            })) => return ClientError::server(error),
            Ok(Some(v1::MemberResponse { response })) => {
                let Some(response) = response else { continue };
                if events
                    .send((number, Event::Message(response)))
                    .await
                    .is_err()
                {
                    return ClientError::Closed("consumer");
                }
            }
            Ok(None) => {
                let ended = tonic::Status::unavailable("the stream ended");
                return ClientError::from_status(&address, ended);
            }
            Err(status) => return ClientError::from_status(&address, status),
        }
    }
}
