//! The command line's verbs, one file each.

pub(crate) mod cluster;
pub(crate) mod common;
pub(crate) mod consume;
pub(crate) mod produce;
pub(crate) mod topic;
