//! The fast way through a window of a walk: records that are hinted at, each looked at when it is
//! asked for and not before. Knows hints and segments; whoever asks falls back when a hint fails.
//!
//! A hint holds while its record's mark is not set and its segment stands where it stood: a change
//! that is visible to a walk marked the record that it superseded before it became visible. A place
//! that the index told this walk holds without that, for the walk's moment was there before.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::format::record::{Record, RecordKind, body_begun};
use crate::ids::{Incarnation, Seq, Slot};
use crate::tiers::Tiers;
use crate::tiers::span::{Direction, Span, sort_key};
use crate::tiers::window::{Bounds, Looked, Placed};
use crate::warm::index::leaf::Hint;
use crate::warm::index::order::Tagged;
use crate::warm::segment::{Marks, Segment};
use crate::warm::table::SegmentTable;

/// Rows whose records are asked for ahead of the one that is looked at.
const AHEAD: usize = 8;
/// Rows that a window has room for from the start.
pub(crate) const ROWS_AT_FIRST: usize = 80;
/// Leaves that one window takes at most.
const LEAVES_MAX: usize = 4;
/// Rows of a leaf that can be counted on.
const LEAF_ROWS: usize = 20;

/// Where a hinted record is, in the window's list of segments.
#[derive(Debug, Clone, Copy)]
struct Hinted {
    offset: u32,
    tag: u32,
    segment: u16,
    /// The index told the place, for this walk.
    asked: bool,
    /// It does not follow the row before it on the same page: the processor cannot foresee it.
    jumped: bool,
}

impl Hinted {
    const NOWHERE: Self =
        Self { offset: u32::MAX, tag: 0, segment: u16::MAX, asked: false, jumped: false };

    fn record<'l>(&self, looked: &'l Looked) -> Option<(&'l Segment, Record<'l>)> {
        let segment = looked.segment(self.segment.into())?;
        Some((segment, segment.named_record(u64::from(self.offset))?))
    }

    /// What is wrong with the body, unless it is only long.
    #[cold]
    fn check_body(&self, looked: &Looked) -> Result<()> {
        if let Some((segment, record)) = self.record(looked) {
            segment.check_body(u64::from(self.offset), &record)?;
        }
        Ok(())
    }

    /// Asks for the record without waiting, unless the processor does by itself.
    #[inline]
    fn prefetch(&self, looked: &Looked) {
        if self.jumped
            && let Some(segment) = looked.segment(self.segment.into())
        {
            segment.prefetch(u64::from(self.offset));
        }
    }

    /// Whether the record shows a key at the moment; `None` when the index must tell.
    #[inline]
    fn holds(
        &self,
        tiers: &Tiers,
        held: &Segment,
        record: &Record<'_>,
        span: &Span,
    ) -> Option<bool> {
        let header = &record.header;
        let is_told = || self.is_told(tiers, header.incarnation, record.key);
        if self.is_late(held, header.seq, span) || (!span.values && !is_told()) {
            return None;
        }
        Some(
            header.incarnation == span.incarnation
                && header.kind != RecordKind::Tombstone
                && tiers.is_alive(header.deadline_ms),
        )
    }

    /// Whether another version may hold at the moment.
    #[inline]
    fn is_late(&self, held: &Segment, seq: Seq, span: &Span) -> bool {
        seq > span.moment || (!self.asked && held.may_be_superseded(u64::from(self.offset)))
    }

    /// Whether the key is the one that the order told. Where the key alone is read, its hash is its
    /// checksum.
    fn is_told(&self, tiers: &Tiers, incarnation: Incarnation, key: &[u8]) -> bool {
        tiers.seed.hash(incarnation, key).tag() == self.tag
    }
}

/// What rows of one segment need to know of it.
struct Standing<'t> {
    slot: Slot,
    /// Its number in the window's list.
    number: u16,
    /// No hint holds in a slot without a segment.
    entered: u32,
    is_gathered: bool,
    marks: Marks<'t>,
}

impl<'t> Standing<'t> {
    const NOWHERE: Self = Self {
        slot: Slot(u32::MAX),
        number: 0,
        entered: u32::MAX,
        is_gathered: true,
        marks: Marks::NONE,
    };

    fn of(table: &'t SegmentTable, slot: Slot, looked: &mut Looked) -> Self {
        let Some(segment) = table.get(slot) else { return Self { slot, ..Self::NOWHERE } };
        Self {
            slot,
            number: u16::try_from(looked.number_of(segment)).unwrap_or(u16::MAX),
            entered: segment.entered(),
            is_gathered: segment.is_gathered(),
            marks: segment.marks(),
        }
    }
}

/// What a window of a walk covers.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// Sort keys.
    pub keys: Range<Vec<u8>>,
    /// Its first leaf, in the walk's direction, may have keys in front of it: until one is inside.
    pub opens: bool,
    /// Its last leaf may have keys behind it.
    pub is_cut: bool,
}

impl Window {
    /// Whether a record of the next row lies inside. Only the ends are asked: rows are in order.
    #[inline]
    fn hold(&mut self, direction: Direction, span: &Span, key: &[u8]) -> bool {
        if !self.opens && !self.is_cut {
            return true;
        }
        let Bounds { low, high, .. } = Bounds::of(span.incarnation, &self.keys);
        let above = |asked: bool| !asked || key >= low;
        let below = |asked: bool| !asked || high.is_none_or(|high| key < high);
        let inside = match direction {
            Direction::Forward => above(self.opens) && below(self.is_cut),
            Direction::Backward => below(self.opens) && above(self.is_cut),
        };
        self.opens &= !inside;
        inside
    }
}

/// The rows of a window that nobody has looked at.
#[derive(Debug)]
pub(crate) struct Lane {
    rows: Vec<Hinted>,
    at: usize,
    direction: Direction,
    window: Window,
    /// Whoever walks does not wait between two rows.
    pub is_quick: bool,
    /// Leaves that the next window takes: a walk that goes on gets longer ones.
    pub leaves: usize,
    /// Rows that were passed in the windows before this one.
    passed: usize,
    /// Tags whose hints did not hold when a window was to be taken.
    pub dead: Vec<u32>,
    /// Asking the index for them may help: one had a hint, or all places fit hints.
    pub is_worth_asking: bool,
    /// What the index told of them.
    pub asked: Vec<Tagged>,
}

/// What stands at one place of a lane.
pub(crate) enum Next {
    /// The record that its key has at the moment.
    Row(Placed),
    /// Nothing that the walk shows.
    Nothing,
    /// The index must tell.
    Unknown,
    End,
}

impl Lane {
    pub(crate) fn new(direction: Direction) -> Self {
        Self {
            rows: Vec::new(),
            at: 0,
            direction,
            window: Window::default(),
            is_quick: false,
            leaves: 1,
            passed: 0,
            dead: Vec::new(),
            is_worth_asking: true,
            asked: Vec::new(),
        }
    }

    /// Forgets everything but its memory, and how long the walk was: the next may be as long.
    pub(crate) fn reset(&mut self, direction: Direction) {
        let rows = std::mem::take(&mut self.passed) + self.at;
        self.direction = direction;
        self.window.opens = false;
        self.window.is_cut = false;
        self.is_quick = false;
        self.dead.clear();
        self.is_worth_asking = true;
        self.asked.clear();
        self.clear();
        self.leaves = (rows / LEAF_ROWS + 1).min(LEAVES_MAX);
    }

    /// Forgets what is left, and puts it back to the rest of the walk.
    pub(crate) fn leave(
        &mut self,
        looked: &Looked,
        incarnation: Incarnation,
        rest: &mut Range<Vec<u8>>,
    ) {
        let window = std::mem::take(&mut self.window).keys;
        // Leaves at the ends of a keyspace may hold keys of others.
        let passed = self.rows.get(..self.at).unwrap_or(&[]).iter().rev();
        let mut passed = passed.filter_map(|hinted| hinted.record(looked));
        let last = passed.find(|(_, record)| record.header.incarnation == incarnation);
        let last = last.map(|(_, record)| sort_key(incarnation, record.key));
        // The rows at the ends of a window may lie outside.
        match (self.direction, last) {
            (Direction::Forward, Some(mut last)) => {
                last.push(0);
                rest.start = last.max(window.start);
            }
            (Direction::Forward, None) => rest.start = window.start,
            (Direction::Backward, Some(last)) => rest.end = last.min(window.end),
            (Direction::Backward, None) => rest.end = window.end,
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.at = 0;
        self.leaves = 1;
    }

    /// Takes the rows of a window and asks for the first records without waiting. `false` when
    /// hints do not hold: those tags are `dead` then, and nothing is taken.
    pub(crate) fn take(&mut self, tiers: &Tiers, tags: &[Tagged], looked: &mut Looked) -> bool {
        let table = tiers.segments.load_full();
        looked.hold(self.is_quick.then(|| Arc::clone(&table)));
        self.dead.clear();
        self.is_worth_asking = Hint::reaches(table.slot_count());
        self.passed += std::mem::take(&mut self.at);
        self.rows.clear();
        self.rows.reserve(tags.len().max(ROWS_AT_FIRST));
        self.rows.resize(tags.len(), Hinted::NOWHERE);
        let mut before = Hint::NONE;
        let mut jumps = 0;
        let mut here = Standing::NOWHERE;
        for (row, one) in self.rows.iter_mut().zip(tags) {
            let Some(place) = one.hint.place() else {
                self.dead.push(one.tag);
                continue;
            };
            if here.slot != place.slot {
                here = Standing::of(&table, place.slot, looked);
            }
            let is_marked = here.marks.hold(place.offset.into());
            if here.entered > one.entered
                || is_marked && self.asked.iter().all(|asked| asked.hint != one.hint)
            {
                self.is_worth_asking = true;
                self.dead.push(one.tag);
                continue;
            }
            let follows = one.hint.follows(before);
            jumps += u64::from(!follows && !here.is_gathered);
            let jumped = !follows || !one.hint.shares_page(before);
            before = one.hint;
            let (offset, segment) = (place.offset, here.number);
            *row = Hinted { offset, segment, tag: one.tag, asked: is_marked, jumped };
        }
        // The first row follows nothing.
        jumps = jumps.saturating_sub(1);
        if self.direction == Direction::Backward {
            self.rows.reverse();
        }
        if jumps > 0 {
            tiers.extra.jumps.fetch_add(jumps, Ordering::Relaxed);
        }
        self.asked.clear();
        if self.dead.is_empty() {
            self.rows.iter().take(AHEAD).for_each(|hinted| hinted.prefetch(looked));
            self.leaves = if self.leaves == 1 { LEAVES_MAX - 1 } else { LEAVES_MAX };
        } else {
            self.clear();
        }
        self.dead.is_empty()
    }

    /// Tells what the rows that were taken cover, and gives the window before back.
    pub(crate) fn cover(&mut self, window: Window) -> Window {
        std::mem::replace(&mut self.window, window)
    }

    /// Hands the rows of the window to `each`, checked and without a copy, for as long as they hold
    /// and `each` goes on. What comes next is for `next` to say.
    pub(crate) fn run(
        &mut self,
        tiers: &Tiers,
        looked: &Looked,
        span: &Span,
        each: &mut impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        let begun = body_begun(span.incarnation);
        let mut here: Option<(u16, &Segment, &[u8])> = None;
        for hinted in self.rows.get(self.at..).unwrap_or(&[]) {
            if let Some(later) = self.rows.get(self.at + AHEAD) {
                later.prefetch(looked);
            }
            if here.is_none_or(|(number, ..)| number != hinted.segment) {
                let segment = looked.segment(hinted.segment.into());
                here = segment.map(|segment| (hinted.segment, &**segment, segment.readable()));
            }
            let Some((_, segment, bytes)) = here else { break };
            let Some(shown) = segment.shown(bytes, hinted.offset) else { break };
            if hinted.is_late(segment, shown.seq, span) {
                break;
            }
            let holds = shown.incarnation == span.incarnation
                && shown.is_put
                && tiers.is_alive(shown.deadline_ms);
            let (key, value) = shown.pair();
            let is_inside = holds && self.window.hold(self.direction, span, key);
            // A key that rotted may lie outside now.
            if holds && !is_inside && !hinted.is_told(tiers, span.incarnation, key) {
                break;
            }
            self.at += 1;
            if is_inside {
                if !Segment::is_sound(&shown, &begun) {
                    hinted.check_body(looked)?;
                }
                if each(key, value).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The next place.
    pub(crate) fn next(&mut self, tiers: &Tiers, looked: &Looked, span: &Span) -> Next {
        let Some(hinted) = self.rows.get(self.at) else { return Next::End };
        if let Some(later) = self.rows.get(self.at + AHEAD) {
            later.prefetch(looked);
        }
        let Some((held, record)) = hinted.record(looked) else { return Next::Unknown };
        let Some(holds) = hinted.holds(tiers, held, &record, span) else { return Next::Unknown };
        let is_inside = holds && self.window.hold(self.direction, span, record.key);
        if holds && !is_inside && !hinted.is_told(tiers, span.incarnation, record.key) {
            return Next::Unknown;
        }
        self.at += 1;
        if !is_inside {
            return Next::Nothing;
        }
        let Hinted { offset, segment, tag, .. } = *hinted;
        let segment = segment.into();
        Next::Row(Placed { header: record.header, offset, segment, tag, named: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_begins_with_as_many_leaves_as_the_one_before_would_have_needed() {
        let mut lane = Lane::new(Direction::Forward);
        assert_eq!(lane.leaves, 1);
        for (passed, at, leaves) in [(0, 3, 1), (20, 20, 3), (0, 50, 3), (900, 9, 4), (0, 0, 1)] {
            (lane.passed, lane.at) = (passed, at);
            lane.reset(Direction::Backward);
            assert_eq!((lane.leaves, lane.passed, lane.at), (leaves, 0, 0), "{passed} + {at} rows");
        }
    }
}
