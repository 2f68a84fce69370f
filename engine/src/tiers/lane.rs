//! The fast way through a window of a walk: records that are hinted at, each looked at when it is
//! asked for and not before. Knows hints and segments; whoever asks falls back when a hint fails.
//!
//! A hint holds when its record's mark is not set and its segment stands where it stood: a change
//! that is visible to a walk marked the record that it superseded before it became visible. A place
//! that the index told this walk holds without that, for the walk's moment was there before. What
//! changes once a window was taken is not visible to the walk: its records stay what they show.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::format::record::{Record, RecordKind};
use crate::ids::{Incarnation, Slot};
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

/// A row's record, and its segment.
fn record_of<'l>(looked: &'l Looked, row: &Tagged) -> Option<(u32, &'l Segment, Record<'l>)> {
    let place = row.hint.place()?;
    let (number, segment) = looked.at(place.slot)?;
    Some((number, segment, segment.named_record(u64::from(place.offset))?))
}

/// What is wrong with a row's body, unless it is only long.
#[cold]
fn check_body(looked: &Looked, row: &Tagged) -> Result<()> {
    if let (Some(place), Some((_, segment, record))) = (row.hint.place(), record_of(looked, row)) {
        segment.check_body(u64::from(place.offset), &record)?;
    }
    Ok(())
}

/// Whether a key is the one that the order told. Where the key alone is read, its hash is its
/// checksum.
fn is_told(tiers: &Tiers, incarnation: Incarnation, key: &[u8], row: &Tagged) -> bool {
    tiers.seed.hash(incarnation, key).tag() == row.tag
}

/// What rows of one segment need to know of it.
struct Standing<'t> {
    slot: Slot,
    /// No hint holds in a slot without a segment.
    entered: u32,
    is_gathered: bool,
    marks: Marks<'t>,
}

impl<'t> Standing<'t> {
    const NOWHERE: Self =
        Self { slot: Slot(u32::MAX), entered: u32::MAX, is_gathered: true, marks: Marks::NONE };

    fn of(table: &'t SegmentTable, slot: Slot, looked: &mut Looked) -> Self {
        let Some(segment) = table.get(slot) else { return Self { slot, ..Self::NOWHERE } };
        looked.number_of(segment);
        Self {
            slot,
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
    rows: Vec<Tagged>,
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
        let mut passed = passed.filter_map(|row| record_of(looked, row));
        let last = passed.find(|(.., record)| record.header.incarnation == incarnation);
        let last = last.map(|(.., record)| sort_key(incarnation, record.key));
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

    /// Bytes of memory that the rows keep, in rows.
    pub(crate) fn capacity(&self) -> usize {
        self.rows.capacity()
    }

    /// Takes the rows of a window out of `tags` and asks for the first records without waiting.
    /// `false` when hints do not hold: those tags are `dead` then, and nothing is taken.
    pub(crate) fn take(
        &mut self,
        tiers: &Tiers,
        tags: &mut Vec<Tagged>,
        looked: &mut Looked,
    ) -> bool {
        let table = tiers.segments.load_full();
        looked.hold(self.is_quick.then(|| Arc::clone(&table)));
        self.passed += std::mem::take(&mut self.at);
        self.rows.clear();
        self.dead.clear();
        self.is_worth_asking = Hint::reaches(table.slot_count());
        let (mut before, mut jumps) = (Hint::NONE, 0);
        let mut here = Standing::NOWHERE;
        for one in &*tags {
            let Some(place) = one.hint.place() else {
                self.dead.push(one.tag);
                continue;
            };
            if here.slot != place.slot {
                here = Standing::of(&table, place.slot, looked);
            }
            if here.entered > one.entered
                || here.marks.hold(place.offset.into())
                    && self.asked.iter().all(|asked| asked.hint != one.hint)
            {
                self.is_worth_asking = true;
                self.dead.push(one.tag);
                continue;
            }
            jumps += u64::from(!here.is_gathered && !one.hint.follows(before));
            before = one.hint;
        }
        // The first row follows nothing.
        if jumps > 1 {
            tiers.extra.jumps.fetch_add(jumps - 1, Ordering::Relaxed);
        }
        self.asked.clear();
        if !self.dead.is_empty() {
            self.clear();
            return false;
        }
        std::mem::swap(&mut self.rows, tags);
        if self.direction == Direction::Backward {
            self.rows.reverse();
        }
        (0..AHEAD).for_each(|at| self.prefetch(at, looked));
        self.leaves = if self.leaves == 1 { LEAVES_MAX - 1 } else { LEAVES_MAX };
        true
    }

    /// Asks for the record of a row without waiting, unless the processor does by itself because
    /// it follows the one before on the same page.
    #[inline]
    fn prefetch(&self, at: usize, looked: &Looked) {
        let Some(row) = self.rows.get(at) else { return };
        let before = self.rows.get(at.wrapping_sub(1)).map_or(Hint::NONE, |row| row.hint);
        if (!row.hint.follows(before) || !row.hint.shares_page(before))
            && let Some(place) = row.hint.place()
            && let Some((_, segment)) = looked.at(place.slot)
        {
            segment.prefetch(u64::from(place.offset));
        }
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
        let mut here: Option<(Slot, &Segment, &[u8])> = None;
        while let Some(&row) = self.rows.get(self.at)
            && let Some(place) = row.hint.place()
        {
            self.prefetch(self.at + AHEAD, looked);
            if here.is_none_or(|(slot, ..)| slot != place.slot) {
                let segment = looked.at(place.slot);
                here = segment.map(|(_, segment)| (place.slot, &**segment, segment.readable()));
            }
            let Some((_, segment, bytes)) = here else { break };
            let Some(shown) = segment.shown(bytes, place.offset) else { break };
            if shown.seq > span.moment {
                break;
            }
            let holds = shown.incarnation == span.incarnation
                && shown.is_put
                && tiers.is_alive(shown.deadline_ms);
            let (key, value) = shown.pair();
            let is_inside = holds && self.window.hold(self.direction, span, key);
            // A key that rotted may lie outside now.
            if holds && !is_inside && !is_told(tiers, span.incarnation, key, &row) {
                break;
            }
            self.at += 1;
            if is_inside {
                if !Segment::is_sound(&shown) {
                    check_body(looked, &row)?;
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
        let Some(row) = self.rows.get(self.at) else { return Next::End };
        self.prefetch(self.at + AHEAD, looked);
        let found = row.hint.place().zip(record_of(looked, row));
        let Some((place, (segment, _, record))) = found else { return Next::Unknown };
        let header = record.header;
        let is_told = || is_told(tiers, header.incarnation, record.key, row);
        if header.seq > span.moment || (!span.values && !is_told()) {
            return Next::Unknown;
        }
        let holds = header.incarnation == span.incarnation
            && header.kind != RecordKind::Tombstone
            && tiers.is_alive(header.deadline_ms);
        let is_inside = holds && self.window.hold(self.direction, span, record.key);
        if holds && !is_inside && !is_told() {
            return Next::Unknown;
        }
        let tag = row.tag;
        self.at += 1;
        if !is_inside {
            return Next::Nothing;
        }
        Next::Row(Placed { header, offset: place.offset, segment, tag, named: true })
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
