//! The member's task: it alone talks to the coordinator and decides what happens next.
//!
//! Each turn takes one thing that happened ([`Next`]), notes what follows from it in the shared
//! [state](super::state), and then does all that has become possible ([`Member::advance`]). It never
//! waits for the application, a commit or a lookup in between, so heartbeats go out whatever the
//! others do.

mod callback;
mod commits;
mod finish;
mod session;
mod start;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use self::{callback::Callback, commits::Commits, finish::Closing, start::Lookup};
use super::{
    lease::Beats,
    link::{Event, Link},
    shared::{Command, Shared},
};
use crate::error::ClientError;

/// Far enough away for a timer that is not needed.
const IDLE: Duration = Duration::from_secs(3600);

pub(super) struct Member {
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Receiver<(u64, Event)>,
    links: mpsc::Sender<(u64, Event)>,
    link: Option<Link>,
    link_number: u64,
    /// The coordinator has answered on this link.
    connected: bool,
    /// The group has heard of the present member id.
    known: bool,
    beats: Beats,
    beat_at: Option<Instant>,
    /// The session timeout that the group goes by.
    session: Duration,
    reconnect_at: Option<Instant>,
    /// Links in a row that brought no answer.
    attempt: u32,
    commits: Commits,
    callback: Option<Callback>,
    lookups: FuturesUnordered<Lookup>,
    closing: Option<Closing>,
    let_in: Option<oneshot::Sender<Result<(), ClientError>>>,
    over: bool,
}

/// What a turn begins with.
enum Next {
    Link(u64, Event),
    Command(Command),
    /// Something came back, or the consumer was dropped.
    Woken,
    Committed(Result<(), ClientError>),
    Called,
    Found(start::Found),
    Timer,
}

impl Member {
    pub(super) fn new(
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        let_in: oneshot::Sender<Result<(), ClientError>>,
    ) -> Self {
        let (links, events) = mpsc::channel(16);
        Self {
            session: shared.options.session_timeout,
            commits: Commits::new(shared.options.auto_commit),
            shared,
            commands,
            events,
            links,
            link: None,
            link_number: 0,
            connected: false,
            known: false,
            beats: Beats::default(),
            beat_at: None,
            reconnect_at: None,
            attempt: 0,
            callback: None,
            lookups: FuturesUnordered::new(),
            closing: None,
            let_in: Some(let_in),
            over: false,
        }
    }

    pub(super) async fn run(mut self) {
        self.rename();
        self.connect();
        while !self.over {
            match self.next().await {
                Next::Link(number, event) => self.on_event(number, event),
                Next::Command(command) => self.on_command(command),
                Next::Woken => self.on_woken(),
                Next::Committed(answer) => self.on_committed(answer),
                Next::Called => self.on_called(),
                Next::Found(found) => self.on_found(found),
                Next::Timer => self.on_timer(Instant::now()),
            }
            if !self.over {
                self.advance();
            }
        }
        self.end().await;
    }

    async fn end(mut self) {
        {
            let mut state = self.shared.state.lock();
            state.ended = true;
            state.parts.clear();
        }
        self.shared.consumer.wake();
        // Who has sent something meanwhile hears that nobody takes it: a receiver that is only dropped
        // may leave it in the queue.
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            drop(command);
        }
    }

    async fn next(&mut self) -> Next {
        let timer = self.next_timer();
        let room = self.commits.has_room();
        tokio::select! {
            biased;
            // First, so that nothing is believed that was said before a lease ran out.
            () = sleep_until(timer) => Next::Timer,
            Some((number, event)) = self.events.recv() => Next::Link(number, event),
            () = self.shared.member.notified() => Next::Woken,
            answer = self.commits.answer() => Next::Committed(answer),
            () = callback::done(&mut self.callback) => Next::Called,
            Some(found) = self.lookups.next(), if !self.lookups.is_empty() => Next::Found(found),
            Some(command) = self.commands.recv(), if room => Next::Command(command),
        }
    }

    fn next_timer(&self) -> Instant {
        let lease = self.shared.state.lock().lease.until();
        let closing = self.closing.as_ref().and_then(Closing::until);
        let timers = [
            lease,
            self.beat_at,
            self.reconnect_at,
            self.commits.at(),
            closing,
        ];
        let soonest = timers.into_iter().flatten().min();
        soonest.unwrap_or_else(|| Instant::now() + IDLE)
    }

    fn on_timer(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let lease = self.shared.state.lock().lease.until();
        if due(lease) {
            self.on_lease_out();
        }
        if due(self.reconnect_at) {
            self.connect();
        }
        if due(self.beat_at) {
            self.beat(now);
        }
        self.commits.on_timer(now);
        if due(self.closing.as_ref().and_then(Closing::until)) {
            self.finish(Ok(()));
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Commit { offsets, reply } => {
                let state = self.shared.state.lock();
                self.commits.ask(&state, offsets, reply);
            }
            Command::Close(reply) => self.close(reply),
        }
    }

    fn on_woken(&mut self) {
        if self.shared.state.lock().abandoned {
            self.abandon();
        }
    }

    /// Does everything that has become possible.
    fn advance(&mut self) {
        let waits = {
            let mut state = self.shared.state.lock();
            state.drain(self.commits.is_automatic())
        };
        if waits {
            self.commits.hurry();
        }
        self.start_commit();
        self.start_callbacks();
        self.start_reading();
        self.finish_closing();
    }
}
