//! Which entry may follow those before it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    mem::discriminant,
};

use super::{Action, Header, Key, Kind, Op, Process};

/// What the entries so far allow.
#[derive(Debug)]
pub(super) struct Order<'a> {
    keys: &'a BTreeMap<Key, String>,
    next_index: u64,
    time: u64,
    /// Processes with an operation under way.
    busy: HashMap<u64, (u64, std::mem::Discriminant<Action>)>,
    /// Processes whose last operation ended as [`Kind::Info`].
    over: HashSet<u64>,
}

impl<'a> Order<'a> {
    pub(super) fn new(header: &'a Header) -> Self {
        Self {
            keys: &header.keys,
            next_index: 0,
            time: 0,
            busy: HashMap::new(),
            over: HashSet::new(),
        }
    }

    /// Takes the next entry, or says why it cannot be the next.
    pub(super) fn next(&mut self, op: &Op) -> Result<(), String> {
        if op.index != self.next_index {
            let due = self.next_index;
            return Err(format!("index {} where {due} was expected", op.index));
        }
        if op.time < self.time {
            let before = self.time;
            return Err(format!(
                "time {} after {before}: times never go back",
                op.time
            ));
        }
        if let Some(key) = keys(&op.action).find(|key| !self.keys.contains_key(key)) {
            return Err(format!(
                "key {key} is not among the header's {:?}",
                self.keys.keys().collect::<Vec<_>>()
            ));
        }
        self.next_index += 1;
        self.time = op.time;
        match op.process {
            Process::Client(process) => self.client(process, op),
            Process::Nemesis(_) if op.kind == Kind::Info => Ok(()),
            Process::Nemesis(_) => Err("entries of the nemesis are of type info".to_owned()),
        }
    }

    fn client(&mut self, process: u64, op: &Op) -> Result<(), String> {
        let what = discriminant(&op.action);
        if op.kind == Kind::Invoke {
            if self.over.contains(&process) {
                return Err(format!(
                    "process {process} acts again after an operation that ended as info; \
                     its client goes on as another process"
                ));
            }
            return match self.busy.insert(process, (op.index, what)) {
                Some((index, _)) => Err(format!(
                    "process {process} invokes an operation while that of entry {index} is under way"
                )),
                None => Ok(()),
            };
        }
        let Some((index, invoked)) = self.busy.remove(&process) else {
            return Err(format!(
                "process {process} completes an operation that it did not invoke"
            ));
        };
        if invoked != what {
            return Err(format!(
                "the operation that process {process} invoked in entry {index} has another f"
            ));
        }
        if op.kind == Kind::Info {
            let _new = self.over.insert(process);
        }
        Ok(())
    }
}

/// The keys that an action names.
fn keys(action: &Action) -> Box<dyn Iterator<Item = Key> + '_> {
    match action {
        Action::Send(send) => Box::new(std::iter::once(send.key)),
        Action::Poll(poll) => Box::new(poll.reads.keys().chain(poll.from.keys()).copied()),
        Action::Assign(keys) | Action::Subscribe(keys) => Box::new(keys.iter().copied()),
        Action::Commit(commit) => Box::new(commit.offsets.keys().copied()),
        Action::Committed(committed) => Box::new(committed.offsets.keys().copied()),
        Action::Trim(trim) => Box::new(std::iter::once(trim.key)),
        Action::Register(register) => Box::new(std::iter::once(register.key)),
        Action::Replica(replica) => Box::new(std::iter::once(replica.key)),
        Action::Crash
        | Action::CreateTopic(_)
        | Action::DeleteTopic(_)
        | Action::Recover
        | Action::Fault(_)
        | Action::Impossible(_) => Box::new(std::iter::empty()),
    }
}
