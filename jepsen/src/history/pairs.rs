//! Operations: invocations with their completions.

use std::collections::HashMap;

use super::{Action, Kind, Op, Process};

/// An invocation and its completion.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// Its begin.
    pub invoked: &'a Op,
    /// Its end; without one it may still take effect.
    pub completed: Option<&'a Op>,
}

impl<'a> Operation<'a> {
    /// How it ended.
    pub fn end(&self) -> Kind {
        self.completed.map_or(Kind::Info, |op| op.kind)
    }

    /// The fullest word on what it did: the completion's if there is one.
    pub fn action(&self) -> &'a Action {
        &self.completed.unwrap_or(self.invoked).action
    }

    /// The index after which it has certainly taken effect, or never will; `u64::MAX` if there is none.
    pub fn over_at(&self) -> u64 {
        match self.completed {
            Some(op) if op.kind != Kind::Info => op.index,
            Some(_) | None => u64::MAX,
        }
    }

    /// Who.
    pub fn process(&self) -> Process {
        self.invoked.process
    }

    /// The node that answered, or that was asked.
    pub fn node(&self) -> Option<u64> {
        let answered = self.completed.and_then(|op| op.node);
        answered.or(self.invoked.node)
    }
}

/// The operations of clients in the order of their invocations.
pub fn operations(ops: &[Op]) -> Vec<Operation<'_>> {
    let mut out: Vec<Operation<'_>> = Vec::with_capacity(ops.len() / 2);
    let mut open: HashMap<Process, usize> = HashMap::new();
    for op in ops {
        if op.process == Process::NEMESIS {
            continue;
        }
        if op.kind == Kind::Invoke {
            let _none = open.insert(op.process, out.len());
            out.push(Operation {
                invoked: op,
                completed: None,
            });
        } else if let Some(at) = open.remove(&op.process)
            && let Some(operation) = out.get_mut(at)
        {
            operation.completed = Some(op);
        }
    }
    out
}
