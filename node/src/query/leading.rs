//! Which devices may lead a top list, by what the headers of their blocks say.
//!
//! Never here: folding. Invariant: a device is passed over only where its standing is surely behind those that lead already, and where
//! none of its points would be left out.

use std::cmp::Ordering;

use tidemark_series::{Block, Choice, Function, PropertyNumber, ValueType};

use super::functions::Asked;
use super::top::{Leaders, Standing};
use crate::catalog::types::PropertyDef;

/// Devices that are folded before it is looked again who may still lead.
const FOLDED_MIN: usize = 16;

/// How good the standing of a device can be, from its blocks' headers. The better come first.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    /// Its points have to be looked at.
    Unknown,
    /// No better than this.
    Best(Standing),
}

/// What the headers say of a device.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Headed {
    bound: Bound,
    /// Blocks that were looked at.
    pub(super) blocks: u64,
}

impl Headed {
    /// No header was seen.
    pub(super) const NOTHING: Headed = Headed {
        bound: Bound::Best(Standing::LAST),
        blocks: 0,
    };

    /// Takes another block into account.
    pub(super) fn take<T>(
        &mut self,
        block: &Block<'_>,
        (property, choice): (PropertyNumber, &Choice<'_>),
        leaders: &Leaders<T>,
    ) {
        self.blocks += 1;
        if block.value_type(property).is_none() {
            return;
        }
        let best = if leaders.lowest() { Function::Min } else { Function::Max };
        let stats = block.stats_of_chosen(property, choice);
        let bound = match stats.map(|stats| stats.partial.finish(best)) {
            Some(Ok(finished)) => Bound::Best(leaders.stands(finished.as_ref())),
            Some(Err(_)) | None => Bound::Unknown,
        };
        self.bound = self.bound.min(bound);
    }

    /// Whether the device may come to stand among those that lead.
    pub(super) fn may_lead<T>(&self, leaders: &Leaders<T>) -> bool {
        match self.bound {
            Bound::Unknown => true,
            Bound::Best(standing) => leaders.have_room_for(standing),
        }
    }
}

/// Whether headers tell how good the answer to a function can be: it is one of the values, or there is none.
pub(super) fn is_bounded(function: Option<&Asked>, property: &PropertyDef) -> bool {
    let of_points = function.and_then(|asked| asked.of_points());
    let one_of_them = matches!(
        of_points,
        Some(Function::Max | Function::Min | Function::First | Function::Last)
    );
    one_of_them && matches!(property.value_type, ValueType::F64 | ValueType::I64)
}

/// Places of devices in the order in which they are to be folded: the most promising ones first.
pub(super) struct Order<'h> {
    headed: &'h [Headed],
    /// Those that are left, the most promising last.
    left: Vec<usize>,
    folded: usize,
}

impl<'h> Order<'h> {
    pub(super) fn new(headed: &'h [Headed]) -> Order<'h> {
        let mut left: Vec<usize> = (0..headed.len()).collect();
        let worse_first = |a: &usize, b: &usize| match headed[*b].bound.cmp(&headed[*a].bound) {
            Ordering::Equal => b.cmp(a),
            other => other,
        };
        left.sort_unstable_by(worse_first);
        Order {
            headed,
            left,
            folded: 0,
        }
    }

    /// The next ones that may lead, ascending; none where nobody else may.
    pub(super) fn next<T>(&mut self, leaders: &Leaders<T>) -> Vec<usize> {
        let unknown = |place: &&usize| self.headed[**place].bound == Bound::Unknown;
        let unknown = self.left.iter().rev().take_while(unknown).count();
        // As many as were folded already, so that a list on which all are alike takes few rounds.
        let most = unknown
            .max(self.folded)
            .max(leaders.limit().clamp(FOLDED_MIN, self.headed.len().max(FOLDED_MIN)));
        let may_lead = |place: &&usize| self.headed[**place].may_lead(leaders);
        let next = self.left.iter().rev().take(most).take_while(may_lead).count();
        let mut places = self.left.split_off(self.left.len() - next);
        self.folded += places.len();
        places.sort_unstable();
        places
    }

    /// Blocks of those that are left.
    pub(super) fn blocks_left(&self) -> u64 {
        self.left.iter().map(|place| self.headed[*place].blocks).sum()
    }
}
