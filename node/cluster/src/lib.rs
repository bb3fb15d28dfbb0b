//! Who owns what.
mod apply;
pub mod command;
pub mod image;
pub mod placement;
mod records;
