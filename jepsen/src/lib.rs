//! Whole clusters under faults, and the judgement of what their clients saw.
//!
//! [`history`] is what happened, [`check`] judges it, [`sim`] makes it happen in one thread under
//! virtual time; [`work`] are the clients of both worlds; [`report`] is what people read of it. A failure
//! names its seed.

pub mod check;
pub mod entropy;
pub mod history;
pub mod live;
pub mod mutants;
pub mod panics;
pub mod report;
pub mod sim;
pub mod work;
