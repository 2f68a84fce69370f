//! An ordered walk over log and archives at one moment, a window of keys at a time.
//! Knows how the tiers' records merge; knows nothing of who walks or what is done with a row.
//!
//! A window is what one leaf of the order covers. Its keys are looked up in the log first, and the
//! set of archives is loaded after that: a record that moved down meanwhile is found there. Between
//! two windows nothing is pinned but the archives' cursors.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::cold::ArchiveSet;
use crate::error::{Damage, Error, Result};
use crate::format::record::RecordHeader;
use crate::ids::Location;
use crate::key::Key;
use crate::tiers::Tiers;
use crate::tiers::archived::{Archived, ArchivedRow};
use crate::tiers::read::{Hit, KeyRef, Old};
use crate::tiers::span::{Direction, Span, is_inside, sort_key};
use crate::value::Value;
use crate::warm::segment::Segment;

/// Archived rows that one window takes at most.
const ARCHIVED_PER_WINDOW: usize = 128;
/// How often damage must be seen in the same place before it is believed.
const DAMAGE_SEEN_MIN: u32 = 3;

/// One record of the walk, or damage where there may be one.
#[derive(Debug)]
pub(crate) enum Row {
    Warm(WarmRow),
    Cold(ArchivedRow),
    Damaged(Error),
}

/// A record of the log.
#[derive(Debug, Clone)]
pub(crate) struct WarmRow {
    pub segment: Arc<Segment>,
    pub offset: u64,
    pub header: RecordHeader,
}

impl WarmRow {
    fn body(&self, from: usize, len: usize) -> &[u8] {
        let at = self.offset + (crate::format::record::RECORD_HEADER_LEN + from) as u64;
        self.segment.bytes_at(at, len as u64).unwrap_or(&[])
    }

    pub(crate) fn key(&self) -> &[u8] {
        self.body(0, usize::from(self.header.key_len))
    }

    /// The value, its checksum verified.
    pub(crate) fn value(&self) -> Result<&[u8]> {
        let record = self.segment.record_of(self.offset, self.header)?;
        self.segment.check_body(self.offset, &record)?;
        Ok(record.value)
    }
}

impl Row {
    fn of(row: Result<ArchivedRow>) -> Self {
        row.map_or_else(Self::Damaged, Self::Cold)
    }

    pub(crate) fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Warm(row) => Some(row.key()),
            Self::Cold(row) => Some(&row.key),
            Self::Damaged(_) => None,
        }
    }

    /// When it expires; 0 for never.
    pub(crate) fn deadline_ms(&self) -> u64 {
        match self {
            Self::Warm(row) => row.header.deadline_ms,
            Self::Cold(row) => row.deadline_ms,
            Self::Damaged(_) => 0,
        }
    }

    /// Hands key and value to `read` without a copy.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&[u8], &[u8]) -> R) -> Result<R> {
        match self {
            Self::Warm(row) => Ok(read(row.key(), row.value()?)),
            Self::Cold(row) => Ok(read(&row.key, &row.value)),
            Self::Damaged(error) => Err(error.clone()),
        }
    }

    pub(crate) fn into_pair(self) -> Result<(Key, Value)> {
        match self {
            Self::Warm(row) => {
                row.value()?;
                let key = Key::from(row.key());
                let WarmRow { segment, offset, header } = row;
                let value = Hit::Warm { segment, offset, header }.value(&key);
                Ok((key, value))
            }
            Self::Cold(row) => Ok((row.key, row.value)),
            Self::Damaged(error) => Err(error),
        }
    }

    pub(crate) fn into_key(self) -> Result<Key> {
        match self {
            Self::Warm(row) => Ok(Key::from(row.key())),
            Self::Cold(row) => Ok(row.key),
            Self::Damaged(error) => Err(error),
        }
    }
}

/// One record of the log that a tag led to.
struct Candidate {
    row: WarmRow,
    tag: u32,
    /// The index names it; else the version table does.
    named: bool,
}

/// What the log says of one key.
enum Told {
    Row(WarmRow),
    /// The key is absent at the moment, whatever the archives hold.
    Absent(WarmRow),
    Damaged(Damage),
}

/// One direction of a walk.
#[derive(Debug)]
pub(crate) struct Walk {
    direction: Direction,
    /// What was not walked yet.
    rest: Range<Vec<u8>>,
    rows: VecDeque<Row>,
    archived: Archived,
}

impl Walk {
    pub(crate) fn new(span: &Span, direction: Direction) -> Self {
        let archived = Archived::new(direction);
        Self { direction, rest: span.keys.clone(), rows: VecDeque::new(), archived }
    }

    /// The next record in this direction.
    pub(crate) fn next(&mut self, tiers: &Tiers, span: &Span) -> Result<Option<Row>> {
        while self.rows.is_empty() {
            if self.rest.start >= self.rest.end {
                return Ok(None);
            }
            self.fill(tiers, span)?;
        }
        Ok(self.rows.pop_front())
    }

    /// Looks the next window up.
    fn fill(&mut self, tiers: &Tiers, span: &Span) -> Result<()> {
        let mut tags = Vec::new();
        let forward = self.direction == Direction::Forward;
        let mut window = self.rest.clone();
        if forward {
            if let Some(end) = tiers.order.tags_from(&window.start, &mut tags) {
                window.end = window.end.min(end.into());
            }
        } else if let Some(start) = tiers.order.tags_before(Some(&window.end), &mut tags) {
            window.start = window.start.max(start.into());
        }
        let mut told = tiers.look_tags(&tags, span, &window)?;
        let set = tiers.cold.load_full();
        let mut cold = self.cold_rows(tiers, span, &set, &mut window)?;
        if !forward {
            told.reverse();
        }
        if forward {
            self.rest.start.clone_from(&window.end);
        } else {
            self.rest.end.clone_from(&window.start);
        }
        self.merge(told, &mut cold, &window);
        Ok(())
    }

    /// The archived rows of the window. When there are many, the window ends with them.
    fn cold_rows(
        &mut self,
        tiers: &Tiers,
        span: &Span,
        set: &Arc<ArchiveSet>,
        window: &mut Range<Vec<u8>>,
    ) -> Result<VecDeque<Result<ArchivedRow>>> {
        if set.entries().is_empty() {
            return Ok(VecDeque::new());
        }
        self.archived.follow(set, &self.rest)?;
        let mut rows = VecDeque::new();
        while let Some(row) = self.archived.next(tiers, span, window).transpose() {
            rows.push_back(row);
            let Some(Ok(last)) = rows.back() else { continue };
            if rows.len() >= ARCHIVED_PER_WINDOW {
                let mut last = sort_key(span.incarnation, &last.key);
                if self.direction == Direction::Forward {
                    last.push(0);
                    window.end = last;
                } else {
                    window.start = last;
                }
                break;
            }
        }
        Ok(rows)
    }

    fn merge(
        &mut self,
        told: Vec<Told>,
        cold: &mut VecDeque<Result<ArchivedRow>>,
        window: &Range<Vec<u8>>,
    ) {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let forward = self.direction == Direction::Forward;
        for one in told {
            let row = match &one {
                Told::Row(row) | Told::Absent(row) => row,
                Told::Damaged(damage) => {
                    self.rows.push_back(Row::Damaged(damage.clone().into()));
                    continue;
                }
            };
            let key = row.key();
            // The window may have become shorter since the log was asked.
            if !is_inside(row.header.incarnation, key, window) {
                break;
            }
            while let Some(first) = cold.front() {
                let order = first.as_ref().map_or(Less, |first| (*first.key).cmp(key));
                let damaged = first.is_err();
                match if forward || damaged { order } else { order.reverse() } {
                    Less => self.rows.extend(cold.pop_front().map(Row::of)),
                    Equal => {
                        cold.pop_front();
                    }
                    Greater => break,
                }
            }
            if let Told::Row(row) = one {
                self.rows.push_back(Row::Warm(row));
            }
        }
        self.rows.extend(cold.drain(..).map(Row::of));
    }
}

impl Tiers {
    /// What the log says of the keys that these tags mean, inside the window, in order.
    fn look_tags(&self, tags: &[u32], span: &Span, window: &Range<Vec<u8>>) -> Result<Vec<Told>> {
        if tags.is_empty() {
            return Ok(Vec::new());
        }
        for seen in 1.. {
            let mut damage = Vec::new();
            let Some(mut found) = self.tagged(tags, span, window, &mut damage) else {
                continue;
            };
            if !damage.is_empty() && seen < DAMAGE_SEEN_MIN {
                continue;
            }
            if !found.is_sorted_by(|a, b| a.row.key() < b.row.key()) {
                found.sort_by(|a, b| (a.row.key(), b.named).cmp(&(b.row.key(), a.named)));
                found.dedup_by(|b, a| a.row.key() == b.row.key());
            }
            let mut told = Vec::with_capacity(found.len() + damage.len());
            for candidate in found {
                self.tell(candidate, span, &mut told)?;
            }
            told.extend(damage.into_iter().map(Told::Damaged));
            return Ok(told);
        }
        Ok(Vec::new())
    }

    /// The records of the span that the tags lead to. `None` when something moved meanwhile.
    fn tagged(
        &self,
        tags: &[u32],
        span: &Span,
        window: &Range<Vec<u8>>,
        damage: &mut Vec<Damage>,
    ) -> Option<Vec<Candidate>> {
        let table = self.segments.load();
        let mut places: Vec<(u32, Location, bool)> = Vec::with_capacity(tags.len() + 4);
        let stable = self.index.peek_all(tags, |tag, entry| {
            // All records are asked for before the first is looked at.
            if let Some(segment) = table.of(entry.location) {
                segment.prefetch(u64::from(entry.location.offset));
            }
            places.push((tag, entry.location, true));
        });
        if !stable {
            return None;
        }
        if !self.versions.is_empty() {
            for &tag in tags {
                let old = self.versions.warm_places(tag).into_iter();
                places.extend(old.map(|place| (tag, place, false)));
            }
        }
        let low = window.start.get(4..).unwrap_or(&[]);
        let high = window
            .end
            .get(4..)
            .filter(|_| window.end.get(..4) == Some(&span.incarnation.0.to_be_bytes()));
        let mut found = Vec::with_capacity(places.len());
        for (tag, place, named) in places {
            let segment = table.of(place)?;
            let offset = u64::from(place.offset);
            let record = match segment.record(offset) {
                Ok(record) => record,
                Err(one) => {
                    let told = segment.witness(tag, place.offset);
                    if told.is_none_or(|told| told.incarnation == span.incarnation) {
                        damage.push(one);
                    }
                    continue;
                }
            };
            let inside = record.header.incarnation == span.incarnation
                && record.key >= low
                && high.is_none_or(|high| record.key < high);
            if inside {
                let (segment, header) = (Arc::clone(segment), record.header);
                found.push(Candidate { row: WarmRow { segment, offset, header }, tag, named });
            }
        }
        Arc::ptr_eq(&table, &self.segments.load()).then_some(found)
    }

    /// What holds for a candidate's key at the moment.
    fn tell(&self, candidate: Candidate, span: &Span, told: &mut Vec<Told>) -> Result<()> {
        let Candidate { row, tag, named } = candidate;
        if !span.values && self.seed.hash(span.incarnation, row.key()).tag() != tag {
            // The key alone was read: its hash is its checksum.
            let record = row.segment.record(row.offset)?;
            let checked = row.segment.check_body(row.offset, &record);
            told.extend(checked.err().map(Told::Damaged));
            return Ok(());
        }
        if named && row.header.seq <= span.moment {
            let gone = row.header.kind == crate::format::record::RecordKind::Tombstone
                || !self.is_alive(row.header.deadline_ms);
            told.push(if gone { Told::Absent(row) } else { Told::Row(row) });
            return Ok(());
        }
        let hash = self.seed.hash(span.incarnation, row.key());
        let key = KeyRef { incarnation: span.incarnation, hash, key: row.key() };
        match self.old_hit(&key, span.moment) {
            Ok(Old::Hit(Hit::Warm { segment, offset, header })) => {
                told.push(Told::Row(WarmRow { segment, offset, header }));
            }
            Ok(Old::Absent) => told.push(Told::Absent(row)),
            // Where it lies in an archive, the walk over the archives meets it.
            Ok(Old::Hit(Hit::Cold(_)) | Old::Unknown) => {}
            Err(Error::Corrupt(damage)) => told.push(Told::Damaged(*damage)),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
