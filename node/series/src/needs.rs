//! What some functions need of the values in a window.
//!
//! Never here: how it is gathered (see `partial`). Invariant: what is not needed is never looked at, so it may be missing.

use crate::partial::Function;

/// Which parts of a partial are asked for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Count and largest.
    Highest,
    /// Count and smallest.
    Lowest,
    /// Count, smallest and largest.
    Extremes,
    /// Everything that a partial holds.
    All,
}

impl Needs {
    /// What is needed to answer all of some functions.
    pub fn of(functions: &[Function]) -> Needs {
        let mut needs = (false, false);
        for function in functions {
            match function {
                Function::Count => {}
                Function::Min => needs.0 = true,
                Function::Max => needs.1 = true,
                Function::Spread => needs = (true, true),
                Function::Sum | Function::Avg | Function::First | Function::Last => return Needs::All,
            }
        }
        match needs {
            (true, false) => Needs::Lowest,
            (false, true) => Needs::Highest,
            _ => Needs::Extremes,
        }
    }

    /// Whether it is the same in whatever order values and partials come.
    pub fn in_any_order(self) -> bool {
        self != Needs::All
    }
}
