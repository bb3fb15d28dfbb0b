//! The register of the workloads, used over the bare protocol.

use std::time::Duration;

use seriatim_proto::v1;

use super::{
    client::{Attempt, Client, encode, key, value},
    workload::Outcome,
};
use crate::{
    history::{Kind, Value},
    work::register::{CELLS, Log, REGISTER, User},
};

/// Pause before a node is asked again.
const AGAIN: Duration = Duration::from_millis(50);

/// Where the register is.
const PLACE: (&str, i32) = (CELLS, REGISTER);

/// Reads, writes, compares and sets until the run ends.
pub async fn register(client: Client, producer: u32, pause: Duration) {
    let log = Bare {
        node: client.any_node(),
        client: client.clone(),
    };
    let mut user = User::new(&client.recorder, key(CELLS, REGISTER), log);
    let mut next = 0;
    while !client.stopping() {
        user.act(value(producer, next)).await;
        next += 1;
        client.pause(pause).await;
    }
}

/// The log of the register, at one node after the other.
struct Bare {
    client: Client,
    node: u64,
}

impl Bare {
    fn elsewhere(&mut self, failed: Option<&v1::Error>) {
        self.node = match failed {
            Some(error) => self.client.after(error),
            None => self.client.any_node(),
        };
    }
}

impl Log for Bare {
    fn node(&self) -> Option<u64> {
        Some(self.node)
    }

    async fn read_on(&mut self, offset: i64) -> Vec<(i64, Value)> {
        let mut records = Vec::new();
        let mut end = offset;
        while !self.client.stopping() {
            match self.client.fetch(self.node, PLACE, end).await {
                Ok(fetched) => {
                    end = fetched.records.last().map_or(end, |last| last.0 + 1);
                    records.extend(fetched.records);
                    if end >= fetched.high_watermark {
                        break;
                    }
                }
                Err(error) => {
                    self.elsewhere(error.as_ref());
                    self.client.pause(AGAIN).await;
                }
            }
        }
        records
    }

    async fn append(&mut self, value: Value, expected_end: Option<i64>) -> (Kind, String) {
        let batch = encode(PLACE, &[value], 10, None, expected_end);
        let asked = self.node;
        let attempt = self.client.append(asked, batch).await;
        match &attempt {
            Attempt::Acknowledged(_) => {}
            Attempt::Error(error) => self.elsewhere(Some(error)),
            Attempt::Lost(_) => self.elsewhere(None),
        }
        Outcome::of(asked, attempt).told()
    }
}
