//! Client library of Tidemark: connects to any node, follows leaders, retries what is safe to retry.
//!
//! Here: [`Client`] for calls, [`Writer`] for pipelined writes, [`Subscription`] for what happens, [`BatchBuilder`] and [`rows`] for columns, [`Error`] for
//! what went wrong and what to do about it. Never here: node internals, the storage format, decisions the server makes.
//! Invariant: a write that carries producer and sequence is stored once, however often this crate sends it.
//!
//! ```no_run
//! # async fn demo() -> Result<(), tidemark_client::Error> {
//! use tidemark_client::{BatchBuilder, Client, v1};
//!
//! let client = Client::connect(["127.0.0.1:7777"]).await?;
//! let mut batch = BatchBuilder::new("tank");
//! batch.row("tank-1", 1_760_000_000_000_000_000).set("level", 1.25);
//! client.write(v1::WriteRequest { batch: Some(batch.build()?), ..Default::default() }).await?;
//! # Ok(())
//! # }
//! ```
#![allow(
    clippy::result_large_err,
    reason = "errors carry their facts by value and are rare; boxing would cost every caller"
)]

mod alerts;
mod answer;
mod backup;
mod batch;
mod call;
mod client;
mod cluster_tag;
mod error;
mod joined;
mod latest;
mod nodes;
mod operate;
mod options;
mod removal;
mod routing;
mod rows;
mod session;
mod subscription;
mod value;
mod writer;

pub use answer::Answer;
pub use backup::Pieces;
pub use batch::{BatchBuilder, RowBuilder};
pub use client::Client;
pub use error::{Code, Error, ErrorKind, RowError};
pub use joined::{JoinedRow, JoinedRows, joined_rows};
pub use latest::{LatestRow, NewestValue, latest_rows};
pub use options::{ClientOptions, WriterOptions};
pub use rows::{Row, Rows, qualifiers_of, rows};
pub use subscription::Subscription;
pub use tidemark_proto::v1;
pub use value::{Value, answers_of, is_filled, value_at, values_of};
pub use writer::{Ack, Writer};
