//! The fast way through a window of a walk: records that are hinted at, each looked at when it is
//! asked for and not before. Knows hints and segments; whoever asks falls back when a hint fails.
//!
//! A hint holds while its record's mark is not set: a change that is visible to a walk marked the
//! record that it superseded before it became visible.

use std::ops::{ControlFlow, Range};

use crate::error::Result;
use crate::format::record::{Record, RecordKind};
use crate::ids::Incarnation;
use crate::tiers::Tiers;
use crate::tiers::span::{Direction, Span, sort_key};
use crate::tiers::window::{Bounds, Looked, Placed};
use crate::warm::index::order::Tagged;
use crate::warm::segment::Segment;

/// Leaves that one window takes at most.
const LEAVES_MAX: usize = 4;

/// Where a hinted record is, in the window's list of segments.
#[derive(Debug, Clone, Copy)]
struct Hinted {
    offset: u32,
    segment: u32,
    tag: u32,
}

impl Hinted {
    fn record<'l>(&self, looked: &'l Looked) -> Option<(&'l Segment, Record<'l>)> {
        let segment = looked.segments.get(self.segment as usize)?;
        Some((segment, segment.record(u64::from(self.offset)).ok()?))
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
        if held.may_be_superseded(u64::from(self.offset))
            || header.seq > span.moment
            || header.incarnation != span.incarnation
            || tiers.seed.hash(span.incarnation, record.key).tag() != self.tag
        {
            return None;
        }
        Some(header.kind != RecordKind::Tombstone && tiers.is_alive(header.deadline_ms))
    }
}

/// The rows of a window that nobody has looked at.
#[derive(Debug)]
pub(crate) struct Lane {
    rows: Vec<Hinted>,
    at: usize,
    direction: Direction,
    window: Range<Vec<u8>>,
    /// Leaves that the next window takes: a walk that goes on gets longer ones.
    pub leaves: usize,
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
        Self { rows: Vec::new(), at: 0, direction, window: Vec::new()..Vec::new(), leaves: 1 }
    }

    /// Forgets what is left, and puts it back to the rest of the walk.
    pub(crate) fn leave(
        &mut self,
        looked: &Looked,
        incarnation: Incarnation,
        rest: &mut Range<Vec<u8>>,
    ) {
        let window = std::mem::take(&mut self.window);
        let last = self.at.checked_sub(1).and_then(|at| self.rows.get(at)?.record(looked));
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

    /// Takes a window whose tags all have hints, and asks for their records without waiting.
    /// `false` when one has none: then nothing is taken.
    pub(crate) fn take(
        &mut self,
        tiers: &Tiers,
        tags: &[Tagged],
        window: &Range<Vec<u8>>,
        looked: &mut Looked,
    ) -> bool {
        let table = tiers.segments.load();
        looked.segments.clear();
        self.rows.clear();
        self.at = 0;
        self.rows.reserve(tags.len());
        for one in tags {
            let Some((place, segment)) =
                one.hint.place().and_then(|place| Some((place, table.of(place)?)))
            else {
                self.clear();
                return false;
            };
            segment.prefetch(u64::from(place.offset));
            let segment = looked.number_of(segment);
            self.rows.push(Hinted { offset: place.offset, segment, tag: one.tag });
        }
        if self.direction == Direction::Backward {
            self.rows.reverse();
        }
        self.leaves = (self.leaves * 2).min(LEAVES_MAX);
        self.window.clone_from(window);
        true
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
        let bounds = Bounds::of(span.incarnation, &self.window);
        for hinted in self.rows.get(self.at..).unwrap_or(&[]) {
            let Some((segment, record)) = hinted.record(looked) else { break };
            let Some(holds) = hinted.holds(tiers, segment, &record, span) else { break };
            self.at += 1;
            if holds && bounds.hold(&record) {
                segment.check_body(u64::from(hinted.offset), &record)?;
                if each(record.key, record.value).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The next place.
    pub(crate) fn next(&mut self, tiers: &Tiers, looked: &Looked, span: &Span) -> Next {
        let Some(hinted) = self.rows.get(self.at) else { return Next::End };
        let Some((held, record)) = hinted.record(looked) else { return Next::Unknown };
        let Some(holds) = hinted.holds(tiers, held, &record, span) else { return Next::Unknown };
        self.at += 1;
        if !holds || !Bounds::of(span.incarnation, &self.window).hold(&record) {
            return Next::Nothing;
        }
        let Hinted { offset, segment, tag } = *hinted;
        Next::Row(Placed { header: record.header, offset, segment, tag, named: true })
    }
}
