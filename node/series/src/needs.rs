//! What some functions need of the values in a window.
//!
//! Never here: how it is gathered (see `partial`). Invariant: what is not needed is never looked at, so it may be missing.

use crate::partial::Function;

/// Which parts of a partial are asked for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Count, smallest and largest: the same in whatever order values and partials come.
    Extremes,
    /// Everything that a partial holds.
    All,
}

impl Needs {
    /// What is needed to answer all of some functions.
    pub fn of(functions: &[Function]) -> Needs {
        let extreme = |function: &Function| {
            matches!(
                function,
                Function::Count | Function::Min | Function::Max | Function::Spread
            )
        };
        if functions.iter().all(extreme) {
            Needs::Extremes
        } else {
            Needs::All
        }
    }
}
