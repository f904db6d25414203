//! The pure core: records, blocks, encodings, aggregates and windows.
//!
//! Never here: async, files, the clock, protobuf types, RocksDB. Everything is a function of numbers and bytes, and
//! no input, however damaged, makes it panic or allocate beyond what its length and row count justify.

pub mod alert;
pub mod asof;
pub mod assess;
pub mod bitmap;
pub mod block;
pub mod bucket;
mod by_window;
pub mod checks;
mod codec;
mod corrupt;
#[doc(hidden)]
pub mod decoders;
pub mod exact;
pub mod exceed;
pub mod flat;
pub mod gaps;
pub mod known;
pub mod latest;
mod needs;
mod number;
pub mod partial;
pub mod record;
pub mod rise;
pub mod rollup;
mod rows;
pub mod sequence;
pub mod slots;
pub mod spans;
mod stamps;
pub mod window;

pub use asof::{AsOf, Toward};
pub use bitmap::Bitmap;
pub use block::{Accepted, BLOCK_ROWS_MAX, Block, ColumnStats, Folding, Points, Projection, Sizes};
pub use by_window::{ByWindow, Unfinished};
pub use checks::{Checks, Choice, Stated, Suspects};
pub use corrupt::Corrupt;
pub use exact::Exact;
pub use known::LeftOut;
pub use latest::NewestValue;
pub use needs::Needs;
pub use number::Number;
pub use partial::{Finished, Function, Kind, Partial, SumOverflow};
pub use record::{Column, PropertyNumber, Records, ValueRef, ValueType, Values};
pub use sequence::{Between, Feed, Gathered, Rise, Run, Sequence, SequenceFunction};
pub use slots::{Filled, Slots};
pub use spans::Spans;
pub use window::{Edge, Sliding, Windows};
