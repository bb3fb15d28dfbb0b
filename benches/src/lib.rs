//! `seriatim-bench`: how fast a cluster is, and how much of what the machine can do that is.
//!
//! An open-loop load generator: every record has an intended time that does not depend on the
//! records before it, and latency is counted from there. A cluster that stalls is charged for every
//! record that should have been sent meanwhile.
//!
//! - What is asked: [`args`], checked into a plan.
//! - Where it runs: `nodes` starts and stops a cluster, `field` is a topic on it.
//! - The load: `schedule`, `window`, `values`, and `load`, the loop that sends; `acks` takes the
//!   acknowledgements.
//! - The modes: `produce`, `consume`, `tail` (end-to-end and mixed).
//! - What comes out: `tally`, `latency`, `usage`, `report`, `compare`; `baseline` is the machine.

pub mod args;
pub mod values;

mod acks;
mod baseline;
mod compare;
mod consume;
mod field;
mod latency;
mod load;
mod meter;
mod nodes;
mod output;
mod plan;
mod produce;
mod report;
mod run;
mod schedule;
mod tail;
mod tally;
mod usage;
mod window;

pub use run::run;
