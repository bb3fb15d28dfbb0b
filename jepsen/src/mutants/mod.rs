//! Planted bugs: what is known of each, the search for a seed that finds it, and the table of all.
//!
//! `jepsen/mutants/NAME.toml` describes a mutant, `seriatim_runtime::mutant` names the places in
//! the code. A harness is believed for what it finds here.

pub mod hunt;
pub mod spec;
pub mod table;
