//! Everything two Seriatim processes must agree on: the gRPC messages, identifiers, the record
//! batch, error codes and limits. It knows nothing of files, sockets or Raft.
#![warn(missing_docs)]

pub mod batch;
pub mod compression;
pub mod error;
pub mod ids;
pub mod limits;
pub mod record;
pub mod settings;
pub mod topic_name;

/// The public gRPC API, version 1 (generated).
#[expect(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    unused_results,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("seriatim.v1");
}

/// Messages between the nodes of one cluster (generated).
#[expect(missing_docs, reason = "generated code")]
pub mod internal {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("seriatim.internal.v1");
    }
}

/// Descriptors of every `.proto` file, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
