//! A register that is kept in a partition: its value is that of the last write in the log.
//!
//! What must be linearizable takes effect by one append each. A write is an append; a compare-and-set is
//! one on condition that the log ends where its process has read to; a read is the same with a record
//! that stands for no write, so that what was read is known to be the latest at the moment of that append.
//! No operation is tried again after it may have had an effect.

use std::time::Duration;

use seriatim_proto::v1;
use seriatim_runtime::rng;

use super::{
    client::{Attempt, CELLS, Client, encode, key, value},
    workload::Outcome,
};
use crate::history::{Action, Kind, Pending, Process, Register, RegisterOp, Value};

/// The partition of [`CELLS`] that holds the register.
pub const REGISTER: i32 = 0;

/// The partition of [`CELLS`] to which everybody appends on condition only.
pub const LEDGER: i32 = 1;

/// The record of a read.
const MARK: Value = -1;

/// Attempts of one operation that had no effect, before it is given up.
const ATTEMPTS: usize = 4;

/// One user of the register.
struct User {
    client: Client,
    process: Process,
    node: u64,
    /// The log is known up to here.
    end: i64,
    /// The value as of `end`.
    value: Option<Value>,
}

/// Reads, writes, compares and sets until the run ends.
pub async fn register(client: Client, producer: u32, pause: Duration) {
    let mut user = User {
        process: client.recorder.process(),
        node: client.any_node(),
        end: 0,
        value: None,
        client,
    };
    let mut next = 0;
    while !user.client.stopping() {
        let fresh = value(producer, next);
        next += 1;
        match rng::below(3) {
            0 => user.read().await,
            1 => user.write(fresh).await,
            _ => user.compare_and_set(fresh).await,
        }
        user.client.pause(pause).await;
    }
}

impl User {
    /// Reads what others have written since.
    async fn catch_up(&mut self) {
        while !self.client.stopping() {
            let place = (CELLS, REGISTER);
            match self.client.fetch(self.node, place, self.end).await {
                Ok(fetched) => {
                    for &(offset, value) in &fetched.records {
                        self.end = offset + 1;
                        if value != MARK {
                            self.value = Some(value);
                        }
                    }
                    if self.end >= fetched.high_watermark {
                        return;
                    }
                }
                Err(error) => {
                    self.elsewhere(error.as_ref());
                    self.client.pause(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn elsewhere(&mut self, failed: Option<&v1::Error>) {
        self.node = match failed {
            Some(error) => self.client.after(error),
            None => self.client.any_node(),
        };
    }

    async fn append(&mut self, value: Value, expected_end: Option<i64>) -> (Kind, String) {
        let batch = encode((CELLS, REGISTER), &[value], 10, None, expected_end);
        let asked = self.node;
        let attempt = self.client.append(asked, batch).await;
        match &attempt {
            Attempt::Acknowledged(_) => {}
            Attempt::Error(error) => self.elsewhere(Some(error)),
            Attempt::Lost(_) => self.elsewhere(None),
        }
        Outcome::of(asked, attempt).told()
    }

    /// Writes down how an operation ended.
    fn complete(&mut self, pending: Pending, op: RegisterOp, end: (Kind, String)) {
        let action = act(op);
        let recorder = &self.client.recorder;
        match end {
            (Kind::Ok | Kind::Invoke, _) => recorder.ok(pending, action),
            (Kind::Fail, why) => recorder.fail(pending, action, why),
            (Kind::Info, why) => self.process = recorder.info(pending, action, why),
        }
    }

    fn invoke(&self, op: RegisterOp) -> Pending {
        let node = Some(self.node);
        self.client.recorder.invoke(self.process, node, act(op))
    }

    async fn read(&mut self) {
        let pending = self.invoke(RegisterOp::Read(None));
        let mut end = (Kind::Fail, String::new());
        for _ in 0..ATTEMPTS {
            self.catch_up().await;
            end = self.append(MARK, Some(self.end)).await;
            if end.0 != Kind::Fail {
                break;
            }
        }
        // The record of a read that was not answered changes no value.
        if end.0 == Kind::Info {
            end.0 = Kind::Fail;
        }
        self.complete(pending, RegisterOp::Read(self.value), end);
    }

    async fn write(&mut self, new: Value) {
        let op = RegisterOp::Write(new);
        let pending = self.invoke(op.clone());
        let end = self.append(new, None).await;
        self.complete(pending, op, end);
    }

    async fn compare_and_set(&mut self, new: Value) {
        self.catch_up().await;
        let op = RegisterOp::Cas(self.value, new);
        let pending = self.invoke(op.clone());
        let end = self.append(new, Some(self.end)).await;
        self.complete(pending, op, end);
    }
}

fn act(op: RegisterOp) -> Action {
    Action::Register(Register {
        key: key(CELLS, REGISTER),
        op,
    })
}
