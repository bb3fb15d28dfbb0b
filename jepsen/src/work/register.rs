//! A register that is kept in a partition: its value is that of the last write in the log.
//!
//! What must be linearizable takes effect by one append each. A write is an append; a compare-and-set is
//! one on condition that the log ends where its process has read to; a read is the same with a record
//! that stands for no write, so that what was read is known to be the latest at the moment of that append.
//! No operation is made a second time after it may have had an effect.

use seriatim_runtime::rng;

use crate::history::{Action, Key, Kind, Pending, Process, Recorder, Register, RegisterOp, Value};

/// The topic of the small logs whose operations must be linearizable.
pub const CELLS: &str = "cells";

/// The partition of [`CELLS`] that holds the register.
pub const REGISTER: i32 = 0;

/// The partition of [`CELLS`] to which everybody appends on condition only.
pub const LEDGER: i32 = 1;

/// The record of a read.
const MARK: Value = -1;

/// Attempts of one operation that had no effect, before it is given up.
const ATTEMPTS: usize = 4;

/// The log of a register, as one of its users reaches it.
pub trait Log {
    /// The node that is asked next, if that is known.
    fn node(&self) -> Option<u64>;

    /// What stands from `offset` on, to the end that the log has meanwhile; less if the run ends.
    fn read_on(&mut self, offset: i64) -> impl Future<Output = Vec<(i64, Value)>> + Send;

    /// Appends a record, only at `expected_end` if it is given; how that ended, and why.
    fn append(
        &mut self,
        value: Value,
        expected_end: Option<i64>,
    ) -> impl Future<Output = (Kind, String)> + Send;
}

/// One user of a register.
#[derive(Debug)]
pub struct User<L> {
    log: L,
    recorder: Recorder,
    process: Process,
    key: Key,
    /// The log is known up to here.
    end: i64,
    /// The value as of `end`.
    value: Option<Value>,
}

impl<L: Log> User<L> {
    /// A user of the register in the partition `key`, who knows nothing yet.
    pub fn new(recorder: &Recorder, key: Key, log: L) -> Self {
        Self {
            log,
            recorder: recorder.clone(),
            process: recorder.process(),
            key,
            end: 0,
            value: None,
        }
    }

    /// Reads, writes, or compares and sets; `fresh` is a value that nobody has written.
    pub async fn act(&mut self, fresh: Value) {
        match rng::below(3) {
            0 => self.read().await,
            1 => self.write(fresh).await,
            _ => self.compare_and_set(fresh).await,
        }
    }

    /// Reads what others have written since.
    async fn catch_up(&mut self) {
        for (offset, value) in self.log.read_on(self.end).await {
            self.end = offset + 1;
            if value != MARK {
                self.value = Some(value);
            }
        }
    }

    async fn read(&mut self) {
        let pending = self.invoke(RegisterOp::Read(None));
        let mut end = (Kind::Fail, String::new());
        for _ in 0..ATTEMPTS {
            self.catch_up().await;
            end = self.log.append(MARK, Some(self.end)).await;
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
        let end = self.log.append(new, None).await;
        self.complete(pending, op, end);
    }

    async fn compare_and_set(&mut self, new: Value) {
        self.catch_up().await;
        let op = RegisterOp::Cas(self.value, new);
        let pending = self.invoke(op.clone());
        let end = self.log.append(new, Some(self.end)).await;
        self.complete(pending, op, end);
    }

    fn invoke(&self, op: RegisterOp) -> Pending {
        let action = self.action(op);
        self.recorder.invoke(self.process, self.log.node(), action)
    }

    /// Writes down how an operation ended.
    fn complete(&mut self, pending: Pending, op: RegisterOp, end: (Kind, String)) {
        let action = self.action(op);
        match end {
            (Kind::Ok | Kind::Invoke, _) => self.recorder.ok(pending, action),
            (Kind::Fail, why) => self.recorder.fail(pending, action, why),
            (Kind::Info, why) => self.process = self.recorder.info(pending, action, why),
        }
    }

    fn action(&self, op: RegisterOp) -> Action {
        Action::Register(Register { key: self.key, op })
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use futures::FutureExt as _;
    use parking_lot::Mutex;

    use super::*;
    use crate::{
        check::check,
        history::{Header, History},
    };

    /// A log in one place, or one that has what was written last only at times and never looks at what is
    /// expected.
    #[derive(Clone)]
    struct Local {
        values: Arc<Mutex<Vec<Value>>>,
        is_stale: bool,
    }

    impl Log for Local {
        fn node(&self) -> Option<u64> {
            None
        }

        async fn read_on(&mut self, offset: i64) -> Vec<(i64, Value)> {
            let values = self.values.lock().clone();
            let hidden = if self.is_stale { rng::below(3) } else { 0 };
            let hidden = usize::try_from(hidden).unwrap();
            let seen = values.len().saturating_sub(hidden);
            let known = (0..).zip(values).take(seen);
            known.skip_while(|(at, _)| *at < offset).collect()
        }

        async fn append(&mut self, value: Value, expected_end: Option<i64>) -> (Kind, String) {
            let mut values = self.values.lock();
            let end = i64::try_from(values.len()).unwrap();
            if expected_end.is_some_and(|expected| expected != end) && !self.is_stale {
                return (Kind::Fail, format!("it ends at {end}"));
            }
            values.push(value);
            (Kind::Ok, String::new())
        }
    }

    /// Whether what two users do one after the other holds, and how much of it was looked at.
    fn judge(is_stale: bool) -> (bool, u64) {
        let log = Local {
            values: Arc::default(),
            is_stale,
        };
        let recorder = Recorder::new(|| Duration::ZERO);
        let mut users = [(); 2].map(|()| User::new(&recorder, 0, log.clone()));
        for fresh in 0..300 {
            for (user, first) in users.iter_mut().zip([0, 1000]) {
                user.act(first + fresh).now_or_never().unwrap();
            }
        }
        let history = History {
            header: Header::default(),
            ops: recorder.take(),
        };
        let verdict = check(&history);
        let found = verdict.finding("linearizable-register").unwrap();
        (found.holds, found.looked_at)
    }

    #[test]
    fn a_log_in_one_place_holds_a_register_and_a_stale_one_does_not() {
        assert_eq!(judge(false), (true, 600));
        assert!(!judge(true).0);
    }
}
