//! The two streams of the `Log` service.

use futures::{Stream, StreamExt as _, stream::FuturesUnordered};
use seriatim_broker::Broker;
use seriatim_proto::{error::ErrorCode, v1};
use seriatim_runtime::task;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::{receive::Reservations, status};

/// Produce requests of one stream under way; more wait in the connection.
const IN_FLIGHT: usize = 64;

/// Answers that wait for the connection.
const ANSWERS: usize = 16;

/// Appends each request; answers in the order in which the appends finish.
pub(crate) fn produce(
    broker: Broker,
    mut requests: Streaming<v1::ProduceRequest>,
    rooms: Reservations,
) -> impl Stream<Item = Result<v1::ProduceResponse, Status>> + Send {
    let (sender, answers) = mpsc::channel(ANSWERS);
    let serving = task::spawn("produce-stream", async move {
        // Polled first in the order of arrival: batches of one partition keep their order.
        let mut under_way = FuturesUnordered::new();
        let mut open = true;
        while open || !under_way.is_empty() {
            tokio::select! {
                biased;
                Some(answer) = under_way.next(), if !under_way.is_empty() => {
                    if sender.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
                // What was not read had no effect: the client sends it to whoever leads now.
                () = broker.stopping(), if open => open = false,
                request = requests.message(), if open && under_way.len() < IN_FLIGHT => {
                    match request {
                        Ok(Some(request)) => {
                            under_way.push(broker.produce(request, rooms.next()));
                        },
                        Ok(None) => open = false,
                        Err(error) => {
                            tracing::debug!(%error, "a produce stream broke");
                            open = false;
                        }
                    }
                }
            }
        }
    });
    drop(serving);
    ReceiverStream::new(answers)
}

/// Reads one partition for as long as the client grants bytes.
pub(crate) async fn fetch(
    broker: Broker,
    mut requests: Streaming<v1::FetchStreamRequest>,
) -> Result<impl Stream<Item = Result<v1::FetchStreamResponse, Status>> + Send, Status> {
    use v1::fetch_stream_request::Kind;
    let invalid = |text: &str| status::of(&v1::Error::new(ErrorCode::InvalidRequest, text));
    let Some(Kind::Open(open)) = requests.message().await?.and_then(|first| first.kind) else {
        return Err(invalid("the first message of a fetch stream must open it"));
    };
    // Totals: what the last batch takes beyond the grant is owed, and the next grant pays for it.
    let (mut granted, mut sent) = (open.grant_bytes, 0_u64);
    let mut session = broker
        .fetch_session(open)
        .map_err(|error| status::of(&error))?;
    let (sender, answers) = mpsc::channel(ANSWERS);
    let serving = task::spawn("fetch-stream", async move {
        let mut heard = true;
        while heard || granted > sent {
            let room = usize::try_from(granted.saturating_sub(sent)).unwrap_or(usize::MAX);
            tokio::select! {
                biased;
                message = requests.message(), if heard => match message {
                    Ok(Some(v1::FetchStreamRequest { kind: Some(Kind::GrantBytes(more)) })) => {
                        granted = granted.saturating_add(more);
                    }
                    Ok(Some(_)) => {
                        let error = v1::Error::new(
                            ErrorCode::InvalidRequest,
                            "a fetch stream is opened once; then it takes grants",
                        );
                        let _gone = sender.send(Err(status::of(&error))).await;
                        return;
                    }
                    Ok(None) => heard = false,
                    Err(_broken) => return,
                },
                () = sender.closed() => return,
                () = broker.stopping() => {
                    let error = v1::Error::new(
                        ErrorCode::ShuttingDown,
                        "this node is shutting down; ask the partition's leader",
                    );
                    let _gone = sender.send(Err(status::of(&error))).await;
                    return;
                }
                answer = session.next(room), if granted > sent => {
                    let failed = answer.is_err();
                    if let Ok(answer) = &answer {
                        sent = sent.saturating_add(answer.record_batches.len() as u64);
                    }
                    let answer = answer.map_err(|error| status::of(&error));
                    if sender.send(answer).await.is_err() || failed {
                        return;
                    }
                }
            }
        }
    });
    drop(serving);
    Ok(ReceiverStream::new(answers))
}
