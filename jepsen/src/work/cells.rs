//! The register of the workloads, used through the client library.

use std::time::Duration;

use seriatim_client::{Client, ClientError, Consumer, Offset, Position, Producer, TopicPartition};

use super::{
    Work,
    actor::told,
    conditional, one_in,
    produce::{self, DELIVERY},
    read_to::{Halt, read_to},
    record,
    register::{CELLS, Log, REGISTER, User},
};
use crate::history::{Kind, Value};

/// Mean pause before something is tried again.
const AGAIN: Duration = Duration::from_millis(50);

/// Reads, writes, compares and sets until the jobs are to end.
pub(super) async fn register(work: Work, pause: Duration) {
    let key = work.keys().of(CELLS, REGISTER);
    let log = Remote {
        work: work.clone(),
        next: 0,
        session: None,
    };
    let mut user = User::new(work.recorder(), key, log);
    while !work.stopping() {
        user.act(work.value()).await;
        work.pause(pause).await;
    }
}

/// The log of the register, through one client after the other.
struct Remote {
    work: Work,
    /// The offset from which on it is to be read.
    next: i64,
    session: Option<Session>,
}

impl Remote {
    /// The session that there is, or a new one; `None` if the jobs are to end.
    async fn session(&mut self) -> Option<&mut Session> {
        if one_in(50) {
            self.session = None;
        }
        while self.session.is_none() {
            let client = self.work.client().await?;
            match Session::new(client, self.next).await {
                Ok(session) => self.session = Some(session),
                Err(error) => {
                    self.expect_transient("reached", &error);
                    self.work.pause(AGAIN).await;
                }
            }
        }
        self.session.as_mut()
    }

    /// Who neither reads nor builds anything that cannot be fails because nobody answers.
    fn expect_transient(&self, what: &str, error: &ClientError) {
        if !error.is_retryable() {
            let text = format!("the register cannot be {what}: {}", told(error));
            self.work.recorder().impossible(text);
        }
    }
}

impl Log for Remote {
    fn node(&self) -> Option<u64> {
        None
    }

    async fn read_on(&mut self, offset: i64) -> Vec<(i64, Value)> {
        self.next = offset;
        while let Some(session) = self.session().await {
            match session.read_on().await {
                Ok(records) => {
                    self.next = records.last().map_or(offset, |last| last.0 + 1);
                    return records;
                }
                Err(Halt::Failed(error)) => self.expect_transient("read", &error),
                // Another node may have them.
                Err(Halt::Silent) => {}
                Err(Halt::Wrong(why)) => {
                    let text = format!("the register cannot be read: {why}");
                    self.work.recorder().impossible(text);
                }
            }
            self.session = None;
            self.work.pause(AGAIN).await;
        }
        Vec::new()
    }

    async fn append(&mut self, value: Value, expected_end: Option<i64>) -> (Kind, String) {
        let Some(session) = self.session().await else {
            return (Kind::Fail, "the run ends".to_owned());
        };
        let Err(error) = session.append(value, expected_end).await else {
            return (Kind::Ok, String::new());
        };
        match expected_end {
            Some(_) => conditional::expect_known(&self.work, &error),
            None => produce::expect_documented(&self.work, &error),
        }
        if error.actual_end_offset().is_none() {
            self.session = None;
        }
        let certain = error.has_no_side_effects();
        let kind = if certain { Kind::Fail } else { Kind::Info };
        (kind, told(&error))
    }
}

/// A client and what it has made.
struct Session {
    client: Client,
    producer: Producer,
    consumer: Consumer,
}

impl Session {
    /// One that reads from `next` on.
    async fn new(client: Client, next: i64) -> Result<Self, ClientError> {
        let producer = client.producer().delivery_timeout(DELIVERY);
        let from = Position::Offset(Offset(next));
        let consumer = client.consumer().assign(CELLS, REGISTER, from);
        Ok(Self {
            producer: producer.build().await?,
            consumer: consumer.build().await?,
            client,
        })
    }

    /// All up to where the log ends now.
    async fn read_on(&mut self) -> Result<Vec<(i64, Value)>, Halt> {
        let place = TopicPartition::new(CELLS, REGISTER);
        let asked = [(place.clone(), Position::End)];
        let found = self.client.admin().list_offsets(&asked).await?;
        let end = found.first().copied().unwrap_or_default();
        read_to(&mut self.consumer, &place, end).await
    }

    async fn append(&self, value: Value, expected_end: Option<i64>) -> Result<(), ClientError> {
        let record = record::record(CELLS, value);
        let _place = match expected_end {
            Some(end) => {
                let (at, records) = (Offset(end), vec![record]);
                self.producer
                    .append_if(CELLS, REGISTER, at, records)
                    .await?
            }
            None => {
                self.producer
                    .send(record.partition(REGISTER))
                    .await?
                    .await?
            }
        };
        Ok(())
    }
}
