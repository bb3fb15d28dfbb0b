//! A member's stream, from the side of its connection.

use std::sync::Arc;

use prost::Message as _;
use seriatim_proto::{error::ErrorCode, v1};
use tokio::sync::mpsc;
use v1::member_request::Request;

use crate::{
    Groups,
    coordinator::{Event, link::Link},
    errors::invalid,
    limits::{MAX_COMMIT_OFFSETS, MAX_MEMBER_MESSAGE_BYTES},
    names::check_join,
    state::Tp,
};

/// What the member sends goes here; what it is told comes out of the receiver beside it.
#[derive(Debug)]
pub struct MemberStream {
    link: Arc<Link>,
    events: mpsc::Sender<Event>,
}

impl Groups {
    /// Begins a member's stream with its first message. The receiver ends when the stream does;
    /// the last message may be an error.
    pub async fn join(
        &self,
        mut join: v1::JoinGroup,
    ) -> Result<(MemberStream, mpsc::Receiver<v1::MemberResponse>), v1::Error> {
        check_join(&mut join)?;
        let (shard, _term, _cluster) = self.coordinated(&join.group)?;
        let (link, responses) = Link::new(join.group.clone(), join.member_id.clone());
        let stream = MemberStream {
            link: Arc::clone(&link),
            events: shard.events.clone(),
        };
        stream.tell(Event::Join { join, link }).await;
        Ok((stream, responses))
    }
}

impl MemberStream {
    /// Takes the member's next message.
    pub async fn receive(&self, request: v1::MemberRequest) {
        let link = Arc::clone(&self.link);
        if request.encoded_len() > MAX_MEMBER_MESSAGE_BYTES {
            let text = format!("a member's message has at most {MAX_MEMBER_MESSAGE_BYTES} bytes");
            link.end(Some(invalid(text)));
            return;
        }
        match request.request {
            Some(Request::Heartbeat(heartbeat)) => link.heartbeat(heartbeat.sequence),
            Some(Request::Join(join)) => self.join_again(join).await,
            Some(Request::Released(released)) => match partitions(&released) {
                Ok(partitions) => {
                    let generation = released.generation;
                    self.tell(Event::Released {
                        link,
                        partitions,
                        generation,
                    })
                    .await;
                }
                Err(error) => link.end(Some(error)),
            },
            Some(Request::Leave(_)) => self.tell(Event::Leave { link }).await,
            None => link.end(Some(invalid(
                "a message without a content that this node knows",
            ))),
        }
    }

    async fn join_again(&self, mut join: v1::JoinGroup) {
        let link = Arc::clone(&self.link);
        if let Err(error) = check_join(&mut join) {
            link.end(Some(error));
            return;
        }
        if join.group != link.group || join.member_id != link.member_id {
            link.end(Some(invalid("a stream is of one member of one group")));
            return;
        }
        link.hear();
        self.tell(Event::Join { join, link }).await;
    }

    /// Returns once the stream has ended.
    pub async fn ended(&self) {
        self.link.ended().await;
    }

    async fn tell(&self, event: Event) {
        // A coordinator that is gone has ended the stream, or does so now.
        if self.events.send(event).await.is_err() {
            let text = "this node does not coordinate the group any more; look for its coordinator";
            let error = v1::Error::new(ErrorCode::NotCoordinator, text);
            self.link.end(Some(error));
        }
    }
}

impl Drop for MemberStream {
    fn drop(&mut self) {
        // The connection is gone; the session goes on until its time runs out.
        self.link.end(None);
    }
}

fn partitions(released: &v1::Released) -> Result<Vec<Tp>, v1::Error> {
    let count: usize = released
        .partitions
        .iter()
        .map(|of| of.partitions.len())
        .sum();
    if count > MAX_COMMIT_OFFSETS {
        return Err(invalid(format!(
            "at most {MAX_COMMIT_OFFSETS} partitions are released at once"
        )));
    }
    let tps = released.partitions.iter().flat_map(|of| {
        let topic: Arc<str> = of.topic.as_str().into();
        let tp = move |partition: &i32| Tp::new(Arc::clone(&topic), *partition);
        of.partitions.iter().map(tp)
    });
    Ok(tps.collect())
}
