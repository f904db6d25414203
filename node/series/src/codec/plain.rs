//! Of the streams of integers that nest no other: what each would take, and the shortest of them.
//!
//! Never here: methods of other streams (see `ints`, where they are drawn). Invariant: ties go to the faster decoder,
//! packed before raw before rice before pco.

use super::survey::Survey;
use super::{entropy, pack, pcodec, rice};

pub(super) const RAW: u8 = 0x03;
pub(super) const PACKED: u8 = 0x08;
pub(super) const PCO: u8 = 0x0c;
pub(super) const RICE: u8 = 0x10;
pub(super) const TWIN: u8 = 0x20;
pub(super) const QUAD: u8 = 0x30;
/// Fewer values are not worth two streams.
const TWIN_MIN: usize = 1024;
/// Nor fewer values and bytes four, which cost a dozen bytes more and let a reader of a few values pass over the others.
const QUAD_MIN: usize = 2048;
const QUAD_BYTES_MIN: usize = 1024;

/// What some values would take.
pub(super) struct Plain<'v> {
    values: &'v [i64],
    residuals: rice::Residuals,
    plan: rice::Plan,
    packed: Option<pack::Packed>,
}

impl Plain<'_> {
    /// Of at least one value.
    pub(super) fn new(values: &[i64]) -> Plain<'_> {
        let offset = rice::middle(values);
        let survey = Survey::new(values, offset);
        let (residuals, plan) = best_rice(values, offset, &survey);
        let most = plan.size.min(values.len() * 8);
        let packed = best_packed(values, &survey, most).filter(|packed| packed.size() <= most);
        Plain {
            values,
            residuals,
            plan,
            packed,
        }
    }

    /// Appends the shortest of raw, packed and rice; gives up where it surely does not stay below `most` bytes.
    pub(super) fn put(&self, out: &mut Vec<u8>, most: usize) -> bool {
        let (values, plan) = (self.values, &self.plan);
        if let Some(packed) = &self.packed {
            if packed.size() + 1 >= most {
                return false;
            }
            out.push(PACKED + packed.order as u8);
            packed.encode(out);
            return true;
        }
        if plan.size >= values.len() * 8 {
            if values.len() * 8 + 1 >= most {
                return false;
            }
            out.push(RAW);
            values.iter().for_each(|v| out.extend(v.to_le_bytes()));
            return true;
        }
        // What is planned is not far from what is written.
        if plan.size - plan.size / 16 >= most {
            return false;
        }
        let kind = (plan.partition as u8) * 4 + self.residuals.order as u8;
        if values.len() < TWIN_MIN {
            out.push(RICE + kind);
            self.residuals.encode(plan, out);
        } else {
            let quad = values.len() >= QUAD_MIN && plan.size >= QUAD_BYTES_MIN;
            let (method, lanes) = if quad { (QUAD, 4) } else { (TWIN, 2) };
            out.push(method + kind);
            rice::encode_lanes(values, lanes, self.residuals.order, plan.partition, out);
        }
        true
    }

    /// Appends the stream of pco, where it may stay below `most` bytes.
    pub(super) fn put_pco(&self, out: &mut Vec<u8>, most: usize) -> bool {
        let worth = || entropy::size(self.residuals.zigzagged()) * 50 / 51 < most;
        if self.values.len() < pcodec::VALUES_MIN || !worth() {
            return false;
        }
        let order = self.residuals.order.min(pcodec::ORDER_MAX);
        out.push(PCO + order as u8);
        pcodec::encode_ints(self.values, order, out)
    }
}

/// The order that looks cheapest, and the next one where it looks nearly as cheap.
fn best_rice(values: &[i64], offset: i64, survey: &Survey) -> (rice::Residuals, rice::Plan) {
    let tried = |order: usize| {
        let residuals = rice::Residuals::new(values, order, offset);
        let plan = residuals.plan();
        (residuals, plan)
    };
    let (first, next) = survey.orders(rice::ORDER_MAX, values.len());
    let best = tried(first);
    match next {
        Some(next) if survey.cost[next] / 33 <= survey.cost[first] / 32 => {
            let other = tried(next);
            if other.1.size < best.1.size { other } else { best }
        }
        _ => best,
    }
}

/// The packing that may take fewer than `most` bytes.
fn best_packed(values: &[i64], survey: &Survey, most: usize) -> Option<pack::Packed> {
    let orders = 0..=pack::ORDER_MAX.min(values.len());
    let order = orders.min_by_key(|&order| survey.width[order])?;
    // The minimum that is taken off may spare more than the sign does.
    let bits = survey.width[order].saturating_sub(2) as usize;
    (values.len() * bits / 8 < most).then(|| pack::Packed::new(values, order))
}
