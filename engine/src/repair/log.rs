//! One sealed segment: its sound records, and those that its trailer or their headers still name.
//! Knows one file; knows nothing of other files or of which version is the newest.

use std::collections::HashSet;

use crate::format::checksum::crc;
use crate::format::cursor::FieldError;
use crate::format::deadbits::DeadBitmap;
use crate::format::record::{RECORD_HEADER_LEN, Record, RecordKind, body_crc};
use crate::format::segment::{
    SEGMENT_FOOTER_LEN, SEGMENT_HEADER_LEN, SegmentFooter, SegmentHeader,
};
use crate::format::trailer::{TRAILER_MAGIC, TrailerEntry, TrailerReader};
use crate::hash::HashSeed;
use crate::ids::Seq;
use crate::manifest::FileState;
use crate::repair::image::Image;
use crate::repair::{Find, Lost, Sound};

/// The next-of of a clear record's value.
pub(super) fn clear_of(record: &Record<'_>) -> Option<Find<'static>> {
    let next = u32::from_le_bytes(*record.value.first_chunk::<4>()?);
    Some(Find::Clear(record.header.seq, record.header.incarnation, next))
}

/// What a sound header tells of a record whose body is not. The key may be what is damaged: then
/// the tag is nobody's, and whose record is lost stays unknown.
pub(super) fn lost_body(record: &Record<'_>, seed: Option<&HashSeed>) -> Option<Find<'static>> {
    let header = &record.header;
    if !matches!(header.kind, RecordKind::Put | RecordKind::Tombstone) || header.old {
        return None;
    }
    Some(Find::Lost(Lost {
        incarnation: header.incarnation,
        tag: seed.map(|seed| seed.hash(header.incarnation, record.key).tag()),
        seq: header.seq,
        deadline_ms: header.deadline_ms,
        tombstone: header.kind == RecordKind::Tombstone,
    }))
}

/// A record's place and whether it is sound.
pub(super) enum Place<'a> {
    Sound(u64, Record<'a>),
    /// The header holds, the body does not.
    Broken(u64, Record<'a>),
    /// Nothing holds from here to there.
    Hole(u64, u64),
}

/// Walks everything between `SEGMENT_HEADER_LEN` and `end` that looks like a record.
pub(super) fn walk_places<'a>(
    image: &'a Image,
    nonce: u64,
    end: u64,
    each: &mut dyn FnMut(Place<'a>),
) {
    let mut offset = SEGMENT_HEADER_LEN as u64;
    let mut hole: Option<u64> = None;
    while offset + RECORD_HEADER_LEN as u64 <= end {
        let bytes = image.slice(offset, end - offset).unwrap_or_default();
        let Ok(record) = Record::decode(bytes, nonce, offset) else {
            hole = hole.or(Some(offset));
            offset += 8;
            continue;
        };
        if let Some(from) = hole.take() {
            each(Place::Hole(from, offset));
        }
        let sound = record.check_body().is_ok();
        let len = record.header.encoded_len();
        each(if sound { Place::Sound(offset, record) } else { Place::Broken(offset, record) });
        offset += len;
    }
    if let Some(from) = hole {
        each(Place::Hole(from, end));
    }
}

/// The footer of a sealed segment, and where it stands.
pub(super) fn find_footer(image: &Image) -> Option<(SegmentFooter, u64)> {
    let nonce = SegmentHeader::decode(image.rest(0)).ok()?.nonce;
    let at = |offset: u64| {
        let bytes = image.slice(offset, SEGMENT_FOOTER_LEN as u64)?;
        SegmentFooter::decode(bytes, nonce, offset).ok().map(|footer| (footer, offset))
    };
    if let FileState::SealedSegment(facts) = image.state {
        return at(facts.len.checked_sub(SEGMENT_FOOTER_LEN as u64)?);
    }
    let mut offset = SEGMENT_HEADER_LEN as u64;
    while offset + SEGMENT_FOOTER_LEN as u64 <= image.len {
        if image.slice(offset, 8).is_some_and(|bytes| bytes == b"TRCEND01")
            && let Some(found) = at(offset)
        {
            return Some(found);
        }
        offset += 8;
    }
    None
}

/// The trailer's entries, where its checksum holds; without a footer they are looked for.
fn trailer_entries(image: &Image, footer: Option<&SegmentFooter>) -> Option<Vec<TrailerEntry>> {
    let expected = match (image.state, footer) {
        (FileState::SealedSegment(facts), _) => facts.trailer_crc,
        (_, Some(footer)) => footer.trailer_crc,
        _ => return None,
    };
    let sound = |offset: u64, len: u64| {
        let bytes = image.slice(offset, len).filter(|bytes| crc(bytes) == expected)?;
        TrailerReader::decode(bytes).ok()?.entries().collect::<Result<Vec<_>, _>>().ok()
    };
    if let Some(footer) = footer {
        return sound(footer.trailer_offset, u64::from(footer.trailer_len));
    }
    let FileState::SealedSegment(facts) = image.state else { return None };
    // A forged manifest may say any length.
    let end = facts.len.min(image.len).checked_sub(SEGMENT_FOOTER_LEN as u64)?;
    let mut offset = SEGMENT_HEADER_LEN as u64;
    // What looks like a trailer and is none costs its checksum; a file made of such is given up.
    let mut patience = image.len.saturating_mul(64);
    while offset < end && patience > 0 {
        if image.slice(offset, 8).is_some_and(|bytes| bytes == TRAILER_MAGIC) {
            patience = patience.saturating_sub((end - offset) * 8);
            // Its length is known but for the padding in front of the footer.
            let found =
                (0..8).find_map(|padding| sound(offset, (end - offset).checked_sub(padding)?));
            if found.is_some() {
                return found;
            }
        }
        offset += 8;
    }
    None
}

/// The records of a segment by what became of them.
struct Places<'a> {
    sound: Vec<(u64, Record<'a>)>,
    /// With the record where its header holds.
    broken: Vec<(u64, Option<Record<'a>>)>,
}

fn sort_places<'a>(image: &'a Image, nonce: u64, footer: Option<&SegmentFooter>) -> Places<'a> {
    let end = footer.map_or(image.len, |footer| footer.records_end);
    let mut places = Places { sound: Vec::new(), broken: Vec::new() };
    walk_places(image, nonce, end, &mut |place| match place {
        Place::Sound(offset, record) => places.sound.push((offset, record)),
        Place::Broken(offset, record) => places.broken.push((offset, Some(record))),
        Place::Hole(from, to) if footer.is_some() || to < end => places.broken.push((from, None)),
        // Behind the records of a segment without a sound footer stands its trailer.
        Place::Hole(..) => {}
    });
    places
}

/// Hands over what one sealed segment holds.
pub(super) fn walk_segment(
    image: &Image,
    dead: Option<&DeadBitmap>,
    seed: Option<&HashSeed>,
    each: &mut dyn FnMut(Find<'_>),
) {
    let footer = find_footer(image).map(|(footer, _)| footer);
    let entries = trailer_entries(image, footer.as_ref());
    if footer.is_none() || entries.is_none() {
        let error = FieldError::new("trailer", "not sound", "one whose checksum holds");
        each(Find::Damage(image.damage(0, error)));
    }
    let header = match SegmentHeader::decode(image.rest(0)) {
        Ok(header) => header,
        Err(error) => {
            each(Find::Damage(image.damage(0, error)));
            return walk_witnessed(image, entries, dead, each);
        }
    };
    let Places { sound, broken } = sort_places(image, header.nonce, footer.as_ref());
    for (offset, record) in &broken {
        let told = record.as_ref().filter(|_| entries.is_none());
        if let Some(lost) = told.and_then(|record| lost_body(record, seed)) {
            each(lost);
        }
        let error = FieldError::new("record", "not sound", "one whose checksums hold");
        each(Find::Damage(image.damage(*offset, error)));
    }
    let range = range_of(image, footer.as_ref(), &sound);
    let skipped = skipped_offsets(&sound, entries.as_deref(), dead, seed);
    if let (None, Some((_, last))) = (&skipped, range) {
        each(Find::Gap(Seq::ZERO, last));
    }
    let skipped = skipped.unwrap_or_default();
    for (offset, record) in &sound {
        hand_over(*offset, record, &skipped, each);
    }
    match (entries, range) {
        (Some(entries), _) => hand_over_lost(&entries, &sound, dead, each),
        // Without a footer nobody knows where the records ended.
        (None, Some((first, last))) if footer.is_none() || !broken.is_empty() => {
            each(Find::Gap(first, last));
        }
        _ => {}
    }
}

/// What the trailer lists and is not there.
fn hand_over_lost(
    entries: &[TrailerEntry],
    sound: &[(u64, Record<'_>)],
    dead: Option<&DeadBitmap>,
    each: &mut dyn FnMut(Find<'_>),
) {
    for (index, entry) in (0_u32..).zip(entries) {
        let offset = u64::from(entry.offset);
        let is_dead = dead.is_some_and(|bits| bits.is_set(index)) || entry.superseded;
        if !is_dead && sound.binary_search_by_key(&offset, |(at, _)| *at).is_err() {
            each(Find::Lost(lost_of(entry)));
        }
    }
}

fn lost_of(entry: &TrailerEntry) -> Lost {
    let TrailerEntry { incarnation, tag, seq, deadline_ms, tombstone, .. } = *entry;
    Lost { incarnation, tag: Some(tag), seq, deadline_ms, tombstone }
}

fn hand_over(
    offset: u64,
    record: &Record<'_>,
    skipped: &HashSet<u64>,
    each: &mut dyn FnMut(Find<'_>),
) {
    let header = &record.header;
    match header.kind {
        RecordKind::Clear => {
            if let Some(clear) = clear_of(record) {
                each(clear);
            }
        }
        RecordKind::Attach => {}
        RecordKind::Put | RecordKind::Tombstone => {
            if !header.old && !skipped.contains(&offset) {
                each(Find::Sound(sound_of(record)));
            }
        }
    }
}

pub(super) fn sound_of<'a>(record: &Record<'a>) -> Sound<'a> {
    let header = &record.header;
    Sound {
        incarnation: header.incarnation,
        key: record.key,
        value: (header.kind == RecordKind::Put).then_some(record.value),
        seq: header.seq,
        deadline_ms: header.deadline_ms,
    }
}

/// The lowest and highest `seq` that the segment held.
fn range_of(
    image: &Image,
    footer: Option<&SegmentFooter>,
    sound: &[(u64, Record<'_>)],
) -> Option<(Seq, Seq)> {
    if let FileState::SealedSegment(facts) = image.state {
        return Some((facts.first_seq, facts.last_seq));
    }
    let told = footer.map(|footer| (footer.first_seq, footer.last_seq));
    let seqs = sound.iter().map(|(_, record)| record.header.seq);
    told.or_else(|| Some((seqs.clone().min()?, seqs.max()?)))
}

/// The records whose dead bit is set. `None` when there are bits and nobody knows whose.
fn skipped_offsets(
    sound: &[(u64, Record<'_>)],
    entries: Option<&[TrailerEntry]>,
    dead: Option<&DeadBitmap>,
    seed: Option<&HashSeed>,
) -> Option<HashSet<u64>> {
    let Some(dead) = dead else { return Some(HashSet::new()) };
    let set = |(index, offset): (u32, u64)| dead.is_set(index).then_some(offset);
    if let Some(entries) = entries {
        let offsets = entries.iter().map(|entry| u64::from(entry.offset));
        return Some((0_u32..).zip(offsets).filter_map(set).collect());
    }
    // The order of the trailer is that of tag and offset.
    let seed = seed?;
    let keyed = sound.iter().filter(|(_, record)| {
        matches!(record.header.kind, RecordKind::Put | RecordKind::Tombstone)
    });
    let tag = |record: &Record<'_>| seed.hash(record.header.incarnation, record.key).tag();
    let mut order: Vec<_> = keyed.map(|(offset, record)| (tag(record), *offset)).collect();
    order.sort_unstable();
    if order.len() != dead.count as usize {
        return None;
    }
    Some((0_u32..).zip(order.into_iter().map(|(_, offset)| offset)).filter_map(set).collect())
}

/// A segment without its header, and so without its nonce: the trailer tells where records are and
/// what their headers said, the body checksum tells whether they are sound.
fn walk_witnessed(
    image: &Image,
    entries: Option<Vec<TrailerEntry>>,
    dead: Option<&DeadBitmap>,
    each: &mut dyn FnMut(Find<'_>),
) {
    let Some(entries) = entries else {
        let range = range_of(image, None, &[]).unwrap_or((Seq::ZERO, Seq(u64::MAX)));
        return each(Find::Gap(range.0, range.1));
    };
    for (index, entry) in (0_u32..).zip(&entries) {
        if entry.superseded || dead.is_some_and(|bits| bits.is_set(index)) {
            continue;
        }
        match witnessed(image, entry) {
            Some(sound) => each(Find::Sound(sound)),
            None => each(Find::Lost(lost_of(entry))),
        }
    }
}

fn witnessed<'a>(image: &'a Image, entry: &TrailerEntry) -> Option<Sound<'a>> {
    let bytes = image.slice(u64::from(entry.offset), u64::from(entry.len))?;
    let head = bytes.first_chunk::<RECORD_HEADER_LEN>()?;
    let word = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk::<4>()?));
    let key_len = usize::from(u16::from_le_bytes(*head.get(28..)?.first_chunk::<2>()?));
    let value_len = usize::try_from(word(24)?).ok()?;
    let body = bytes.get(RECORD_HEADER_LEN..)?.get(..key_len.checked_add(value_len)?)?;
    let (key, value) = body.split_at_checked(key_len)?;
    if body_crc(entry.incarnation, key, value) != word(4)? {
        return None;
    }
    let TrailerEntry { incarnation, seq, deadline_ms, tombstone, .. } = *entry;
    Some(Sound { incarnation, key, value: (!tombstone).then_some(value), seq, deadline_ms })
}
