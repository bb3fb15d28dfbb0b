//! The use cases: what every protocol that Seriatim speaks asks for, in one place.
//!
//! Requests and answers are plain data of [`seriatim_proto::v1`]; this crate knows nothing of wire
//! formats or connections. Start at [`Broker`].
#![warn(missing_docs)]

mod admin;
mod broker;
mod budget;
mod describe;
mod errors;
mod fetch;
mod groups;
pub mod metrics;
mod moves;
mod produce;
mod session;
mod status;
mod trim;

pub use broker::{Broker, BrokerLimits};
pub use produce::Reservation;
pub use seriatim_groups::MemberStream;
pub use session::FetchSession;
