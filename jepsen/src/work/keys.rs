//! The numbers that stand for partitions in a history.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use crate::history::Key;

/// Gives each partition a number. A topic that is deleted and created again has other partitions than
/// before. Cheap to clone; clones share the numbers.
#[derive(Debug, Clone)]
pub struct Keys(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    next: Key,
    names: BTreeMap<Key, String>,
    /// How often each topic was created after the first time.
    lives: BTreeMap<String, u64>,
    present: BTreeMap<(String, i32), Key>,
}

impl Keys {
    /// Numbers from `first` on.
    pub fn from(first: Key) -> Self {
        Self(Arc::new(Mutex::new(State {
            next: first,
            names: BTreeMap::new(),
            lives: BTreeMap::new(),
            present: BTreeMap::new(),
        })))
    }

    /// That of a partition.
    pub fn of(&self, topic: &str, partition: i32) -> Key {
        let mut state = self.0.lock();
        let place = (topic.to_owned(), partition);
        if let Some(known) = state.present.get(&place) {
            return *known;
        }
        let key = state.next;
        state.next += 1;
        let name = match state.lives.get(topic) {
            None => format!("{topic}-{partition}"),
            Some(lives) => format!("{topic}#{}-{partition}", lives + 1),
        };
        let _new = state.names.insert(key, name);
        let _new = state.present.insert(place, key);
        key
    }

    /// The topic is another one from now on, under the same name.
    pub fn renew(&self, topic: &str) {
        let mut state = self.0.lock();
        *state.lives.entry(topic.to_owned()).or_default() += 1;
        state.present.retain(|(known, _), _| known != topic);
    }

    /// Each number with the partition that it stands for, as the header of a history names them.
    pub fn names(&self) -> BTreeMap<Key, String> {
        self.0.lock().names.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_is_created_again_has_other_keys() {
        let keys = Keys::from(10);
        let first = [keys.of("a", 0), keys.of("a", 1), keys.of("b", 0)];
        assert_eq!(first, [10, 11, 12]);
        assert_eq!(keys.of("a", 1), 11);
        keys.renew("a");
        assert_eq!([keys.of("a", 1), keys.of("b", 0)], [13, 12]);
        let names = keys.names();
        let named: Vec<_> = names.values().map(String::as_str).collect();
        assert_eq!(named, ["a-0", "a-1", "b-0", "a#2-1"]);
    }
}
