//! A segment as readers see it: one mapped file of the log, open or sealed.
//! Knows bytes and offsets; knows nothing of the index, of liveness, or of why it is cleaned.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::canary::{Canary, planted};
use crate::error::{Damage, Error, Result};
use crate::format::checksum::{Begun, crc};
use crate::format::cursor::FieldError;
use crate::format::record::{Record, RecordHeader, Shown, peek_key};
use crate::format::segment::{
    SEGMENT_FOOTER_LEN, SEGMENT_HEADER_LEN, SegmentFooter, SegmentHeader, SegmentKind,
};
use crate::format::trailer::{TrailerEntry, TrailerReader};
use crate::ids::{Incarnation, SegmentId, Slot};
use crate::manifest::SealedFacts;
use crate::value::Bytes;
use crate::value::pins::{FilePins, Pin, Pins, Site};
use crate::vfs::map::Map;
use crate::vfs::{Dir, File};

/// Bytes of a record that are asked for ahead where its usual length is not known; and the most.
const PREFETCH_LEN: u32 = 192;
/// Bytes of a record that are read in at once at most.
const FETCH_LEN_MAX: usize = 4096;
/// About what a record takes of a trailer.
const TRAILER_SHARE: u64 = 12;
/// A mark covers so many bytes of a segment; in a very long one, marks stand for several places.
const MARK_UNIT: u64 = 64;
/// Marks of one segment at most.
const MARKS_MAX: u64 = 1 << 20;
/// Bodies up to this length are checked on every read; longer ones once a mapping.
const CHECK_ALWAYS_LEN: u64 = 4096;

/// One segment. It stays readable for as long as anybody holds it, also after its file is unlinked.
#[derive(Debug)]
pub(crate) struct Segment {
    pub id: SegmentId,
    pub slot: Slot,
    pub kind: SegmentKind,
    pub created_ms: u64,
    pub nonce: u64,
    /// What every header's checksum here begins with.
    begun: Begun,
    pub file: Arc<dyn File>,
    pub map: Arc<Map>,
    /// The values that programs hold of it.
    pub pins: FilePins,
    /// The keys of its records were looked up in the archives.
    pub resolved: AtomicBool,
    /// Its records stand in the order of their keys as well as they can.
    gathered: AtomicBool,
    sealed: OnceLock<(SealedFacts, SegmentFooter)>,
    /// The trailer's checksum held once.
    trailer_checked: AtomicBool,
    /// One bit for each 4 KiB in which a long record starts: its body was checked.
    checked: Vec<AtomicU64>,
    /// One bit for each unit in which a record starts that the index no longer names. Made by the
    /// first mark.
    superseded: OnceLock<Box<[AtomicU64]>>,
    /// How many segments had entered the table of segments when this one had.
    entered: AtomicU32,
    /// Bytes of a record that are asked for ahead.
    prefetch_len: AtomicU32,
}

impl Segment {
    pub(crate) fn new(
        header: &SegmentHeader,
        slot: Slot,
        file: Arc<dyn File>,
        map: Arc<Map>,
    ) -> Arc<Self> {
        let words = usize::try_from(map.capacity() / CHECK_ALWAYS_LEN / 64).unwrap_or(0) + 1;
        Arc::new(Self {
            id: header.id,
            slot,
            kind: header.kind,
            created_ms: header.created_ms,
            nonce: header.nonce,
            begun: Begun::bound(header.nonce),
            file,
            pins: FilePins::new(header.id.to_string(), Arc::clone(&map)),
            map,
            resolved: AtomicBool::new(false),
            gathered: AtomicBool::new(false),
            sealed: OnceLock::new(),
            trailer_checked: AtomicBool::new(false),
            checked: (0..words).map(|_| AtomicU64::new(0)).collect(),
            superseded: OnceLock::new(),
            entered: AtomicU32::new(0),
            prefetch_len: AtomicU32::new(PREFETCH_LEN),
        })
    }

    /// What every header's checksum here begins with.
    #[inline]
    pub(crate) fn begun(&self) -> &Begun {
        &self.begun
    }

    /// The number under which it entered the table of segments: they rise.
    #[inline]
    pub(crate) fn entered(&self) -> u32 {
        self.entered.load(Ordering::Relaxed)
    }

    /// Whether its records stand in the order of their keys as well as they can.
    #[inline]
    pub(crate) fn is_gathered(&self) -> bool {
        self.gathered.load(Ordering::Relaxed)
    }

    pub(crate) fn set_gathered(&self) {
        self.gathered.store(true, Ordering::Relaxed);
    }

    /// Tells it that number, once, before others can see it there.
    pub(crate) fn set_entered(&self, number: u32) {
        self.entered.store(number, Ordering::Relaxed);
    }

    /// Opens a sealed segment and checks its header and footer against the manifest.
    pub(crate) fn open_sealed(
        dir: &dyn Dir,
        store: [u8; 16],
        id: SegmentId,
        slot: Slot,
        facts: &SealedFacts,
    ) -> Result<Arc<Self>> {
        let (header, file, map) = open_mapped(dir, store, id, facts.len)?;
        let this = Self::new(&header, slot, file, map);
        let at = facts.len.saturating_sub(SEGMENT_FOOTER_LEN as u64);
        let footer = SegmentFooter::decode(
            this.bytes_at(at, SEGMENT_FOOTER_LEN as u64).unwrap_or(&[]),
            this.nonce,
            at,
        );
        let footer = footer.map_err(|error| error.at("open segment", &id.to_string(), at))?;
        if footer.trailer_crc != facts.trailer_crc || header.kind != facts.kind {
            let (found, expected) = (footer.trailer_crc, facts.trailer_crc);
            let error = FieldError::new("trailer checksum of the manifest", found, expected);
            return Err(error.at("open segment", &id.to_string(), at).into());
        }
        this.set_sealed(*facts, footer);
        Ok(this)
    }

    pub(crate) fn set_sealed(&self, facts: SealedFacts, footer: SegmentFooter) {
        let usual = u32::try_from(usual_len(&footer)).unwrap_or(u32::MAX);
        self.prefetch_len.store(usual.min(PREFETCH_LEN), Ordering::Relaxed);
        let fresh = self.sealed.set((facts, footer)).is_ok();
        assert!(fresh, "a segment is sealed once");
    }

    pub(crate) fn sealed(&self) -> Option<&SealedFacts> {
        self.sealed.get().map(|(facts, _)| facts)
    }

    /// Where the records end, as far as readers may know.
    pub(crate) fn records_end(&self) -> u64 {
        self.sealed.get().map_or_else(|| self.map.published(), |(_, footer)| footer.records_end)
    }

    pub(crate) fn bytes_at(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let from = usize::try_from(offset).ok()?;
        self.map.slice(from..from.checked_add(usize::try_from(len).ok()?)?)
    }

    /// Asks for the first line of the record there, without waiting for it.
    #[inline]
    pub(crate) fn prefetch_start(&self, offset: u64) {
        if let Ok(at) = usize::try_from(offset) {
            self.map.prefetch_lines(at..at + 1);
        }
    }

    /// Asks for the record there, as far as its usual length goes.
    #[inline]
    pub(crate) fn prefetch(&self, offset: u64) {
        if let Ok(at) = usize::try_from(offset) {
            let len = self.prefetch_len.load(Ordering::Relaxed) as usize;
            self.map.prefetch_lines(at..at.saturating_add(len));
        }
    }

    /// Has the system read a record of the usual length there, where it is not in memory, in one
    /// go: a fault a page would wait twice where a record lies on two. Best effort; worth its call
    /// while memory is short of the log, for the kernel keeps pages that are read by calls longer
    /// than those of a map that it was told is read at random.
    pub(crate) fn fetch(&self, offset: u64) {
        let Some((_, footer)) = self.sealed.get().filter(|_| self.file.is_mapped()) else { return };
        let len = usual_len(footer)
            .min(footer.records_end.saturating_sub(offset))
            .min(FETCH_LEN_MAX as u64);
        let mut bytes = [0; FETCH_LEN_MAX];
        if let Some(bytes) = bytes.get_mut(..usize::try_from(len).unwrap_or(0)) {
            // Whatever fails here, the read through the map tells.
            drop(self.file.read_exact_at(bytes, offset));
        }
    }

    #[cold]
    pub(crate) fn damage(&self, doing: &'static str, offset: u64, error: FieldError) -> Damage {
        error.at(doing, &self.id.to_string(), offset)
    }

    /// The record at this offset: header and lengths checked, body not.
    #[expect(clippy::inline_always, reason = "else a hundred bytes are copied for each read")]
    #[inline(always)]
    pub(crate) fn record(&self, offset: u64) -> Result<Record<'_>, Damage> {
        let end = self.records_end();
        let bytes = self.bytes_at(offset, end.saturating_sub(offset)).unwrap_or(&[]);
        Record::decode_in(bytes, &self.begun, offset)
            .map_err(|error| self.damage("read record", offset, error))
    }

    /// The same for a place that the index named: where the records end is not asked.
    #[expect(clippy::inline_always, reason = "else a hundred bytes are copied for each read")]
    #[inline(always)]
    pub(crate) fn named_record(&self, offset: u64) -> Option<Record<'_>> {
        let bytes = self.map.slice_from(usize::try_from(offset).ok()?)?;
        Record::decode_in(bytes, &self.begun, offset).ok()
    }

    /// All bytes that may be read now.
    pub(crate) fn readable(&self) -> &[u8] {
        self.map.slice_from(0).unwrap_or(&[])
    }

    /// What a walk shows of the record at a place in these bytes, [`Segment::readable`], that the
    /// index named; `None` where [`Segment::named_record`] must tell.
    #[expect(clippy::inline_always, reason = "once a row of a walk")]
    #[inline(always)]
    pub(crate) fn shown<'b>(&self, bytes: &'b [u8], offset: u32) -> Option<Shown<'b>> {
        Shown::decode_in(bytes.get(offset as usize..)?, &self.begun, offset.into())
    }

    /// Incarnation and key of the record there, unchecked, as [`peek_key`] tells them.
    pub(crate) fn peek_key(&self, offset: u64) -> Option<(Incarnation, &[u8])> {
        peek_key(self.bytes_at(offset, self.records_end().checked_sub(offset)?)?)
    }

    /// The record at this offset, whose header was read from there before.
    pub(crate) fn record_of(
        &self,
        offset: u64,
        header: RecordHeader,
    ) -> Result<Record<'_>, Damage> {
        let bytes = self.bytes_at(offset, header.encoded_len()).unwrap_or(&[]);
        Record::with_header(header, bytes)
            .map_err(|error| self.damage("read record", offset, error))
    }

    /// Checks the body: on every read up to 4 KiB, once a mapping above that.
    pub(crate) fn check_body(&self, offset: u64, record: &Record<'_>) -> Result<(), Damage> {
        let long = record.header.encoded_len() > CHECK_ALWAYS_LEN;
        let unit = offset / CHECK_ALWAYS_LEN;
        let word = usize::try_from(unit / 64).ok().and_then(|index| self.checked.get(index));
        let bit = 1 << (unit % 64);
        if long && word.is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0) {
            return Ok(());
        }
        record.check_body().map_err(|error| self.damage("read record", offset, error))?;
        if long && let Some(word) = word {
            word.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The same for what a walk shows. `false` where `check_body` must tell.
    #[inline]
    pub(crate) fn is_sound(shown: &Shown<'_>) -> bool {
        shown.len() <= CHECK_ALWAYS_LEN && shown.is_sound()
    }

    /// Marks the record there: the index does not name it any more. Only behind the append lock,
    /// and before the change that superseded it is visible.
    pub(crate) fn mark_superseded(&self, offset: u64) {
        let marks = self.superseded.get_or_init(|| {
            let words = (self.map.capacity() / MARK_UNIT).clamp(1, MARKS_MAX).div_ceil(64);
            (0..words).map(|_| AtomicU64::new(0)).collect()
        });
        let (index, bit) = mark_of(offset, marks.len());
        if let Some(word) = marks.get(index) {
            word.fetch_or(bit, Ordering::Release);
        }
    }

    /// Whether the record there may be superseded. While it says no, the index names the record,
    /// if it named it when somebody looked.
    #[inline]
    pub(crate) fn may_be_superseded(&self, offset: u64) -> bool {
        self.marks().hold(offset)
    }

    /// The marks of records that the index no longer names, as far as there are any now.
    #[inline]
    pub(crate) fn marks(&self) -> Marks<'_> {
        Marks(self.superseded.get().map(|marks| &**marks))
    }

    /// Bytes of memory that the marks take.
    pub(crate) fn marks_len(&self) -> u64 {
        self.superseded.get().map_or(0, |marks| marks.len() as u64 * 8)
    }

    /// Has the system read the trailer in, without waiting for it.
    pub(crate) fn prefetch_trailer(&self) {
        if let Some((_, footer)) = self.sealed.get() {
            let end = footer.trailer_offset.saturating_add(footer.trailer_len.into());
            self.map.prefetch(footer.trailer_offset..end);
        }
    }

    /// The trailer, checked against the manifest's checksum.
    pub(crate) fn trailer(&self) -> Result<TrailerReader<'_>, Damage> {
        self.read_trailer(true)
    }

    fn read_trailer(&self, check: bool) -> Result<TrailerReader<'_>, Damage> {
        let Some((_, footer)) = self.sealed.get() else {
            let error = FieldError::new("trailer", "an open segment", "a sealed one");
            return Err(self.damage("read trailer", 0, error));
        };
        let at = footer.trailer_offset;
        let bytes = self.bytes_at(at, u64::from(footer.trailer_len)).unwrap_or(&[]);
        if check {
            let found = crc(bytes);
            if found != footer.trailer_crc && !planted(Canary::TrustTrailer) {
                let error = FieldError::new("trailer checksum", found, footer.trailer_crc);
                return Err(self.damage("read trailer", at, error));
            }
            self.trailer_checked.store(true, Ordering::Relaxed);
        }
        TrailerReader::decode(bytes).map_err(|error| self.damage("read trailer", at, error))
    }

    /// The trailer, its checksum computed once since the segment was opened: where many records are
    /// damaged, each asks.
    fn witnesses(&self) -> Option<TrailerReader<'_>> {
        self.read_trailer(!self.trailer_checked.load(Ordering::Relaxed)).ok()
    }

    /// What the trailer says of the record at `offset`: the second witness of a damaged header.
    pub(crate) fn witness(&self, tag: u32, offset: u32) -> Option<TrailerEntry> {
        self.witnesses()?.find(tag, offset).ok()?
    }

    /// The same when even the tag is unknown. Reads the whole trailer.
    pub(crate) fn witness_at(&self, offset: u32) -> Option<TrailerEntry> {
        self.witnesses()?.entries().filter_map(Result::ok).find(|entry| entry.offset == offset)
    }

    /// What the trailer says of every record that is damaged, by place. Reads every record.
    pub(crate) fn damaged_witnesses(&self) -> BTreeMap<u32, TrailerEntry> {
        let Some(trailer) = self.witnesses() else { return BTreeMap::new() };
        let entries = trailer.entries().filter_map(Result::ok);
        let is_sound = |entry: &TrailerEntry| {
            self.record(entry.offset.into()).is_ok_and(|record| record.check_body().is_ok())
        };
        let damaged = entries.filter(|entry| !is_sound(entry));
        damaged.map(|entry| (entry.offset, entry)).collect()
    }
}

/// The marks of one segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Marks<'s>(Option<&'s [AtomicU64]>);

impl Marks<'_> {
    pub(crate) const NONE: Self = Self(None);

    /// Whether the record there is marked, or shares its mark with one that is.
    #[inline]
    pub(crate) fn hold(self, offset: u64) -> bool {
        self.0.is_some_and(|marks| {
            let (index, bit) = mark_of(offset, marks.len());
            marks.get(index).is_none_or(|word| word.load(Ordering::Acquire) & bit != 0)
        })
    }
}

/// About how long a record of a sealed segment is.
fn usual_len(footer: &SegmentFooter) -> u64 {
    footer.records_end / (u64::from(footer.trailer_len) / TRAILER_SHARE).max(1)
}

/// Word and bit of the mark of a record at `offset`.
fn mark_of(offset: u64, words: usize) -> (usize, u64) {
    let unit = usize::try_from(offset / MARK_UNIT).unwrap_or(0);
    let index = unit / 64;
    // Nearly always there are as many words as units: a division saved.
    (if index < words { index } else { index % words }, 1 << (unit % 64))
}

impl Bytes for Segment {
    fn bytes(&self, range: Range<usize>) -> &[u8] {
        self.map.slice(range).unwrap_or(&[])
    }

    fn pin(&self, pins: &Pins, site: Site) -> Option<Arc<Pin>> {
        Some(self.pins.take(pins, site))
    }
}

/// Opens a segment's file, checks who it is, and maps `len` bytes for reading.
pub(crate) fn open_mapped(
    dir: &dyn Dir,
    store: [u8; 16],
    id: SegmentId,
    len: u64,
) -> Result<(SegmentHeader, Arc<dyn File>, Arc<Map>)> {
    let name = id.to_string();
    let io = |error| Error::io("open segment", dir.path().join(&name), error);
    let file = dir.open(&name).map_err(io)?;
    let found = file.len().map_err(io)?;
    if found < len || len < SEGMENT_HEADER_LEN as u64 {
        let error = FieldError::new("file length", found, format_args!("at least {len}"));
        return Err(error.at("open segment", &name, 0).into());
    }
    let map = file.map(len, len).map_err(io)?;
    let bytes = map.slice(0..SEGMENT_HEADER_LEN).unwrap_or(&[]);
    let header = SegmentHeader::decode(bytes).map_err(|e| e.at("open segment", &name, 0))?;
    if header.store != store || header.id != id {
        let found = format!("store {:02x?} segment {}", header.store, header.id);
        let error = FieldError::new("identity", found, "this store and this file name");
        return Err(error.at("open segment", &name, 0).into());
    }
    Ok((header, file, map))
}
