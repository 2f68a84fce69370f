//! What the log holds of one window of a walk: the records that the order's tags lead to.
//! Knows hints, index and segments; knows nothing of archives, of moments, or of who walks.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Damage, Result};
use crate::format::block::put_sort_key;
use crate::format::record::{Record, RecordHeader};
use crate::ids::{Incarnation, Slot};
use crate::tiers::Tiers;
use crate::tiers::order::IndexedKeys;
use crate::warm::index::leaf::Hint;
use crate::warm::index::order::Tagged;
use crate::warm::segment::Segment;
use crate::warm::table::SegmentTable;

/// Segments whose numbers are found at once.
const NUMBERS: usize = 32;

/// A record of the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WarmRow<'w> {
    pub segment: &'w Arc<Segment>,
    pub place: &'w Placed,
    pub record: Record<'w>,
}

/// Where a record of the log is, in the window's list of segments.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub header: RecordHeader,
    pub offset: u32,
    pub segment: u32,
    pub tag: u32,
    /// The index names it; else the version table does.
    pub named: bool,
}

impl<'w> WarmRow<'w> {
    /// Key and value, the checksum verified.
    pub(crate) fn pair(&self) -> Result<(&'w [u8], &'w [u8])> {
        self.segment.check_body(u64::from(self.place.offset), &self.record)?;
        Ok((self.record.key, self.record.value))
    }
}

/// What the log holds of a window.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    segments: Vec<Arc<Segment>>,
    /// Stands for the list, and slots for the numbers in it: cheaper than holding each segment, and
    /// for walks that go on without waiting for anybody.
    table: Option<Arc<SegmentTable>>,
    /// In order of keys, once sorted.
    pub found: Vec<Placed>,
    pub damage: Vec<Damage>,
    /// By the lowest bits of a slot: the number in the list that a segment had which had these.
    numbers: [u8; NUMBERS],
}

impl Looked {
    /// Empties the list; a table may stand for it.
    pub(crate) fn hold(&mut self, table: Option<Arc<SegmentTable>>) {
        self.segments.clear();
        self.table = table;
    }

    pub(crate) fn clear(&mut self) {
        self.hold(None);
        self.found.clear();
        self.damage.clear();
    }

    pub(crate) fn row<'w>(&'w self, place: &'w Placed) -> Option<WarmRow<'w>> {
        let segment = self.segment(place.segment)?;
        let record = segment.record_of(u64::from(place.offset), place.header).ok()?;
        Some(WarmRow { segment, place, record })
    }

    pub(crate) fn key(&self, place: &Placed) -> &[u8] {
        let segment = self.segment(place.segment);
        let record = segment
            .and_then(|segment| segment.record_of(u64::from(place.offset), place.header).ok());
        record.map_or(&[], |record| record.key)
    }

    /// The segment with this number.
    #[inline]
    pub(crate) fn segment(&self, number: u32) -> Option<&Arc<Segment>> {
        match &self.table {
            None => self.segments.get(number as usize),
            Some(table) => table.get(Slot(number)),
        }
    }

    /// The segment in this slot that was numbered, and its number.
    #[inline]
    pub(crate) fn at(&self, slot: Slot) -> Option<(u32, &Arc<Segment>)> {
        if let Some(table) = &self.table {
            return Some((slot.0, table.get(slot)?));
        }
        let is_it =
            |number: &usize| self.segments.get(*number).is_some_and(|segment| segment.slot == slot);
        let known = self.numbers.get(slot.0 as usize % NUMBERS).map(|&number| number.into());
        let search = || self.segments.iter().rposition(|segment| segment.slot == slot);
        let number = known.filter(is_it).or_else(search)?;
        Some((u32::try_from(number).ok()?, self.segments.get(number)?))
    }

    /// The number of a segment in the list.
    #[inline]
    pub(crate) fn number_of(&mut self, segment: &Arc<Segment>) -> u32 {
        if self.table.is_some() {
            return segment.slot.0;
        }
        let at = segment.slot.0 as usize % NUMBERS;
        let number = self.numbers.get(at).copied().unwrap_or(0);
        let known = self.segments.get(usize::from(number));
        if known.is_some_and(|known| Arc::ptr_eq(known, segment)) {
            return number.into();
        }
        let number = self.search_number_of(segment);
        if let (Some(place), Ok(number)) = (self.numbers.get_mut(at), u8::try_from(number)) {
            *place = number;
        }
        number
    }

    fn search_number_of(&mut self, segment: &Arc<Segment>) -> u32 {
        let known = self.segments.iter().rposition(|known| Arc::ptr_eq(known, segment));
        let number = known.unwrap_or_else(|| {
            if self.segments.is_empty() {
                self.segments.reserve(NUMBERS);
            }
            self.segments.push(Arc::clone(segment));
            self.segments.len() - 1
        });
        u32::try_from(number).unwrap_or(u32::MAX)
    }

    pub(crate) fn push(
        &mut self,
        segment: &Arc<Segment>,
        record: &Record<'_>,
        offset: u32,
        tag: u32,
        named: bool,
    ) {
        let segment = self.number_of(segment);
        self.found.push(Placed { header: record.header, offset, segment, tag, named });
    }

    pub(crate) fn sort(&mut self) {
        let mut found = std::mem::take(&mut self.found);
        if !found.is_sorted_by(|a, b| self.key(a) < self.key(b)) {
            found.sort_by(|a, b| (self.key(a), b.named).cmp(&(self.key(b), a.named)));
            found.dedup_by(|b, a| self.key(a) == self.key(b));
        }
        self.found = found;
    }
}

/// The keys of a window, as bounds of keys of one incarnation.
pub(crate) struct Bounds<'w> {
    pub incarnation: Incarnation,
    pub low: &'w [u8],
    pub high: Option<&'w [u8]>,
}

impl<'w> Bounds<'w> {
    pub(crate) fn of(incarnation: Incarnation, window: &'w Range<Vec<u8>>) -> Self {
        let of_span = Some(&incarnation.0.to_be_bytes()[..]);
        let low = window.start.get(4..).unwrap_or(&[]);
        let high = window.end.get(4..).filter(|_| window.end.get(..4) == of_span);
        Self { incarnation, low, high }
    }

    pub(crate) fn hold(&self, record: &Record<'_>) -> bool {
        record.header.incarnation == self.incarnation
            && record.key >= self.low
            && self.high.is_none_or(|high| record.key < high)
    }
}

impl Tiers {
    /// Finds the records that the tags lead to, inside the bounds. `false` when something moved
    /// meanwhile. Where hints are right, the index is not asked.
    pub(crate) fn look_tagged(
        &self,
        tags: &[Tagged],
        bounds: &Bounds<'_>,
        looked: &mut Looked,
    ) -> bool {
        looked.clear();
        let table = self.segments.load();
        // All records are asked for before the first is looked at.
        for place in tags.iter().filter_map(|one| one.hint.place()) {
            if let Some(segment) = table.of(place) {
                segment.prefetch(u64::from(place.offset));
            }
        }
        let mut unknown = Vec::new();
        for &one in tags {
            if !self.follow_hint(&table, one, bounds, looked) {
                unknown.push(one.tag);
            }
        }
        if unknown.is_empty() {
            return true;
        }
        let stable = self.look_up(&table, &unknown, bounds, looked);
        stable && Arc::ptr_eq(&table, &self.segments.load())
    }

    /// Whether the hint leads to the record that the index names; it is found then. A change that
    /// is visible to the walk marked the record before it became visible.
    fn follow_hint(
        &self,
        table: &SegmentTable,
        tagged: Tagged,
        bounds: &Bounds<'_>,
        looked: &mut Looked,
    ) -> bool {
        let Some(place) = tagged.hint.place() else { return false };
        let Some(segment) = table.of(place) else { return false };
        let offset = u64::from(place.offset);
        let Ok(record) = segment.record(offset) else { return false };
        let header = record.header;
        let is_newest = !segment.may_be_superseded(offset)
            && bounds.hold(&record)
            && self.seed.hash(header.incarnation, record.key).tag() == tagged.tag;
        if is_newest {
            looked.push(segment, &record, place.offset, tagged.tag, true);
        }
        is_newest
    }

    /// Asks the index where the records of these tags are, and tells the order what it did not
    /// know: once for all walks. Answers what it told, or nothing when something moved meanwhile.
    /// Keys that left the index are let go of.
    pub(crate) fn learn(&self, tags: &[u32], learned: &mut Vec<Tagged>) {
        let table = self.segments.load();
        let entered = table.entered();
        let mut places = Vec::with_capacity(tags.len());
        let mut stable = self.index.peek_all(tags, |tag, entry| {
            if let Some(segment) = table.of(entry.location) {
                segment.prefetch(u64::from(entry.location.offset));
            }
            places.push((tag, entry.location));
        });
        let (mut keys, mut told) = (Vec::new(), Vec::with_capacity(places.len()));
        for &(tag, place) in &places {
            let Some(segment) = table.of(place) else { return };
            let Some(record) = segment.named_record(u64::from(place.offset)) else { continue };
            let from = keys.len();
            put_sort_key(&mut keys, record.header.incarnation, record.key);
            told.push((from..keys.len(), Tagged { tag, hint: Hint::at(place), entered }));
        }
        stable &= Arc::ptr_eq(&table, &self.segments.load());
        if !stable {
            return;
        }
        let source = IndexedKeys::new(self);
        self.order.note_hints(&source, entered, |note| {
            for (key, one) in &told {
                note(keys.get(key.clone()).unwrap_or(&[]), one.tag, one.hint);
            }
        });
        learned.extend(told.into_iter().map(|(_, one)| one));
    }

    /// Asks the index, and the version table, for the records of these tags.
    fn look_up(
        &self,
        table: &SegmentTable,
        tags: &[u32],
        bounds: &Bounds<'_>,
        looked: &mut Looked,
    ) -> bool {
        let mut places = Vec::with_capacity(tags.len() + 4);
        let stable = self.index.peek_all(tags, |tag, entry| {
            if let Some(segment) = table.of(entry.location) {
                segment.prefetch(u64::from(entry.location.offset));
            }
            places.push((tag, entry.location, true));
        });
        if !self.versions.is_empty() {
            for &tag in tags {
                let old = self.versions.warm_places(tag).into_iter();
                places.extend(old.map(|place| (tag, place, false)));
            }
        }
        for (tag, place, named) in places {
            let Some(segment) = table.of(place) else { return false };
            let record = match segment.record(u64::from(place.offset)) {
                Ok(record) => record,
                Err(damage) => {
                    let told = segment.witness(tag, place.offset);
                    if told.is_none_or(|told| told.incarnation == bounds.incarnation) {
                        looked.damage.push(damage);
                    }
                    continue;
                }
            };
            // A key that rotted may be another one now, of this window or not.
            if record.header.incarnation == bounds.incarnation && !self.has_tag(&record, tag) {
                let damage = segment.check_body(u64::from(place.offset), &record).err();
                looked.damage.extend(damage);
            } else if bounds.hold(&record) {
                looked.push(segment, &record, place.offset, tag, named);
            }
        }
        stable
    }

    /// Whether the key of a record has the tag under which the index names it. Where not, the key
    /// rotted.
    pub(crate) fn has_tag(&self, record: &Record<'_>, tag: u32) -> bool {
        self.seed.hash(record.header.incarnation, record.key).tag() == tag
    }
}
