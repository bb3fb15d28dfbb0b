//! Takes down a history while it happens.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::{Action, Fault, Key, Kind, Op, Process, Read};

/// Time since the run began.
type Clock = Arc<dyn Fn() -> Duration + std::marker::Send + Sync>;

/// Where entries go besides the memory.
type Sink = Box<dyn FnMut(&Op) + std::marker::Send>;

/// A history in the making. Cheap to clone; clones write the same one.
#[derive(Clone)]
pub struct Recorder {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

struct State {
    ops: Vec<Op>,
    processes: u64,
    faults: u64,
    sink: Option<Sink>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Recorder")
            .field("ops", &state.ops.len())
            .field("processes", &state.processes)
            .finish_non_exhaustive()
    }
}

/// An operation that was invoked and has not completed.
#[derive(Debug)]
#[must_use = "an operation that never completes counts as one that may yet take effect"]
pub struct Pending {
    process: Process,
    node: Option<u64>,
}

impl Pending {
    /// The node that answered in the end, after retries at several.
    pub fn at(self, node: u64) -> Self {
        Self {
            node: Some(node),
            ..self
        }
    }

    /// Who invoked it.
    pub fn process(&self) -> Process {
        self.process
    }
}

impl Recorder {
    /// An empty history whose times `clock` tells.
    pub fn new(clock: impl Fn() -> Duration + std::marker::Send + Sync + 'static) -> Self {
        Self {
            clock: Arc::new(clock),
            state: Arc::new(Mutex::new(State {
                ops: Vec::new(),
                processes: 0,
                faults: 0,
                sink: None,
            })),
        }
    }

    /// Hands every entry to `sink` too, as it is made.
    #[must_use]
    pub fn with_sink(self, sink: impl FnMut(&Op) + std::marker::Send + 'static) -> Self {
        self.state.lock().sink = Some(Box::new(sink));
        self
    }

    /// A process that nobody else is.
    pub fn process(&self) -> Process {
        let mut state = self.state.lock();
        state.processes += 1;
        Process::Client(state.processes - 1)
    }

    /// An operation begins.
    pub fn invoke(&self, process: Process, node: Option<u64>, action: Action) -> Pending {
        self.push(process, Kind::Invoke, action, node, None);
        Pending { process, node }
    }

    /// An operation took effect; `action` says what came of it.
    #[expect(clippy::needless_pass_by_value, reason = "it completes once")]
    pub fn ok(&self, pending: Pending, action: Action) {
        let Pending { process, node } = pending;
        self.push(process, Kind::Ok, action, node, None);
    }

    /// An operation certainly did not take effect.
    #[expect(clippy::needless_pass_by_value, reason = "it completes once")]
    pub fn fail(&self, pending: Pending, action: Action, error: impl Into<String>) {
        let Pending { process, node } = pending;
        self.push(process, Kind::Fail, action, node, Some(error.into()));
    }

    /// An operation may have taken effect. Returns the process to go on as.
    #[expect(clippy::needless_pass_by_value, reason = "it completes once")]
    pub fn info(&self, pending: Pending, action: Action, error: impl Into<String>) -> Process {
        let Pending { process, node } = pending;
        self.push(process, Kind::Info, action, node, Some(error.into()));
        self.process()
    }

    /// A number that joins the begin and the end of a fault.
    pub fn fault_id(&self) -> u64 {
        let mut state = self.state.lock();
        state.faults += 1;
        state.faults - 1
    }

    /// Something is broken or mended.
    pub fn fault(&self, fault: Fault) {
        let action = Action::Fault(fault);
        self.push(Process::NEMESIS, Kind::Info, action, None, None);
    }

    /// What only a bug explains.
    pub fn impossible(&self, what: impl Into<String>) {
        let action = Action::Impossible(what.into());
        self.push(Process::NEMESIS, Kind::Info, action, None, None);
    }

    /// Looks at everything so far.
    pub fn with<T>(&self, look: impl FnOnce(&[Op]) -> T) -> T {
        look(&self.state.lock().ops)
    }

    /// Where the final log of each key begins and ends, as it was read last.
    pub fn finals(&self) -> BTreeMap<Key, Range<i64>> {
        let state = self.state.lock();
        let polls = state.ops.iter().filter_map(|op| match &op.action {
            Action::Poll(poll) if poll.is_final && op.kind == Kind::Ok => Some(poll),
            _ => None,
        });
        let reads = polls.flat_map(|poll| &poll.reads);
        let range = |read: &Read| {
            let first = read.records.first().map(|&(offset, _)| offset);
            let start = read.log_start.or(first).unwrap_or(0);
            let after = read.records.last().map_or(start, |&(offset, _)| offset + 1);
            start..after
        };
        reads.map(|(&key, read)| (key, range(read))).collect()
    }

    /// Everything so far.
    pub fn take(&self) -> Vec<Op> {
        std::mem::take(&mut self.state.lock().ops)
    }

    fn push(
        &self,
        process: Process,
        kind: Kind,
        action: Action,
        node: Option<u64>,
        error: Option<String>,
    ) {
        let time = u64::try_from((self.clock)().as_nanos()).unwrap_or(u64::MAX);
        let mut state = self.state.lock();
        let last = state.ops.last().map_or(0, |op| op.time);
        let op = Op {
            index: u64::try_from(state.ops.len()).unwrap_or(u64::MAX),
            time: time.max(last),
            process,
            kind,
            action,
            node,
            error,
        };
        if let Some(sink) = &mut state.sink {
            sink(&op);
        }
        state.ops.push(op);
    }
}
