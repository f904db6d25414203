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

/// The service of questions for servers: the same bytes as in [`v1`], without building messages only to encode them.
pub mod encoded {
    #![allow(
        missing_docs,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "generated from the commented .proto files"
    )]
    include!(concat!(env!("OUT_DIR"), "/encoded/tidemark.v1.rs"));

    /// [`QueryRangeResponse`](crate::v1::QueryRangeResponse), whose records were encoded before.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct QueryRangeResponse {
        /// A [`Batch`](crate::v1::Batch).
        #[prost(bytes = "bytes", optional, tag = "1")]
        pub batch: Option<bytes::Bytes>,
        /// Only in the last message.
        #[prost(message, optional, tag = "2")]
        pub summary: Option<crate::v1::AnswerSummary>,
    }

    /// [`GetLatestResponse`](crate::v1::GetLatestResponse), whose devices were encoded where they were read.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct GetLatestResponse {
        /// Each a [`LatestDevice`](crate::v1::LatestDevice).
        #[prost(bytes = "bytes", repeated, tag = "1")]
        pub devices: Vec<bytes::Bytes>,
        /// When age was judged, nanoseconds since the Unix epoch.
        #[prost(sfixed64, tag = "2")]
        pub evaluated_at_ns: i64,
        /// Only in the last message.
        #[prost(message, optional, tag = "3")]
        pub summary: Option<crate::v1::AnswerSummary>,
        /// Each a [`LatestTable`](crate::v1::LatestTable).
        #[prost(bytes = "bytes", repeated, tag = "4")]
        pub tables: Vec<bytes::Bytes>,
    }
}

/// Encoded `FileDescriptorSet` of the public package, for gRPC reflection.
pub const PUBLIC_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/public_descriptors.bin"));

/// Encoded `FileDescriptorSet` of every package, for compatibility tests.
pub const ALL_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
