//! One archive, block by block, without its index: what can be read of it whatever is damaged.
//! Each block names its ordinals and checks itself; header and dictionary alone are needed.

use zstd::zstd_safe::DDict;

use crate::cold::ColdRecord;
use crate::cold::decode::{prepare_dictionary, unpack_block};
use crate::format::archive::{
    ARCHIVE_FOOTER_LEN, ARCHIVE_HEADER_LEN, ArchiveFooter, ArchiveHeader, align8,
};
use crate::format::block::{
    BLOCK_HEADER_LEN, Block, BlockHeader, Entry, EntryValue, split_sort_key,
};
use crate::format::cursor::{Decoded, FieldError};
use crate::format::deadbits::DeadBitmap;
use crate::repair::image::Image;
use crate::repair::{Find, Sound};

/// Hands over the live records of an archive and counts those that are missing.
pub(super) fn walk_archive(
    image: &Image,
    dead: Option<&DeadBitmap>,
    each: &mut dyn FnMut(Find<'_>),
) {
    let header = match ArchiveHeader::decode(image.rest(0)) {
        Ok(header) => header,
        Err(error) => {
            each(Find::Damage(image.damage(0, error)));
            return each(Find::LostCold(1));
        }
    };
    let at = image.len.saturating_sub(ARCHIVE_FOOTER_LEN as u64);
    let footer = ArchiveFooter::decode(image.rest(at), &header, at);
    let footer = footer.map_err(|error| each(Find::Damage(image.damage(at, error)))).ok();
    let mut walk = Walk {
        image,
        header,
        dictionary: dictionary(image, &header, footer.as_ref(), each),
        dead,
        next_ordinal: 0,
        missing: 0,
        raw_patience: image.len.saturating_mul(2),
    };
    let end = footer.as_ref().map_or(at, |footer| footer.data_end);
    walk.blocks(end, each);
    match footer {
        Some(footer) => walk.miss(footer.record_count),
        None => each(Find::ColdGap),
    }
    if walk.missing > 0 {
        let found = format!("{} records cannot be read", walk.missing);
        let error = FieldError::new("blocks", found, "all of them");
        each(Find::Damage(image.damage(ARCHIVE_HEADER_LEN as u64, error)));
        each(Find::LostCold(walk.missing));
    }
}

fn dictionary(
    image: &Image,
    header: &ArchiveHeader,
    footer: Option<&ArchiveFooter>,
    each: &mut dyn FnMut(Find<'_>),
) -> Option<DDict<'static>> {
    let region = footer?.dictionary;
    let bytes = image.slice(region.offset, region.len);
    match region.verified("dictionary", bytes, header.nonce).and_then(prepare_dictionary) {
        Ok(dictionary) => dictionary,
        Err(error) => {
            each(Find::Damage(image.damage(region.offset, error)));
            None
        }
    }
}

struct Walk<'a> {
    image: &'a Image,
    header: ArchiveHeader,
    dictionary: Option<DDict<'static>>,
    dead: Option<&'a DeadBitmap>,
    next_ordinal: u32,
    missing: u64,
    /// Bytes of raw values that may still be read: each value lies in the file once, but entries
    /// that somebody forged may all name the same one.
    raw_patience: u64,
}

impl Walk<'_> {
    fn is_dead(&self, ordinal: u32) -> bool {
        self.dead.is_some_and(|bits| bits.is_set(ordinal))
    }

    /// Every live record up to this ordinal that was not seen is missing.
    fn miss(&mut self, until: u32) {
        while self.next_ordinal < until {
            self.missing += u64::from(!self.is_dead(self.next_ordinal));
            self.next_ordinal += 1;
        }
    }

    fn blocks(&mut self, end: u64, each: &mut dyn FnMut(Find<'_>)) {
        let mut offset = ARCHIVE_HEADER_LEN as u64;
        // What looks like a block and is none costs a checksum; a file made of such is given up.
        let mut patience = self.image.len.saturating_mul(16);
        let mut bytes = Vec::new();
        while offset + BLOCK_HEADER_LEN as u64 <= end && patience > 0 {
            let image = self.image;
            let here = image.slice(offset, end - offset).unwrap_or_default();
            let Ok((header, payload)) = BlockHeader::decode(here, self.header.nonce, offset) else {
                let len = here.get(4..8).and_then(|len| len.first_chunk::<4>());
                let len = len.map_or(0, |len| u64::from(u32::from_le_bytes(*len)));
                patience = patience.saturating_sub(if len <= 1 << 20 { len / 64 } else { 0 });
                offset += 8;
                continue;
            };
            let unpacked = unpack_block(&header, payload, self.dictionary.as_ref(), &mut bytes);
            // One with lower ordinals was seen before.
            if header.first_ordinal >= self.next_ordinal {
                let limit = image.len.saturating_mul(8);
                if u64::from(header.first_ordinal) <= limit {
                    self.miss(header.first_ordinal);
                    let walked = unpacked.and_then(|()| self.records(&bytes, &header, each));
                    if let Err(error) = walked {
                        each(Find::Damage(image.damage(offset, error)));
                    }
                    self.miss(header.first_ordinal.saturating_add(header.record_count));
                }
            }
            offset = align8(offset + BLOCK_HEADER_LEN as u64 + payload.len() as u64);
        }
    }

    fn records(
        &mut self,
        bytes: &[u8],
        header: &BlockHeader,
        each: &mut dyn FnMut(Find<'_>),
    ) -> Decoded<()> {
        let block = Block::decode(bytes, header.record_count, self.header.created_ms)?;
        for group in 0..block.group_count() {
            let mut walk = block.group(group)?;
            while let Some((index, entry)) = walk.next()? {
                let ordinal = header.first_ordinal.saturating_add(index);
                if self.is_dead(ordinal) {
                    self.miss(ordinal.saturating_add(1));
                    continue;
                }
                match sound(self.image, walk.key(), &entry, &mut self.raw_patience) {
                    Ok(sound) => {
                        self.miss(ordinal);
                        self.next_ordinal = ordinal.saturating_add(1);
                        each(Find::Sound(sound));
                    }
                    Err(error) => each(Find::Damage(self.image.damage(0, error))),
                }
            }
        }
        Ok(())
    }
}

fn sound<'a>(
    image: &'a Image,
    sort_key: &'a [u8],
    entry: &Entry<'a>,
    patience: &mut u64,
) -> Decoded<Sound<'a>> {
    let (incarnation, key) = split_sort_key(sort_key)?;
    let value = match entry.value {
        EntryValue::Inline(bytes) => bytes,
        EntryValue::Raw { len, offset, .. } => {
            let left = patience.checked_sub(u64::from(len));
            *patience = left.ok_or_else(|| FieldError::new("raw values", "more", "the file"))?;
            image
                .slice(offset, u64::from(len))
                .ok_or_else(|| FieldError::new("raw value", offset, "a place inside the file"))?
        }
    };
    let (seq, deadline_ms, body_crc) = (entry.seq, entry.deadline_ms, entry.body_crc);
    let record = ColdRecord { incarnation, key, seq, deadline_ms, body_crc, value };
    let found = record.check_body();
    found.map_err(|found| FieldError::new("body checksum", found, body_crc))?;
    Ok(Sound { incarnation, key, value: Some(value), seq, deadline_ms })
}
