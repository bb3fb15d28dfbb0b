//! Whether concurrent operations can be put in an order that a sequential object allows and that keeps
//! every operation between its invocation and its completion: linearizability (Herlihy and Wing).
//!
//! [`search()`] is the search of Wing and Gong with Lowe's memory of the states that led nowhere; it is
//! exponential at worst, so what is known of an object should leave it few choices: a [`Model`] says which
//! operations may be taken at once ([`Model::is_free`]).

mod search;
#[cfg(test)]
mod tests;

pub(super) use search::{Verdict, search};

use std::{fmt, hash::Hash};

/// A sequential object.
pub(super) trait Model {
    /// What it remembers.
    type State: Clone + Eq + Hash + fmt::Debug;
    /// What is done with it, and what came of that.
    type Act;

    /// Its first state.
    fn start(&self) -> Self::State;

    /// The state after an operation; `None` if that cannot be next.
    fn step(&self, state: &Self::State, act: &Self::Act) -> Option<Self::State>;

    /// Whether an operation that can be next may be put there without a look at any other order: if
    /// there is an order at all, there is one in which it is next.
    fn is_free(&self, state: &Self::State, act: &Self::Act) -> bool;
}

/// An operation.
#[derive(Debug, Clone)]
pub(super) struct Call<A> {
    /// What was done.
    pub(super) act: A,
    /// The entry from which on it may take effect.
    pub(super) from: u64,
    /// The entry before which it did; `None` if it may take effect at any later time, or never.
    pub(super) until: Option<u64>,
}
