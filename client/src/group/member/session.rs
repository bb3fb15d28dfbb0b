//! The stream to the coordinator: joining, heartbeats, assignments, and losing it.

use std::time::Duration;

use seriatim_proto::{
    ids::TopicPartition,
    v1::{self, JoinGroup, Released, member_request::Request, member_response::Response},
};
use tokio::time::Instant;

use super::Member;
use crate::{
    error::ClientError,
    group::{
        admin::by_topic,
        link::{Event, Link},
        state::{Verdict, judge},
    },
    rt,
};

/// Most time between two heartbeats.
const BEAT_MAX: Duration = Duration::from_secs(3);

impl Member {
    /// Takes a member id that nobody has used.
    pub(super) fn rename(&mut self) {
        self.known = false;
        self.shared.state.lock().member_id = rt::uuid();
    }

    pub(super) fn connect(&mut self) {
        let options = &self.shared.options;
        let join = JoinGroup {
            group: self.shared.group.clone(),
            member_id: self.shared.state.lock().member_id.clone(),
            instance_id: options.instance_id.clone(),
            topics: options.topics.clone(),
            strategy: options.strategy.to_wire().into(),
            session_timeout_ms: millis(options.session_timeout),
            rebalance_timeout_ms: millis(options.rebalance_timeout),
            client_id: options.client_id.clone(),
            client_host: String::new(),
            rejoin: self.known,
        };
        self.link_number += 1;
        self.connected = false;
        self.reconnect_at = None;
        self.beats.clear();
        let client = self.shared.client.clone();
        let link = Link::open(client, join, self.link_number, self.links.clone());
        self.link = Some(link);
        self.beat_at = Some(Instant::now() + self.beat_interval());
    }

    fn disconnect(&mut self, wait: Duration) {
        self.link = None;
        self.beat_at = None;
        self.reconnect_at = Some(Instant::now() + wait);
    }

    fn beat_interval(&self) -> Duration {
        (self.session / 3).min(BEAT_MAX)
    }

    pub(super) fn beat(&mut self, now: Instant) {
        self.beat_at = Some(now + self.beat_interval());
        if let Some(link) = &self.link {
            let sequence = self.beats.send(now);
            // Where the queue is full nobody reads, and the lease runs out.
            let _sent = link.send(Request::Heartbeat(v1::Heartbeat { sequence }));
        }
    }

    pub(super) fn on_event(&mut self, number: u64, event: Event) {
        // Of a link that was given up.
        if self.link.as_ref().is_none_or(|link| link.number != number) {
            return;
        }
        match event {
            Event::Message(Response::Assignment(news)) => self.on_assignment(&news),
            Event::Message(Response::Heartbeat(ack)) => {
                if let Some(sent) = self.beats.answered(ack.sequence) {
                    let mut state = self.shared.state.lock();
                    state.lease.renew(sent, Instant::now());
                }
            }
            Event::Message(Response::Error(error)) => self.on_broken(ClientError::server(error)),
            Event::Broken(error) => self.on_broken(error),
        }
    }

    fn on_assignment(&mut self, news: &v1::Assignment) {
        let Some(link) = &self.link else { return };
        let released = {
            let mut state = self.shared.state.lock();
            if !self.connected {
                if news.session_timeout_ms > 0 {
                    self.session = Duration::from_millis(news.session_timeout_ms.into());
                }
                state.lease.confirm(link.joined, self.session);
            }
            if state.closing {
                // Nothing new is begun.
                state.assign_no_more(news);
                Vec::new()
            } else {
                state.assign(news)
            }
        };
        self.connected = true;
        self.known = true;
        self.attempt = 0;
        tracing::debug!(
            group = self.shared.group,
            generation = news.generation,
            assigned = news.assigned.len(),
            revoke = news.revoke.len(),
            pending = news.pending.len(),
            "assignment"
        );
        self.send_released(&released);
        if let Some(let_in) = self.let_in.take() {
            // The builder may have given up.
            let _gone = let_in.send(Ok(()));
        }
        self.shared.consumer.wake();
    }

    /// Tells that partitions are let go of. Lost with the link, it is told again when the next one
    /// asks for them.
    pub(super) fn send_released(&self, released: &[TopicPartition]) {
        if let Some(link) = &self.link
            && !released.is_empty()
        {
            let partitions = by_topic(released);
            let generation = self.shared.state.lock().generation;
            let _sent = link.send(Request::Released(Released {
                partitions,
                generation,
            }));
        }
    }

    pub(super) fn on_lease_out(&mut self) {
        tracing::warn!(
            group = self.shared.group,
            "no heartbeat was answered for the session timeout; nothing is handed on until the \
             coordinator confirms what this member owns"
        );
        self.shared.state.lock().lease.end();
        if self.closing.is_none() {
            self.disconnect(Duration::ZERO);
        }
    }

    /// The link ended, or the coordinator refused something.
    pub(super) fn on_broken(&mut self, error: ClientError) {
        if self.has_left() {
            return self.finish(Ok(()));
        }
        match judge(&error) {
            Verdict::Unknown => self.on_unknown(error),
            Verdict::Fatal => self.fail(error),
            Verdict::Retry | Verdict::Outdated => {
                tracing::debug!(group = self.shared.group, %error, "join again");
                let wait = rt::backoff(self.attempt);
                self.attempt = self.attempt.saturating_add(1);
                self.disconnect(wait);
            }
        }
    }

    /// Asks the coordinator anew what this member owns.
    pub(super) fn resync(&mut self) {
        if self.closing.is_none() && self.connected {
            self.disconnect(rt::backoff(0));
        }
    }

    /// The group has given this member up. What it held may be with others.
    pub(super) fn on_unknown(&mut self, error: ClientError) {
        let unsaved = {
            let mut state = self.shared.state.lock();
            let unsaved = state.parts.values().any(|part| part.to_commit().is_some());
            state.lose_all();
            unsaved
        };
        if self.closing.is_some() {
            let automatic = self.commits.is_automatic();
            return self.finish(if unsaved && automatic {
                Err(error)
            } else {
                Ok(())
            });
        }
        if self.known {
            tracing::warn!(
                group = self.shared.group,
                %error,
                "the group does not know this member any more; it joins anew and goes on from the \
                 committed offsets"
            );
        }
        self.commits.drop_waiters(&error);
        self.rename();
        let wait = rt::backoff(self.attempt);
        self.attempt = self.attempt.saturating_add(1);
        self.disconnect(wait);
    }

    /// It is over.
    fn fail(&mut self, error: ClientError) {
        let lost: Vec<_> = {
            let mut state = self.shared.state.lock();
            state.lose_all();
            std::mem::take(&mut state.lost).into_iter().collect()
        };
        self.call_lost(lost);
        self.commits.drop_waiters(&error);
        if self.closing.is_some() {
            return self.finish(Err(error));
        }
        match self.let_in.take() {
            Some(let_in) => {
                // The builder may have given up.
                let _gone = let_in.send(Err(error));
            }
            None => self.shared.state.lock().fail(error),
        }
        self.over = true;
    }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
