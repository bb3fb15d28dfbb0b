//! One member's stream: what the coordinator sends to it, and when it was heard.

use std::sync::Arc;

use parking_lot::Mutex;
use seriatim_proto::v1;
use seriatim_runtime::clock::{self, Instant};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use v1::member_response::Response;

/// Messages that wait for a member's connection. A member for which there are more does not read
/// them: it is disconnected.
const WAITING: usize = 32;

/// How long this node certainly leads the shard: before it ends, a majority must have confirmed it
/// again. Without it no heartbeat is answered, so that the members of a leader that is cut off look
/// for the new one.
#[derive(Debug)]
pub(crate) struct Lease(Mutex<Instant>);

impl Lease {
    pub(crate) fn until(instant: Instant) -> Arc<Self> {
        Arc::new(Self(Mutex::new(instant)))
    }

    pub(crate) fn extend(&self, instant: Instant) {
        let mut until = self.0.lock();
        *until = instant.max(*until);
    }

    pub(crate) fn is_valid(&self) -> bool {
        clock::now() < *self.0.lock()
    }
}

/// A member's stream.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) group: String,
    pub(crate) member_id: String,
    out: Mutex<Option<mpsc::Sender<v1::MemberResponse>>>,
    heard: Mutex<Instant>,
    /// Set once the coordinator has made the stream the member's.
    admitted: Mutex<Option<Arc<Lease>>>,
    ended: CancellationToken,
}

impl Link {
    pub(crate) fn new(
        group: String,
        member_id: String,
    ) -> (Arc<Self>, mpsc::Receiver<v1::MemberResponse>) {
        let (out, responses) = mpsc::channel(WAITING);
        let link = Self {
            group,
            member_id,
            out: Mutex::new(Some(out)),
            heard: Mutex::new(clock::now()),
            admitted: Mutex::default(),
            ended: CancellationToken::new(),
        };
        (Arc::new(link), responses)
    }

    /// When the member was last heard.
    pub(crate) fn heard(&self) -> Instant {
        *self.heard.lock()
    }

    /// Takes note of a sign of life.
    pub(crate) fn hear(&self) {
        *self.heard.lock() = clock::now();
    }

    /// Takes note of a heartbeat and answers it, from memory alone.
    pub(crate) fn heartbeat(&self, sequence: u64) {
        self.hear();
        let lease = self.admitted.lock().clone();
        if lease.is_some_and(|lease| lease.is_valid()) {
            self.send(Response::Heartbeat(v1::HeartbeatAck { sequence }));
        }
    }

    /// Makes the stream the member's, as long as the lease holds.
    pub(crate) fn admit(&self, lease: &Arc<Lease>) {
        *self.admitted.lock() = Some(Arc::clone(lease));
    }

    /// Sends a message; ends the stream where the member does not read.
    pub(crate) fn send(&self, response: Response) {
        let message = v1::MemberResponse {
            response: Some(response),
        };
        let sent = match &*self.out.lock() {
            Some(out) => out.try_send(message).is_ok(),
            None => return,
        };
        if !sent {
            tracing::debug!(
                group = self.group,
                member = self.member_id,
                "a member's stream is broken or not read"
            );
            self.end(None);
        }
    }

    /// Ends the stream, with an error as its last message or without one.
    pub(crate) fn end(&self, error: Option<v1::Error>) {
        if let Some(out) = self.out.lock().take()
            && let Some(error) = error
        {
            let message = v1::MemberResponse {
                response: Some(Response::Error(error)),
            };
            // No room: the end of the stream must do.
            let _full = out.try_send(message).is_err();
        }
        self.ended.cancel();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Returns once the stream has ended.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use seriatim_proto::error::ErrorCode;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn heartbeats_are_answered_while_the_lease_holds() {
        let (link, mut responses) = Link::new("g".into(), "m".into());
        link.heartbeat(1);
        let lease = Lease::until(clock::now() + Duration::from_secs(2));
        link.admit(&lease);
        link.heartbeat(2);
        clock::sleep(Duration::from_secs(3)).await;
        link.heartbeat(3);
        assert_eq!(link.heard(), clock::now());
        lease.extend(clock::now() + Duration::from_secs(1));
        link.heartbeat(4);
        link.end(Some(v1::Error::new(ErrorCode::NotCoordinator, "over")));
        link.heartbeat(5);
        let mut answered = Vec::new();
        while let Some(message) = responses.recv().await {
            answered.push(match message.response.unwrap() {
                Response::Heartbeat(ack) => ack.sequence,
                Response::Error(_) => 99,
                Response::Assignment(_) => 0,
            });
        }
        assert_eq!(answered, [2, 4, 99]);
        assert!(link.has_ended());
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_does_not_read_is_disconnected() {
        let (link, mut responses) = Link::new("g".into(), "m".into());
        link.admit(&Lease::until(clock::now() + Duration::from_secs(2)));
        for sequence in 0..=WAITING {
            assert!(!link.has_ended());
            link.heartbeat(u64::try_from(sequence).unwrap());
        }
        assert!(link.has_ended());
        let mut waiting = 0;
        while responses.recv().await.is_some() {
            waiting += 1;
        }
        assert_eq!(waiting, WAITING);
    }
}
