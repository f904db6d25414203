//! What becomes of a decoded integer: itself, or a double over a power of ten; either way after scaling. Decoders take
//! it along, so that a column is written once, as what it is.
//!
//! Never here: bytes. Invariant: arithmetic on integers wraps, so that no input panics.

/// Turns integers into what a column holds.
pub(crate) trait Emit: Copy {
    /// What a column holds.
    type Out: Copy + Default;

    /// The value of an integer.
    fn emit(self, integer: i64) -> Self::Out;

    /// One that emits `offset + integer * factor` where this one emits the integer.
    fn scaled(self, offset: i64, factor: i64) -> Self;
}

#[derive(Copy, Clone, Debug)]
struct Scale {
    offset: i64,
    factor: i64,
}

impl Scale {
    const NONE: Scale = Scale { offset: 0, factor: 1 };

    #[inline(always)]
    fn of(self, integer: i64) -> i64 {
        self.offset.wrapping_add(integer.wrapping_mul(self.factor))
    }

    fn after(self, offset: i64, factor: i64) -> Scale {
        Scale {
            offset: self.of(offset),
            factor: self.factor.wrapping_mul(factor),
        }
    }
}

/// Integers as they are.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Whole(Scale);

impl Whole {
    pub(crate) const PLAIN: Whole = Whole(Scale::NONE);
}

impl Emit for Whole {
    type Out = i64;

    #[inline(always)]
    fn emit(self, integer: i64) -> i64 {
        self.0.of(integer)
    }

    fn scaled(self, offset: i64, factor: i64) -> Whole {
        Whole(self.0.after(offset, factor))
    }
}

/// Numbers of entries; whatever is no such number is the largest.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Index(Scale);

impl Index {
    pub(crate) const PLAIN: Index = Index(Scale::NONE);
}

impl Emit for Index {
    type Out = u16;

    #[inline(always)]
    fn emit(self, integer: i64) -> u16 {
        u16::try_from(self.0.of(integer)).unwrap_or(u16::MAX)
    }

    fn scaled(self, offset: i64, factor: i64) -> Index {
        Index(self.0.after(offset, factor))
    }
}

/// Integers over a divisor, rounded as IEEE does.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Over {
    scale: Scale,
    divisor: f64,
}

impl Over {
    pub(crate) fn new(divisor: f64) -> Over {
        Over {
            scale: Scale::NONE,
            divisor,
        }
    }
}

impl Emit for Over {
    type Out = f64;

    #[inline(always)]
    fn emit(self, integer: i64) -> f64 {
        self.scale.of(integer) as f64 / self.divisor
    }

    fn scaled(self, offset: i64, factor: i64) -> Over {
        Over {
            scale: self.scale.after(offset, factor),
            ..self
        }
    }
}
