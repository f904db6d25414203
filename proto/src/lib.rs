//! The contract: code generated from `proto/tidemark/**`, and the descriptor sets. Never logic.

/// What applications and operators speak: package `tidemark.v1`.
pub mod v1 {
    #![allow(
        missing_docs,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "generated from the commented .proto files"
    )]
    tonic::include_proto!("tidemark.v1");
}

/// What nodes speak to each other and what the Raft log holds: package `tidemark.peer.v1`.
pub mod peer {
    pub use v1::*;

    /// The package as generated; its references to `tidemark.v1` rest on this nesting.
    pub mod v1 {
        #![allow(
            missing_docs,
            clippy::all,
            clippy::allow_attributes_without_reason,
            reason = "generated from the commented .proto files"
        )]
        tonic::include_proto!("tidemark.peer.v1");
    }
}

/// Encoded `FileDescriptorSet` of the public package, for gRPC reflection.
pub const PUBLIC_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/public_descriptors.bin"));

/// Encoded `FileDescriptorSet` of every package, for compatibility tests.
pub const ALL_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
