//! Raw records of one shard.
//!
//! Never here: which records are wanted (see `filter`). Invariant: a limit or a budget cuts between two records of one device, and
//! what is behind the cut is what the next page begins with.

use std::ops::{ControlFlow, Range};

use prost::Message as _;
use tidemark_proto::peer::Position;
use tidemark_proto::peer::read_shard_response::Part;
use tidemark_proto::v1::{AnswerSummary, CutShort, Order, QueryRangeRequest};
use tidemark_series::{Block, Projection, Records, bucket};

use super::asked::{Asked, position};
use super::filter::{self, Filter};
use super::judging::{Judging, Verdicts};
use super::plan::{check_range, passes_over_types};
use super::qualifiers::Qualifying;
use super::shard_side::{Answering, Begin, Chosen, Wanted, corrupt};
use crate::catalog::types::{PropertyDef, TypeDef};
use crate::error::Result;
use crate::wire::answer::BatchWriter;

const ROWS_PER_PART: usize = 4096;
/// A part is sent once it takes so much, which texts do with few rows.
const BYTES_PER_PART: usize = 1 << 20;

/// Answers a raw range.
pub(super) fn answer(answering: &Answering<'_>, request: &QueryRangeRequest, asked: &Asked) -> Result<AnswerSummary> {
    check_range(request.from_ns, request.to_ns)?;
    filter::check(request)?;
    let selector = request.selector.clone().unwrap_or_default();
    let limit = if request.limit == 0 { u64::MAX } else { request.limit };
    let after = position(&request.cursor)?;
    let mut reading = Reading {
        answering,
        request,
        asked,
        limit,
        after: after.as_ref(),
        newest_first: request.order() == Order::NewestFirst,
        pass_over: passes_over_types(&selector),
        gets_further: false,
        summary: AnswerSummary::default(),
    };
    let begin = after.as_ref().map(|position| Begin {
        device: &position.device,
        with: true,
    });
    let known = match request.qualifiers {
        true => Wanted::Tags,
        false => Wanted::Nothing,
    };
    let _ = answering.each_run_from(&selector, known, begin, |devices| reading.run(devices))?;
    Ok(reading.summary)
}

/// What is wanted of devices of one type.
struct OfType<'d> {
    filter: Filter<'d>,
    /// Where qualifiers are wanted.
    qualifying: Option<Qualifying<'d>>,
    /// For both.
    judging: Judging<'d>,
}

impl<'d> OfType<'d> {
    fn new(filter: Filter<'d>, qualifying: Option<Qualifying<'d>>, def: &'d TypeDef) -> OfType<'d> {
        let qualified = qualifying.iter().flat_map(|all| all.properties().iter().copied());
        let mut properties: Vec<&'d PropertyDef> = filter.checked().chain(qualified).collect();
        properties.sort_unstable_by_key(|property| property.number);
        properties.dedup_by_key(|property| property.number);
        let tells = filter.drops_suspect() || qualifying.is_some();
        OfType {
            judging: Judging::new(def, &properties, tells),
            filter,
            qualifying,
        }
    }
}

/// What neighbours say of the values of some blocks.
struct Neighbours {
    verdicts: Verdicts,
    /// Of so many of them, from the first one on.
    blocks: usize,
    /// The answer ends behind these.
    cut: Option<CutShort>,
}

struct Reading<'a> {
    answering: &'a Answering<'a>,
    request: &'a QueryRangeRequest,
    asked: &'a Asked,
    limit: u64,
    after: Option<&'a Position>,
    newest_first: bool,
    pass_over: bool,
    /// A block was passed: the next page begins elsewhere than this one.
    gets_further: bool,
    summary: AnswerSummary,
}

impl Reading<'_> {
    /// Reads devices of one type into shared batches.
    fn run(&mut self, devices: &[Chosen]) -> Result<ControlFlow<()>> {
        let Some(def) = devices.first().map(|first| first.def.clone()) else {
            return Ok(ControlFlow::Continue(()));
        };
        let properties = match def.choose(&self.request.properties) {
            Ok(properties) => properties,
            Err(_) if self.pass_over => return Ok(ControlFlow::Continue(())),
            Err(e) => return Err(e),
        };
        let Some(filter) = Filter::new(self.request, &def, &properties, self.pass_over)? else {
            return Ok(ControlFlow::Continue(()));
        };
        let qualifying = self.request.qualifiers.then(|| Qualifying::new(&def, &properties));
        let of_type = OfType::new(filter, qualifying, &def);
        let range = (self.request.from_ns, self.request.to_ns);
        self.answering.concern(&def, range);
        let mut batch = BatchWriter::new(&def, &properties);
        let mut flow = ControlFlow::Continue(());
        for chosen in devices {
            self.summary.devices += 1;
            flow = self.device(&def, &of_type, chosen, &mut batch)?;
            if flow.is_break() {
                break;
            }
        }
        if batch.rows() > 0 && self.answering.send(Part::Batch(batch.finish())).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        Ok(flow)
    }

    fn device(
        &mut self,
        def: &TypeDef,
        of_type: &OfType<'_>,
        chosen: &Chosen,
        batch: &mut BatchWriter<'_>,
    ) -> Result<ControlFlow<()>> {
        let answering = self.answering;
        let range = self.rest_of(chosen);
        let newest_first = self.newest_first;
        let mut visit = |value: &[u8]| {
            self.take(chosen, value, range, of_type, batch)?;
            if self.summary.limited || self.summary.cut_short.is_some() {
                return Ok(ControlFlow::Break(()));
            }
            if batch.rows() < ROWS_PER_PART && batch.bytes() < BYTES_PER_PART {
                return Ok(ControlFlow::Continue(()));
            }
            Ok(answering.send(Part::Batch(batch.take())))
        };
        match newest_first {
            true => answering.scan_back(def, chosen, range, visit),
            false => answering.scan(def, std::slice::from_ref(chosen), range.0, range.1, |_, value| {
                visit(value)
            }),
        }
    }

    /// The time that is asked for, of one device: less where a page before this one gave some of it.
    fn rest_of(&self, chosen: &Chosen) -> (i64, i64) {
        let (from, to) = (self.request.from_ns, self.request.to_ns);
        match self.after.filter(|after| after.device == chosen.id()) {
            None => (from, to),
            Some(after) if self.newest_first => (from, to.min(after.t_ns)),
            Some(after) => (from.max(after.t_ns.saturating_add(1)), to),
        }
    }

    /// Adds the rows of a bucket that are asked for, up to the limit: only the named properties and the rows that have one
    /// of them.
    fn take(
        &mut self,
        chosen: &Chosen,
        value: &[u8],
        (from_ns, to_ns): (i64, i64),
        of_type: &OfType<'_>,
        batch: &mut BatchWriter<'_>,
    ) -> Result<()> {
        let mut blocks = bucket::blocks(value)
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(corrupt)?;
        blocks.retain(|block| block.last_ns() >= from_ns && block.first_ns() < to_ns);
        if self.newest_first {
            blocks.reverse();
        }
        let Some(neighbours) = self.neighbours(chosen, &blocks, (from_ns, to_ns), &of_type.judging)? else {
            return Ok(());
        };
        let told = blocks.iter().take(neighbours.blocks);
        for (block, left) in told.zip((0..neighbours.blocks).rev()) {
            let projection = Projection {
                properties: of_type.filter.decoded(),
                // Whether a record came late is told from when it was received.
                receipts: !self.request.without_received_at || of_type.qualifying.is_some(),
            };
            let records = block.decode_between(projection, (from_ns, to_ns)).map_err(corrupt)?;
            let points = records.points() as u64;
            self.push(
                chosen,
                records,
                (from_ns, to_ns),
                (of_type, &neighbours.verdicts),
                batch,
            );
            self.gets_further = true;
            if self.summary.limited {
                // Counted all the same; whether there were too many matters no more.
                self.answering.tally.block(points).ok();
                break;
            }
            let cut = match self.answering.tally.block(points) {
                Ok(()) => neighbours.cut.filter(|_| left == 0),
                Err(error) => Some(self.asked.cut_short(&error, self.answering.limits).ok_or(error)?),
            };
            if let Some(cut) = cut {
                // This block is given, so that the next page goes on behind it even where nothing of it was wanted.
                let t_ns = if self.newest_first {
                    block.first_ns()
                } else {
                    block.last_ns()
                };
                self.cut_behind(chosen, t_ns, cut);
                break;
            }
        }
        Ok(())
    }

    /// What neighbours say of the values of some blocks, looked at together. Where a budget does not allow for that and the answer may be
    /// partial it ends before them (`None`); but a page that has got nowhere yet gets as far as the first of them, whatever it costs.
    fn neighbours(
        &mut self,
        chosen: &Chosen,
        blocks: &[Block<'_>],
        (from_ns, to_ns): (i64, i64),
        judging: &Judging<'_>,
    ) -> Result<Option<Neighbours>> {
        let spanned = |blocks: &[Block<'_>]| {
            let first = blocks.iter().map(Block::first_ns).min().unwrap_or(i64::MAX);
            let last = blocks.iter().map(Block::last_ns).max().unwrap_or(i64::MIN);
            (first.max(from_ns), last.min(to_ns.saturating_sub(1)))
        };
        let answering = self.answering;
        let error = match judging.over(answering, chosen, spanned(blocks)) {
            Ok(verdicts) => {
                return Ok(Some(Neighbours {
                    verdicts,
                    blocks: blocks.len(),
                    cut: None,
                }));
            }
            Err(error) => error,
        };
        let Some(cut) = self.asked.cut_short(&error, answering.limits) else {
            return Err(error);
        };
        if !self.gets_further {
            let first = blocks.get(..1).unwrap_or_default();
            let judge = || judging.over(answering, chosen, spanned(first));
            return Ok(Some(Neighbours {
                verdicts: answering.tally.whatever_it_costs(judge)?,
                blocks: first.len(),
                cut: Some(cut),
            }));
        }
        let (first, last) = spanned(blocks);
        let t_ns = if self.newest_first {
            last.saturating_add(1)
        } else {
            first.saturating_sub(1)
        };
        self.cut_behind(chosen, t_ns, cut);
        Ok(None)
    }

    /// Ends the answer; the next page goes on behind a time of a device.
    fn cut_behind(&mut self, chosen: &Chosen, t_ns: i64, cut: CutShort) {
        let position = Position {
            shard: 0,
            device: chosen.id().to_owned(),
            t_ns,
        };
        self.summary.cut_short = Some(cut);
        self.summary.next_cursor = position.encode_to_vec().into();
    }

    fn push(
        &mut self,
        chosen: &Chosen,
        mut records: Records,
        (from_ns, to_ns): (i64, i64),
        (of_type, verdicts): (&OfType<'_>, &Verdicts),
        batch: &mut BatchWriter<'_>,
    ) {
        let filter = &of_type.filter;
        let room = usize::try_from(self.limit - self.summary.rows).unwrap_or(usize::MAX);
        if filter.takes_all() && !self.newest_first {
            if filter.decoded().is_some() {
                records = records.without_empty_rows();
            }
            let mut rows = records.rows_between(from_ns, to_ns);
            if rows.len() > room {
                rows.end = rows.start + room;
                self.summary.limited = true;
            }
            self.summary.rows += rows.len() as u64;
            return self.give(chosen, records, rows, (of_type, verdicts), batch);
        }
        let (records, mut rows, dropped) = filter.apply(verdicts, records, (from_ns, to_ns));
        self.summary.points_dropped += dropped;
        if self.newest_first {
            rows.reverse();
        }
        if rows.len() > room {
            rows.truncate(room);
            self.summary.limited = true;
        }
        if rows.is_empty() {
            return;
        }
        self.summary.rows += rows.len() as u64;
        let records = records.pick_rows(&rows);
        self.give(chosen, records, 0..rows.len(), (of_type, verdicts), batch);
    }

    fn give(
        &self,
        chosen: &Chosen,
        mut records: Records,
        rows: Range<usize>,
        (of_type, verdicts): (&OfType<'_>, &Verdicts),
        batch: &mut BatchWriter<'_>,
    ) {
        self.make_room(batch, rows.len());
        match &of_type.qualifying {
            None => batch.push(chosen.id(), records, rows),
            Some(qualifying) => {
                let qualified = qualifying.of(verdicts, chosen, &records, rows.clone());
                if self.request.without_received_at {
                    records.received_at.clear();
                }
                batch.push_qualified(chosen.id(), records, rows, &qualified);
            }
        }
    }

    /// Sends what waits where more would make too many rows: those of a large block go out as they were decoded.
    fn make_room(&self, batch: &mut BatchWriter<'_>, rows: usize) {
        if batch.rows() > 0 && batch.rows() + rows > ROWS_PER_PART {
            // That nobody listens any more shows at the next look.
            let _ = self.answering.send(Part::Batch(batch.take()));
        }
    }
}
