//! One key through the tiers: the hot copy, the log, the archives. Damage stops here.
//! Knows how a miss is told from a move; knows nothing of who asks or of what it admits.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::cold::reader::Found;
use crate::error::{Damage, Error, Result};
use crate::format::record::{Record, RecordHeader, RecordKind};
use crate::hash::KeyHash;
use crate::hot::HotKey;
use crate::ids::{ArchiveId, Incarnation, Location, Seq};
use crate::tiers::Tiers;
use crate::tiers::tally::Answer;
use crate::value::Value;
use crate::value::pins::Site;
use crate::warm::segment::Segment;
use crate::warm::table::SegmentTable;
use crate::warm::versions::OldPlace;

/// A key, hashed once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyRef<'a> {
    pub incarnation: Incarnation,
    pub hash: KeyHash,
    pub key: &'a [u8],
}

impl<'a> KeyRef<'a> {
    /// The same as the hot tier takes it.
    pub(crate) fn hot(&self) -> HotKey<'a> {
        HotKey { hash: self.hash, incarnation: self.incarnation, key: self.key }
    }
}

/// The newest version of a key that is there, and where it was found.
#[derive(Debug)]
pub(crate) enum Hit {
    Warm { segment: Arc<Segment>, offset: u64, header: RecordHeader },
    Cold(Found),
}

impl Hit {
    pub(crate) fn seq(&self) -> Seq {
        match self {
            Self::Warm { header, .. } => header.seq,
            Self::Cold(found) => found.seq,
        }
    }

    pub(crate) fn deadline_ms(&self) -> u64 {
        match self {
            Self::Warm { header, .. } => header.deadline_ms,
            Self::Cold(found) => found.deadline_ms,
        }
    }

    pub(crate) fn stored_len(&self) -> u64 {
        match self {
            Self::Warm { header, .. } => header.encoded_len(),
            Self::Cold(found) => found.encoded_len,
        }
    }

    /// The value, for as long as a call takes; its body was checked.
    pub(crate) fn value(&self, key: &[u8]) -> Value {
        match self {
            Self::Warm { segment, offset, header } => {
                let owner: Arc<Segment> = Arc::clone(segment);
                Value::mapped(owner, value_range(*offset, key.len(), header.value_len as usize))
            }
            Self::Cold(found) => found.value.clone(),
        }
    }

    /// The value, for a program to keep: counted at the place that asked for it.
    pub(crate) fn value_for(&self, key: &[u8], tiers: &Tiers, site: Site) -> Value {
        match self {
            Self::Warm { segment, offset, header } => {
                let lens = (key.len(), header.value_len as usize);
                tiers.value_for(segment, *offset, lens, site)
            }
            Self::Cold(found) => found.value.clone().counted(&tiers.pins, site),
        }
    }
}

/// A version that is there, where it lies: its segment cannot go while this lives.
#[derive(Debug)]
pub(crate) enum Seen<'s> {
    Warm { segment: &'s Arc<Segment>, offset: u64, record: Record<'s> },
    Cold(Found),
}

impl Seen<'_> {
    pub(crate) fn seq(&self) -> Seq {
        match self {
            Self::Warm { record, .. } => record.header.seq,
            Self::Cold(found) => found.seq,
        }
    }

    pub(crate) fn deadline_ms(&self) -> u64 {
        match self {
            Self::Warm { record, .. } => record.header.deadline_ms,
            Self::Cold(found) => found.deadline_ms,
        }
    }

    pub(crate) fn stored_len(&self) -> u64 {
        match self {
            Self::Warm { record, .. } => record.header.encoded_len(),
            Self::Cold(found) => found.encoded_len,
        }
    }

    /// The value's bytes; its body was checked.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Warm { record, .. } => record.value,
            Self::Cold(found) => &found.value,
        }
    }

    /// The value, to be kept.
    pub(crate) fn value_for(&self, tiers: &Tiers, site: Site) -> Value {
        match self {
            Self::Warm { segment, offset, record } => {
                let lens = (record.key.len(), record.value.len());
                tiers.value_for(segment, *offset, lens, site)
            }
            Self::Cold(found) => found.value.clone().counted(&tiers.pins, site),
        }
    }

    fn into_hit(self) -> Hit {
        match self {
            Self::Warm { segment, offset, record } => {
                Hit::Warm { segment: Arc::clone(segment), offset, header: record.header }
            }
            Self::Cold(found) => Hit::Cold(found),
        }
    }
}

/// What one look at the log said.
enum Looked<'t> {
    Seen(Seen<'t>),
    Absent,
    /// No record in the log: ask the archives.
    Miss,
    /// Something moved while looking.
    Again,
}

/// What the version table says of a key.
#[derive(Debug)]
pub(crate) enum Old {
    Hit(Hit),
    /// The key was absent at the moment.
    Absent,
    /// Nothing.
    Unknown,
}

/// How often damage must be seen in the same place before it is believed: a record may move, and
/// its slot be filled again, between the look at the index and the look at the segment.
const DAMAGE_SEEN_MIN: u32 = 3;

/// Where the value of a record at `offset` lies in its file.
fn value_range(offset: u64, key_len: usize, value_len: usize) -> Range<usize> {
    let at = offset + crate::format::record::RECORD_HEADER_LEN as u64;
    let from = usize::try_from(at).unwrap_or(0) + key_len;
    from..from + value_len
}

impl Tiers {
    /// The value of a record of the log, without a copy, counted at a place in the program. `lens`
    /// are those of key and value.
    pub(crate) fn value_for(
        &self,
        segment: &Arc<Segment>,
        offset: u64,
        lens: (usize, usize),
        site: Site,
    ) -> Value {
        let range = value_range(offset, lens.0, lens.1);
        Value::mapped(segment.pins.take(&self.pins, site), range)
    }

    /// The newest version of a key, unless it is absent, deleted or expired. The hot tier is the
    /// caller's: it answers before this is asked.
    pub(crate) fn newest_hit(&self, key: &KeyRef<'_>) -> Result<Option<Hit>> {
        self.hit_at(key, None)
    }

    /// The version of a key that holds at a moment that the caller holds, or the newest one.
    pub(crate) fn hit_at(&self, key: &KeyRef<'_>, moment: Option<Seq>) -> Result<Option<Hit>> {
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "a method's path holds for one lifetime, the closure for all"
        )]
        self.read_at(key, moment, |seen| seen.into_hit())
    }

    /// Hands that version to `read`, where it lies.
    pub(crate) fn read_at<R>(
        &self,
        key: &KeyRef<'_>,
        moment: Option<Seq>,
        read: impl FnOnce(Seen<'_>) -> R,
    ) -> Result<Option<R>> {
        let mut damaged = 0;
        loop {
            let moves = self.moves.load(Ordering::Acquire);
            let table = self.segments.load();
            match self.look_warm(&table, key, moment) {
                Ok(Looked::Seen(seen)) => {
                    let cold = matches!(seen, Seen::Cold(_));
                    self.counters.reads.add(if cold { Answer::Cold } else { Answer::Warm }, 1);
                    return Ok(Some(read(seen)));
                }
                Ok(Looked::Absent) => {
                    self.counters.reads.add(Answer::Miss, 1);
                    return Ok(None);
                }
                Ok(Looked::Again) => std::hint::spin_loop(),
                Err(Error::Corrupt(damage)) => {
                    damaged += 1;
                    if damaged >= DAMAGE_SEEN_MIN {
                        self.note_read_damage(&damage, key.hash.tag());
                        return Err(Error::Corrupt(damage));
                    }
                }
                Err(error) => return Err(error),
                Ok(Looked::Miss) => {
                    let found = self.look_cold(key, moment)?;
                    // What an archive lost meanwhile for a newer version is in the version table.
                    let lost = || moment.is_some_and(|at| self.versions.at(key.hash, at).is_some());
                    if found.is_some() || moves == self.moves.load(Ordering::Acquire) && !lost() {
                        let cold = found.is_some();
                        self.counters.reads.add(if cold { Answer::Cold } else { Answer::Miss }, 1);
                        return Ok(found.map(|found| read(Seen::Cold(found))));
                    }
                }
            }
        }
    }

    fn look_cold(&self, key: &KeyRef<'_>, moment: Option<Seq>) -> Result<Option<Found>> {
        let set = self.cold.load();
        if set.entries().is_empty() {
            return Ok(None);
        }
        let found = set.find(key.hash, key.incarnation, key.key)?;
        let found = found.map(|(found, _)| found);
        let holds = |found: &Found| moment.is_none_or(|moment| found.seq <= moment);
        Ok(found.filter(|found| holds(found) && self.is_alive(found.deadline_ms)))
    }

    /// Whether a deadline lies ahead, or there is none.
    pub(crate) fn is_alive(&self, deadline_ms: u64) -> bool {
        deadline_ms == 0 || deadline_ms > self.clock.now_ms()
    }

    fn look_warm<'t>(
        &self,
        table: &'t SegmentTable,
        key: &KeyRef<'_>,
        moment: Option<Seq>,
    ) -> Result<Looked<'t>> {
        let (mut stale, mut seen) = (false, None);
        self.index.find(key.hash.tag(), |entry| {
            let Some(segment) = table.of(entry.location) else {
                stale = true;
                return Ok(false);
            };
            // All lines of a short record at once, not one behind the other.
            segment.prefetch(u64::from(entry.location.offset));
            if self.pages.short.load(Ordering::Relaxed) {
                segment.fetch(u64::from(entry.location.offset));
            }
            let record = segment.record(u64::from(entry.location.offset))?;
            let same = is_record_of(segment, entry.location, &record, key)?;
            if same {
                seen = Some((segment, u64::from(entry.location.offset), record));
            }
            Ok::<_, Damage>(same)
        })?;
        let Some((segment, offset, record)) = seen else {
            return match moment {
                _ if stale => Ok(Looked::Again),
                Some(moment) => self.look_old(table, key, moment),
                None => Ok(Looked::Miss),
            };
        };
        let seq = record.header.seq;
        if let Some(moment) = moment
            && seq > moment
        {
            return self.look_old(table, key, moment);
        }
        if record.header.batch {
            let visible = self.visible();
            if seq > visible {
                // A batch that is not visible yet: the version before it answers.
                let looked = self.look_old(table, key, visible)?;
                let published = matches!(looked, Looked::Miss) && self.visible() >= seq;
                return Ok(if published { Looked::Again } else { looked });
            }
        }
        self.judge_record(segment, offset, record)
    }

    fn judge_record<'t>(
        &self,
        segment: &'t Arc<Segment>,
        offset: u64,
        record: Record<'t>,
    ) -> Result<Looked<'t>> {
        let header = &record.header;
        if header.kind == RecordKind::Tombstone || !self.is_alive(header.deadline_ms) {
            return Ok(Looked::Absent);
        }
        segment.check_body(offset, &record)?;
        Ok(Looked::Seen(Seen::Warm { segment, offset, record }))
    }

    /// The version of a key that the table of versions keeps for the moment.
    pub(crate) fn old_hit(&self, key: &KeyRef<'_>, moment: Seq) -> Result<Old> {
        loop {
            let table = self.segments.load();
            match self.look_old(&table, key, moment)? {
                Looked::Seen(seen) => return Ok(Old::Hit(seen.into_hit())),
                Looked::Absent => return Ok(Old::Absent),
                Looked::Miss => return Ok(Old::Unknown),
                Looked::Again => {}
            }
        }
    }

    /// The version that the index does not name any more and that holds at the moment. A miss says
    /// that there is none: an archived one that is live may hold.
    fn look_old<'t>(
        &self,
        table: &'t SegmentTable,
        key: &KeyRef<'_>,
        moment: Seq,
    ) -> Result<Looked<'t>> {
        let Some(old) = self.versions.at(key.hash, moment) else { return Ok(Looked::Miss) };
        match old.place {
            OldPlace::Gone => Ok(Looked::Absent),
            OldPlace::Warm(location) => {
                let Some(segment) = table.of(location) else { return Ok(Looked::Again) };
                let offset = u64::from(location.offset);
                let record = segment.record(offset)?;
                if record.header.seq != old.seq || !is_key(segment, location, key)? {
                    return Ok(Looked::Again);
                }
                self.judge_record(segment, offset, record)
            }
            OldPlace::Cold { archive, ordinal } => {
                let set = self.cold.load();
                let Some(entry) = set.get(ArchiveId(archive)) else { return Ok(Looked::Again) };
                let found = entry.archive.find(key.hash, key.incarnation, key.key)?;
                Ok(match found.filter(|found| found.ordinal == ordinal) {
                    None => Looked::Again,
                    Some(found) if !self.is_alive(found.deadline_ms) => Looked::Absent,
                    Some(found) => Looked::Seen(Seen::Cold(found)),
                })
            }
        }
    }

    /// Whether the record with this `seq` is still the newest of its key: what admission to the hot
    /// tier asks under the shard's lock.
    pub(crate) fn is_newest(&self, key: &KeyRef<'_>, seq: Seq, moves: u64) -> bool {
        let table = self.segments.load();
        let found = self.index.find(key.hash.tag(), |entry| {
            let Some(segment) = table.of(entry.location) else { return Err(()) };
            is_key(segment, entry.location, key).map_err(|_| ())
        });
        match found {
            Ok(Some(entry)) => table.of(entry.location).is_some_and(|segment| {
                let record = segment.record(u64::from(entry.location.offset));
                record.is_ok_and(|record| record.header.seq == seq)
            }),
            Ok(None) => moves == self.moves.load(Ordering::Acquire),
            Err(()) => false,
        }
    }
}

/// Whether the record there is this key's. A record whose body does not hold may be anybody's with
/// the same tag, so its damage is the answer.
fn is_key(segment: &Segment, location: Location, key: &KeyRef<'_>) -> Result<bool, Damage> {
    let record = segment.record(u64::from(location.offset))?;
    is_record_of(segment, location, &record, key)
}

pub(crate) fn is_record_of(
    segment: &Segment,
    location: Location,
    record: &Record<'_>,
    key: &KeyRef<'_>,
) -> Result<bool, Damage> {
    if record.header.incarnation == key.incarnation && record.key == key.key {
        return Ok(true);
    }
    segment.check_body(u64::from(location.offset), record)?;
    Ok(false)
}
