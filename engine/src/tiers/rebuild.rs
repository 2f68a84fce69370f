//! The index and the accounts from the trailers: all segments at once, a window of tags at a time,
//! so that the index is written from its first bucket to its last and read nowhere.
//! Knows what a trailer says; knows nothing of files, or of how a segment came to be sealed.

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::{Damage, Result};
use crate::format::cursor::FieldError;
use crate::format::deadbits::{DeadBitmap, DeadBits};
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::format::trailer::{TrailerCursor, TrailerEntry};
use crate::hash::HashSeed;
use crate::ids::{Incarnation, Location, SegmentId};
use crate::warm::account::{SegmentAccount, Weight};
use crate::warm::index::bucket::IndexEntry;
use crate::warm::index::point::{Filling, IndexWriter, PointIndex};
use crate::warm::segment::Segment;
use crate::warm::table::SegmentTable;

/// Entries that a window of tags holds on average: they and their order fit the second cache.
const WINDOW_COUNT: u64 = 2048;

/// Keys that share a tag by chance are never so many. Behind these, a trailer is believed only
/// where the key's own hash agrees: whoever forges one must not make all keys neighbours.
const SAME_TAG_MAX: usize = 16;

/// What the trailers add up to.
pub(crate) struct Rebuilt {
    pub index: PointIndex,
    pub writer: IndexWriter,
    /// By slot.
    pub accounts: Vec<Option<SegmentAccount>>,
    pub damage: Vec<Damage>,
}

/// Makes index and accounts anew. Records of incarnations that are not `current` count as dead.
pub(crate) fn rebuild(
    table: &SegmentTable,
    bits: &DeadBits,
    current: &HashSet<u32>,
    seed: HashSeed,
) -> Result<Rebuilt> {
    let (accounts, damage, liars) = (accounts_of(table), Vec::new(), HashSet::new());
    let mut merge = Merge { current, seed, accounts, damage, liars };
    let mut streams = Vec::new();
    let mut expected = 0;
    // Piece by piece, and in turns with all others, each piece would bring a readahead's worth of
    // records with it.
    table.iter().for_each(|segment| segment.prefetch_trailer());
    for segment in table.iter() {
        match segment.trailer() {
            Ok(trailer) => {
                expected += u64::from(trailer.count());
                let dead = bits.of(segment.id.0);
                streams.push(Stream { segment, cursor: trailer.cursor(), dead, broken: false });
            }
            Err(damage) => merge.damage.push(damage),
        }
    }
    let (index, writer) = PointIndex::filled(expected, |filling| {
        merge.all(&mut streams, expected, filling);
        Ok(())
    })?;
    let Merge { accounts, damage, .. } = merge;
    Ok(Rebuilt { index, writer, accounts, damage })
}

/// An account for each segment of the table, by slot, with nothing alive.
pub(crate) fn accounts_of(table: &SegmentTable) -> Vec<Option<SegmentAccount>> {
    let mut accounts = Vec::new();
    for segment in table.iter() {
        let slot = segment.slot.0 as usize;
        if slot >= accounts.len() {
            accounts.resize_with(slot + 1, || None);
        }
        let mut account = SegmentAccount::new(segment.created_ms);
        account.record_bytes = segment.records_end().saturating_sub(SEGMENT_HEADER_LEN as u64);
        if let Some(place) = accounts.get_mut(slot) {
            *place = Some(account);
        }
    }
    accounts
}

/// The trailer of one segment, read as far as the window needs.
struct Stream<'t> {
    segment: &'t Arc<Segment>,
    cursor: TrailerCursor<'t>,
    dead: Option<&'t DeadBitmap>,
    /// It does not decode from here on.
    broken: bool,
}

/// An entry of the window, and which stream it is of.
#[derive(Clone, Copy)]
struct Candidate<'t> {
    segment: &'t Arc<Segment>,
    entry: TrailerEntry,
}

struct Merge<'t> {
    current: &'t HashSet<u32>,
    seed: HashSeed,
    accounts: Vec<Option<SegmentAccount>>,
    damage: Vec<Damage>,
    /// Segments whose trailers name tags that their keys do not have.
    liars: HashSet<SegmentId>,
}

impl Merge<'_> {
    fn all<'t>(&mut self, streams: &mut [Stream<'t>], expected: u64, filling: &mut Filling<'_>) {
        let windows = expected.div_ceil(WINDOW_COUNT).max(1);
        let mut window: Vec<Candidate<'t>> = Vec::new();
        // The tag, and the candidate's place in the window.
        let mut order: Vec<u64> = Vec::new();
        for number in 1..=windows {
            let end = u64::try_from((u128::from(number) << 32) / u128::from(windows)).unwrap_or(0);
            window.clear();
            for stream in streams.iter_mut().filter(|stream| !stream.broken) {
                self.read(stream, end, &mut window);
            }
            order.clear();
            let tagged = (0_u64..).zip(&window);
            order.extend(tagged.map(|(at, one)| u64::from(one.entry.tag) << 32 | at));
            order.sort_unstable();
            self.take(&window, &order, filling);
        }
    }

    /// Collects the entries of one trailer that are below `end` and not known to be dead.
    fn read<'t>(&mut self, stream: &mut Stream<'t>, end: u64, window: &mut Vec<Candidate<'t>>) {
        let Stream { segment, cursor, dead, .. } = stream;
        let mut last = (Incarnation(0), false);
        let read = cursor.read_below(end, |number, entry| {
            if entry.incarnation != last.0 {
                last = (entry.incarnation, self.current.contains(&entry.incarnation.0));
            }
            let dead = entry.superseded || dead.is_some_and(|bitmap| bitmap.is_set(number));
            if last.1 && !dead {
                window.push(Candidate { segment, entry: *entry });
            }
        });
        if let Err(error) = read {
            self.damage.push(segment.damage("read trailer", 0, error));
            stream.broken = true;
        }
    }

    /// Enters the newest record of each key of a window.
    fn take(&mut self, window: &[Candidate<'_>], order: &[u64], filling: &mut Filling<'_>) {
        let at = |tagged: &u64| window.get(usize::try_from(tagged & 0xFFFF_FFFF).ok()?);
        let same_tag = |a: &u64, b: &u64| a >> 32 == b >> 32;
        for several in order.chunk_by(same_tag).filter(|chunk| chunk.len() > 1) {
            for one in several.iter().filter_map(at) {
                one.segment.prefetch(u64::from(one.entry.offset));
            }
        }
        let mut several: Vec<&Candidate<'_>> = Vec::new();
        for chunk in order.chunk_by(same_tag) {
            if let [single] = chunk {
                if let Some(one) = at(single) {
                    self.enter(one, filling);
                }
                continue;
            }
            several.clear();
            several.extend(chunk.iter().filter_map(at));
            several.sort_by_key(|one| std::cmp::Reverse(one.entry.seq));
            let mut kept: Vec<&Candidate<'_>> = Vec::new();
            for one in &several {
                if kept.len() >= SAME_TAG_MAX && !self.has_tag(one) {
                    continue;
                }
                if !kept.iter().any(|newer| same_key(newer, one)) {
                    kept.push(one);
                    self.enter(one, filling);
                }
            }
        }
    }

    /// Whether the key of a record has the tag that the trailer tells. Names the segment, once,
    /// when not.
    fn has_tag(&mut self, one: &Candidate<'_>) -> bool {
        let offset = u64::from(one.entry.offset);
        let Ok(record) = one.segment.record(offset) else { return true };
        let tag = self.seed.hash(record.header.incarnation, record.key).tag();
        if tag != one.entry.tag && self.liars.insert(one.segment.id) {
            let error = FieldError::new("trailer tag", one.entry.tag, tag);
            self.damage.push(one.segment.damage("read trailer", offset, error));
        }
        tag == one.entry.tag
    }

    fn enter(&mut self, one: &Candidate<'_>, filling: &mut Filling<'_>) {
        let slot = one.segment.slot;
        let TrailerEntry { tag, offset, tombstone, .. } = one.entry;
        let location = Location::new(slot, offset);
        filling.push(IndexEntry { tag, location, tombstone, touched: false });
        if let Some(Some(account)) = self.accounts.get_mut(slot.0 as usize) {
            account.revive(&Weight::told(&one.entry));
        }
    }
}

/// Whether two records are of the same key. A record that cannot be read is taken for it: its
/// damage must not hide behind an older version.
fn same_key(a: &Candidate<'_>, b: &Candidate<'_>) -> bool {
    let a = a.segment.record(u64::from(a.entry.offset));
    let b = b.segment.record(u64::from(b.entry.offset));
    match (a, b) {
        (Ok(a), Ok(b)) => a.header.incarnation == b.header.incarnation && a.key == b.key,
        _ => true,
    }
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
