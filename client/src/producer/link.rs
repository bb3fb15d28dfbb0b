//! One produce stream to one node.

use std::sync::Arc;

use seriatim_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::{error::ClientError, metadata::Metadata, rt};

/// Requests that wait for the connection. Their bytes are bounded by the producer's buffer.
const QUEUE_REQUESTS: usize = 256;

/// What a link reports.
#[derive(Debug)]
pub(super) enum Event {
    /// An answer.
    Answer(v1::ProduceResponse),
    /// The stream ended; none of its requests will be answered any more.
    Broken {
        /// The link.
        generation: u64,
        /// Why.
        error: ClientError,
    },
}

/// A stream of requests to a node; the answers come as events.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) generation: u64,
    requests: mpsc::Sender<v1::ProduceRequest>,
    _task: rt::Task,
}

impl Link {
    pub(super) fn open(
        metadata: Arc<Metadata>,
        address: Arc<str>,
        generation: u64,
        events: mpsc::Sender<Event>,
    ) -> Self {
        let (requests, queued) = mpsc::channel(QUEUE_REQUESTS);
        let _task = rt::Task::spawn(async move {
            let error = run(&metadata, &address, queued, &events).await;
            // The sender may be gone already.
            let _gone = events.send(Event::Broken { generation, error }).await;
        });
        Self {
            generation,
            requests,
            _task,
        }
    }

    /// False if the queue is full or the link broken.
    pub(super) fn send(&self, request: v1::ProduceRequest) -> bool {
        self.requests.try_send(request).is_ok()
    }
}

/// Returns why the stream ended.
async fn run(
    metadata: &Metadata,
    address: &str,
    queued: mpsc::Receiver<v1::ProduceRequest>,
    events: &mpsc::Sender<Event>,
) -> ClientError {
    let mut client = match metadata.channels.log(address) {
        Ok(client) => client,
        Err(error) => return error,
    };
    let mut answers = match client.produce_stream(ReceiverStream::new(queued)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return ClientError::from_status(address, status),
    };
    loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                if events.send(Event::Answer(answer)).await.is_err() {
                    return ClientError::Closed("producer");
                }
            }
            Ok(None) => return broken(address, tonic::Status::unavailable("the stream ended")),
            Err(status) => return broken(address, status),
        }
    }
}

/// Requests were sent, so whatever the reason, they may have taken effect.
fn broken(address: &str, status: tonic::Status) -> ClientError {
    ClientError::Transport {
        address: address.to_owned(),
        maybe_applied: true,
        status: Box::new(status),
    }
}
