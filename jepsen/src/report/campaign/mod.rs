//! Many runs in figures: a campaign of seeds, which can be stopped and goes on where it was, and
//! directories of single runs.

mod figures;
mod ledger;
mod markdown;
mod runs;
#[cfg(test)]
mod tests;

pub use figures::{Campaign, Recovery, Slow};
pub use ledger::{Ledger, Terms};
pub use markdown::{of_campaign, of_runs};
pub use runs::Run;
