//! Bytes in, bytes out: the gRPC services and the HTTP endpoints of a node. It decides nothing;
//! every request goes to the broker.
#![warn(missing_docs)]

mod admin;
mod groups;
pub mod grpc;
pub mod http;
mod log;
mod metadata;
mod receive;
mod status;
mod streams;
