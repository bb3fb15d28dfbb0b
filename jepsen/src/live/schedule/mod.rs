//! What is broken when, drawn before the run from its seed.

mod draw;
mod fault;
mod kind;
mod mixes;
mod shape;

use serde::{Deserialize, Serialize};

pub use self::{
    draw::{Plan, draw},
    fault::{Fault, Weather},
    kind::{Kind, parse},
    mixes::{MIXES, Mix},
    shape::Shape,
};

/// A fault that begins and ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Strike {
    /// When it begins, in milliseconds since the clients began.
    pub at_ms: u64,
    /// How long it lasts. What an operator does lasts as long as it takes.
    pub lasts_ms: u64,
    /// What it is.
    #[serde(flatten)]
    pub fault: Fault,
}

/// All faults of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// The seed it was drawn from.
    pub seed: u64,
    /// Nodes at the beginning.
    pub nodes: u64,
    /// In the order in which they begin.
    pub strikes: Vec<Strike>,
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_schedules_beside_this_crate_can_be_played() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schedules");
        let mut read = 0;
        for file in fs::read_dir(folder).unwrap() {
            let text = fs::read(file.unwrap().path()).unwrap();
            let schedule: Schedule = serde_json::from_slice(&text).unwrap();
            assert!(!schedule.strikes.is_empty());
            read += 1;
        }
        assert!(read > 0);
    }
}
