//! The archives' side of an ordered walk: one cursor an archive, merged.
//! Knows archives and which of their dead records a moment still needs; knows nothing of the log.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;

use crate::cold::cursor::{Cursor, CursorRecord};
use crate::cold::{ArchiveEntry, ArchiveSet};
use crate::error::Result;
use crate::format::block::split_sort_key;
use crate::ids::{Incarnation, Seq};
use crate::key::Key;
use crate::tiers::Tiers;
use crate::tiers::span::{Direction, Span, is_inside};
use crate::value::Value;

/// A record of an archive.
#[derive(Debug, Clone)]
pub(crate) struct ArchivedRow {
    pub key: Key,
    pub value: Value,
    pub seq: Seq,
    /// 0 for none.
    pub deadline_ms: u64,
}

/// One archive: where its cursor stands, and the row in front of it.
#[derive(Debug)]
struct Side {
    entry: Arc<ArchiveEntry>,
    cursor: Cursor,
    next: Option<ArchivedRow>,
    /// The ordinal of the row in front.
    ordinal: u32,
    done: bool,
}

/// All archives of one set, walked in one direction.
#[derive(Debug)]
pub(crate) struct Archived {
    direction: Direction,
    set: Option<Arc<ArchiveSet>>,
    sides: Vec<Side>,
}

impl Archived {
    pub(crate) fn new(direction: Direction) -> Self {
        Self { direction, set: None, sides: Vec::new() }
    }

    /// Walks this set from now on; when it is another one than before, from the start of `rest`.
    pub(crate) fn follow(
        &mut self,
        tiers: &Tiers,
        span: &Span,
        set: &Arc<ArchiveSet>,
        rest: &Range<Vec<u8>>,
    ) -> Result<()> {
        if self.set.as_ref().is_some_and(|known| Arc::ptr_eq(known, set)) {
            // What superseded a row in front may have left the log since that row was read.
            for side in &mut self.sides {
                side.next.take_if(|_| !wants(tiers, span, &side.entry, side.ordinal));
            }
            return Ok(());
        }
        self.sides.clear();
        self.set = None;
        let from = match self.direction {
            Direction::Forward => &rest.start,
            Direction::Backward => &rest.end,
        };
        let (incarnation, key) = split_sort_key(from).unwrap_or((Incarnation(0), &[]));
        for entry in set.entries() {
            let mut cursor = entry.archive.cursor();
            cursor.seek(incarnation, key)?;
            let entry = Arc::clone(entry);
            self.sides.push(Side { entry, cursor, next: None, ordinal: 0, done: false });
        }
        self.set = Some(Arc::clone(set));
        Ok(())
    }

    /// The next row inside the window, in the walk's direction.
    pub(crate) fn next(
        &mut self,
        tiers: &Tiers,
        span: &Span,
        window: &Range<Vec<u8>>,
    ) -> Result<Option<ArchivedRow>> {
        for side in &mut self.sides {
            side.advance(tiers, span, self.direction)?;
        }
        let heads = self.sides.iter().enumerate();
        let heads = heads.filter_map(|(at, side)| Some((at, &side.next.as_ref()?.key)));
        let best = match self.direction {
            Direction::Forward => heads.min_by(|a, b| a.1.cmp(b.1)),
            Direction::Backward => heads.max_by(|a, b| a.1.cmp(b.1)),
        };
        let Some((at, key)) = best else { return Ok(None) };
        if !is_inside(span.incarnation, key, window) {
            return Ok(None);
        }
        let key = key.clone();
        let row = self.sides.get_mut(at).and_then(|side| side.next.take());
        // Of a kept old version and a live record the later one that holds is the answer.
        let same = self.sides.iter_mut().filter(|s| s.next.as_ref().is_some_and(|n| n.key == key));
        let others = same.filter_map(|side| side.next.take());
        Ok(row.into_iter().chain(others).max_by_key(|row| row.seq))
    }
}

impl Side {
    /// Puts the next row that the span wants in front.
    fn advance(&mut self, tiers: &Tiers, span: &Span, direction: Direction) -> Result<()> {
        while self.next.is_none() && !self.done {
            let asked = Cell::new(0);
            let wanted = |ordinal| {
                asked.set(ordinal);
                wants(tiers, span, &self.entry, ordinal)
            };
            let found = match direction {
                Direction::Forward => self.cursor.next_if(wanted)?,
                Direction::Backward => self.cursor.prev_if(wanted)?,
            };
            let Some(found) = found else {
                self.done = true;
                return Ok(());
            };
            if found.record.incarnation != span.incarnation {
                self.done = true;
                return Ok(());
            }
            self.next = row_of(tiers, span, &found);
            self.ordinal = asked.get();
        }
        Ok(())
    }
}

/// Whether a record of an archive lives, or is kept for a moment such as the walk's.
fn wants(tiers: &Tiers, span: &Span, entry: &ArchiveEntry, ordinal: u32) -> bool {
    let id = entry.archive.id().0;
    !entry.dead.is_dead(ordinal) || tiers.versions.cold_holds_at(id, ordinal, span.moment)
}

fn row_of(tiers: &Tiers, span: &Span, found: &CursorRecord<'_>) -> Option<ArchivedRow> {
    let record = &found.record;
    if record.seq > span.moment || !tiers.is_alive(record.deadline_ms) {
        return None;
    }
    let value = if span.values { found.value() } else { Value::from(&[][..]) };
    let (seq, deadline_ms) = (record.seq, record.deadline_ms);
    Some(ArchivedRow { key: Key::from(record.key), value, seq, deadline_ms })
}
