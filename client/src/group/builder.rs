//! Options of a member, and its start.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures::{FutureExt as _, task::AtomicWaker};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::timeout,
};

use super::{
    consumer::GroupConsumer,
    handle::GroupHandle,
    member::Member,
    options::{Options, Rebalance, Strategy},
    shared::Shared,
    state::State,
};
use crate::{
    client::Client,
    consumer::{PREFETCH_BYTES, QUEUE_BATCHES, ResetPolicy},
    error::ClientError,
    rt,
};

/// How long a group may take to let a member in.
const JOIN_DEADLINE: Duration = Duration::from_secs(30);
/// Requests of handles that wait for the member.
const QUEUE_COMMANDS: usize = 16;
const TOPICS_MAX: usize = 1_000;
const GROUP_ID_MAX: usize = 255;

/// Options of a member of a group, from [`Consumer::group`](crate::Consumer::group).
#[derive(Clone)]
#[must_use]
pub struct GroupBuilder {
    client: Client,
    group: String,
    options: Options,
}

impl fmt::Debug for GroupBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupBuilder")
            .field("group", &self.group)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl GroupBuilder {
    pub(crate) fn new(client: Client, group: String) -> Self {
        Self {
            client,
            group,
            options: Options {
                topics: Vec::new(),
                instance_id: String::new(),
                client_id: concat!("seriatim-client/", env!("CARGO_PKG_VERSION")).to_owned(),
                strategy: Strategy::default(),
                session_timeout: Duration::from_secs(10),
                rebalance_timeout: Duration::from_secs(60),
                reset: ResetPolicy::Start,
                auto_commit: Some(Duration::from_secs(1)),
                prefetch_bytes: PREFETCH_BYTES,
                listener: None,
            },
        }
    }

    /// Adds topics to read, up to 1,000. One that does not exist yet is read once it does.
    pub fn topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        let topics = topics.into_iter().map(Into::into);
        self.options.topics.extend(topics);
        self
    }

    /// A name that outlives restarts: a process that comes back under it within the session timeout
    /// gets its partitions back, and nothing moves meanwhile. Two processes must not share one.
    /// Default: none.
    pub fn instance_id(mut self, id: impl Into<String>) -> Self {
        self.options.instance_id = id.into();
        self
    }

    /// How partitions are shared; what most members ask for counts. Default: [`Strategy::Sticky`].
    pub const fn strategy(mut self, strategy: Strategy) -> Self {
        self.options.strategy = strategy;
        self
    }

    /// How long the group waits for a member that is silent before others get its partitions: 3 s to
    /// 30 min. Default: 10 s. A member that hears nothing of the group hands on records for four fifths of it.
    pub const fn session_timeout(mut self, time: Duration) -> Self {
        self.options.session_timeout = time;
        self
    }

    /// How long this member may keep partitions that it is to let go of, with the batches that the
    /// application still holds: 1 s to 1 h, and at least the session timeout. After that they are taken
    /// away. Default: 60 s.
    pub const fn rebalance_timeout(mut self, time: Duration) -> Self {
        self.options.rebalance_timeout = time;
        self
    }

    /// Where to begin in a partition of which the group has no offset, and where to go on if
    /// retention has removed the records at it. That alone commits nothing.
    ///
    /// Default: [`ResetPolicy::Start`]. Kafka's consumers begin at the end instead, which skips what
    /// was written before the first member came, or to a new partition before it was found: a new
    /// group that should process every record has to know and change that. Here nothing is skipped
    /// unless asked for.
    pub const fn reset(mut self, policy: ResetPolicy) -> Self {
        self.options.reset = policy;
        self
    }

    /// How often what is processed is committed; `None` leaves all commits to the application.
    /// Default: 1 s.
    pub const fn auto_commit(mut self, interval: Option<Duration>) -> Self {
        self.options.auto_commit = interval;
        self
    }

    /// The program's name, for people who look at the group.
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.options.client_id = id.into();
        self
    }

    /// Bytes that are read ahead of the application, shared by the partitions; each gets at least
    /// 256 KiB. Default: 16 MiB.
    pub const fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.options.prefetch_bytes = bytes;
        self
    }

    /// Called with each change of what the member owns, one after the other. It runs in a task of its
    /// own, so heartbeats and other partitions go on meanwhile; a new partition's records wait for
    /// it, and so do the next owners of those that are let go of. A callback without anything to wait
    /// for returns `std::future::ready(())`.
    pub fn on_rebalance<F, Fut>(mut self, callback: F) -> Self
    where
        F: Fn(Rebalance, GroupHandle) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.options.listener = Some(Arc::new(move |change, handle| {
            callback(change, handle).boxed()
        }));
        self
    }

    /// Joins the group. Returns when the coordinator has let the member in; its partitions may still
    /// be with others then.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for options that cannot be, the server's if it refuses them,
    /// [`ClientError::Timeout`] if no coordinator answers within 30 s.
    pub async fn build(self) -> Result<GroupConsumer, ClientError> {
        check(&self.group, &self.options)?;
        let (commands, received) = mpsc::channel(QUEUE_COMMANDS);
        let (queue, deliveries) = mpsc::channel(QUEUE_BATCHES);
        let state = State::new(self.options.listener.is_some());
        let shared = Arc::new(Shared {
            client: self.client,
            group: self.group,
            options: self.options,
            state: Mutex::new(state),
            consumer: AtomicWaker::new(),
            member: Notify::new(),
            commands,
            deliveries: queue,
        });
        let (let_in, joined) = oneshot::channel();
        let member = Member::new(Arc::clone(&shared), received, let_in);
        let consumer = GroupConsumer {
            handle: GroupHandle { shared },
            deliveries,
            task: Some(rt::Task::spawn(member.run())),
        };
        match timeout(JOIN_DEADLINE, joined).await {
            Ok(Ok(joined)) => joined?,
            Ok(Err(_gone)) => return Err(ClientError::Closed("consumer")),
            Err(_elapsed) => {
                return Err(ClientError::Timeout {
                    what: "join the group",
                    after: JOIN_DEADLINE,
                    maybe_applied: true,
                    last: None,
                });
            }
        }
        Ok(consumer)
    }
}

fn check(group: &str, options: &Options) -> Result<(), ClientError> {
    let within = |what: &str, time: Duration, min: Duration, max: Duration| {
        if (min..=max).contains(&time) {
            return Ok(());
        }
        let text = format!("{what} is {min:?} to {max:?}, not {time:?}");
        Err(ClientError::Invalid(text))
    };
    check_group_id(group)?;
    if options.topics.is_empty() {
        return Err(ClientError::invalid("name at least one topic to read"));
    }
    if options.topics.len() > TOPICS_MAX {
        let text = format!("a member reads at most {TOPICS_MAX} topics");
        return Err(ClientError::Invalid(text));
    }
    let seconds = Duration::from_secs;
    within(
        "the session timeout",
        options.session_timeout,
        seconds(3),
        seconds(30 * 60),
    )?;
    within(
        "the rebalance timeout",
        options.rebalance_timeout,
        seconds(1),
        seconds(60 * 60),
    )?;
    if let Some(interval) = options.auto_commit {
        within(
            "the interval of commits",
            interval,
            Duration::from_millis(10),
            seconds(60 * 60),
        )?;
    }
    Ok(())
}

/// What the server would refuse, said without asking it.
pub(super) fn check_group_id(group: &str) -> Result<(), ClientError> {
    let length = group.chars().count();
    if !(1..=GROUP_ID_MAX).contains(&length) || group.chars().any(char::is_control) {
        return Err(ClientError::Invalid(format!(
            "'{}' is not a group id: 1 to {GROUP_ID_MAX} characters, none of them a control character",
            group.escape_debug()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_ids() {
        for good in ["g", "billing.eu-1", "a b", "größe", &"x".repeat(255)] {
            check_group_id(good).unwrap();
        }
        for bad in ["", "a\nb", "\u{7f}", &"x".repeat(256)] {
            let error = check_group_id(bad).unwrap_err().to_string();
            assert!(error.contains("not a group id"), "{error}");
        }
    }
}
