//! The live world: real `seriatim` processes under real faults.
//!
//! [`run()`] makes a network of namespaces (or, without root, addresses of loopback behind a proxy),
//! starts nodes in it, lets the clients of [`work`](crate::work) loose on them, plays a
//! [`schedule`] of faults, mends everything, reads everything, and compares the logs of all replicas.
//! What it did to the machine is undone by a janitor, however it ends.

mod binary;
mod clocks;
mod cluster;
pub mod disk;
mod finals;
mod http;
mod janitor;
mod nemesis;
mod net;
mod node;
mod options;
mod progress;
mod proxy;
mod replicas;
mod run;
pub mod schedule;
mod stage;
mod tool;
mod wait;

pub use self::{
    net::Rule,
    options::Options,
    run::{Notes, Outcome, run},
};
