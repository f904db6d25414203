//! Levels of alerts from the points of a device: which level is in force, since when, and every step between levels. Pure.
//!
//! ```text
//! enter   at a point whose value is at or above `on` of a level above the one in force: at once, levels may be skipped
//! leave   at the first point at which every value for `hold` was below `off` of the level in force, itself included:
//!         to the highest lower level whose `off` that value still reaches, or to normal
//! ```
//!
//! A step is taken at a point and at its time. What is missing never lowers: without points there are no steps; after a silence
//! longer than `silence` the hold time begins anew; and a window with too few of its points may raise a level, never lower one (that a
//! sum of too few is low says nothing at all).
//! A suspect point counts only where the rule takes it; one that failed its checks never does. Whether a point is one of these is
//! known for certain when the next one has come: until then its steps are provisional.
//!
//! | file | holds |
//! | --- | --- |
//! | `ladder` | the levels and the hold time |
//! | `measure` | what is compared with them: the value, or a function over a window |
//! | `marks` | states to go on from, ever fewer the older they are |
//! | `replay` | points in order through all of these |
//!
//! Never here: storage, who is told, the clock. Invariant: going on from a mark gives the steps that going through all points gives.

mod ladder;
mod marks;
mod measure;
mod replay;

pub use ladder::{Standing, Step};
pub use marks::{MARKS_MAX, Mark, start};
pub use replay::{Outcome, Replay};

pub use crate::checks::Stated;

/// A level: entered at or beyond `on`, left short of `off`.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Level {
    /// At or above this the level is entered.
    pub on: f64,
    /// Below this it may be left.
    pub off: f64,
}

/// What of the points is compared with the levels.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum AlertFunction {
    /// The value of the point.
    Last,
    /// Sum over the window that ends at the point, its end included, its begin not.
    Sum,
    /// Change by hour over the window.
    RisePerHour,
    /// Mean of the points of the window.
    Avg,
    /// The least of them.
    Min,
    /// The greatest of them.
    Max,
}

/// When levels begin and end.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What is compared.
    pub function: AlertFunction,
    /// Length of the window, nanoseconds; 0 for [`AlertFunction::Last`].
    pub window_ns: i64,
    /// One point is promised each so long, nanoseconds; 0 where nothing is promised.
    pub interval_ns: i64,
    /// So long values must stay below `off`, nanoseconds.
    pub hold_ns: i64,
    /// After a longer time without points the hold time begins anew, nanoseconds.
    pub silence_ns: Option<i64>,
    /// Suspect points count.
    pub accept_suspect: bool,
    /// Levels are entered downwards: at or below `on`, left above `off`.
    pub below: bool,
    /// The least serious first.
    pub levels: Vec<Level>,
}
