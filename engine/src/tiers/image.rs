//! The index image: written when the store closes, read when it opens, never trusted over it. What
//! it cannot answer soundly, the trailers answer. Knows index, accounts and order; knows nothing of
//! when a store may leave an image.

use std::sync::Arc;

use crate::canary::{Canary, planted};
use crate::error::{Error, Result};
use crate::format::checksum::crc;
use crate::format::cursor::{FieldError, Fields, Put};
use crate::format::image::{
    IMAGE_HEADER_LEN, IMAGE_PART_LEN, ImageEntry, ImageGroup, ImageHeader, ImagePart, ImageSegment,
    ImageTables, PartKind, leaf, put_leaf,
};
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::ids::{Incarnation, Location, Seq, Slot};
use crate::tiers::Tiers;
use crate::tiers::append::Append;
use crate::tiers::rebuild::accounts_of;
use crate::vfs::map::Map;
use crate::vfs::{Dir, File, os};
use crate::warm::account::{Group, SegmentAccount};
use crate::warm::index::fence::Fence;
use crate::warm::index::leaf::{Hint, Leaf, LeafEntry};
use crate::warm::index::point::{IndexWriter, PointIndex};
use crate::warm::index::table::{BUCKET_LEN, Table};
use crate::warm::segment::Segment;
use crate::warm::table::SegmentTable;

/// Parts of half an image from which on two threads are quicker than one.
const PARTS_FOR_TWO: usize = 4;

/// The name of the image with this number.
fn image_name(id: u32) -> String {
    format!("{id:010}.idx")
}

/// An image whose header and tables are sound and fit the store.
#[derive(Debug)]
pub(crate) struct Image {
    pub id: u32,
    map: Arc<Map>,
    tables: ImageTables,
}

/// What an image gives at once; the order can wait.
pub(crate) struct Restored {
    pub index: PointIndex,
    pub writer: IndexWriter,
    /// By slot.
    pub accounts: Vec<Option<SegmentAccount>>,
}

/// The order as an image keeps it.
pub(crate) struct Order {
    /// Under their fences.
    pub leaves: Vec<(Fence, Leaf)>,
    /// Tags that stand in no leaf.
    pub loose: Vec<u32>,
}

impl Image {
    /// Opens the image that the manifest lists. `last` is the `seq` before which the journal ends.
    pub(crate) fn open(
        dir: &dyn Dir,
        store: [u8; 16],
        (id, len, listed_crc): (u32, u64, u32),
        last: Seq,
    ) -> Result<Self> {
        let name = image_name(id);
        let io = |error| Error::io("open index image", dir.path().join(&name), error);
        let file = dir.open_to_read(&name).map_err(io)?;
        let found = file.len().map_err(io)?;
        if found < len {
            let error = FieldError::new("file length", found, format_args!("at least {len}"));
            return Err(error.at("open index image", &name, 0).into());
        }
        let map = file.map(len, len).map_err(io)?;
        let at = |error: FieldError| Error::from(error.at("open index image", &name, 0));
        let (header, crc) =
            ImageHeader::decode(slice(&map, 0, IMAGE_HEADER_LEN as u64)).map_err(at)?;
        let expected = (store, id, last, listed_crc);
        if (header.store, header.id, header.last_seq, crc) != expected {
            let error = FieldError::new("identity", "of another image", "what the manifest lists");
            return Err(at(error));
        }
        let tables = slice(&map, header.tables_offset, u64::from(header.tables_len));
        let tables = ImageTables::decode(&header, tables).map_err(at)?;
        Ok(Self { id, map, tables })
    }

    /// Bytes of its file.
    pub(crate) fn len(&self) -> u64 {
        self.map.published()
    }

    fn damage(&self, at: u64, error: FieldError) -> Error {
        error.at("read index image", &image_name(self.id), at).into()
    }

    fn mismatch(&self, field: &'static str, found: &str) -> Error {
        self.damage(0, FieldError::new(field, found, "what the store holds"))
    }

    fn parts(&self, kind: PartKind) -> impl Iterator<Item = &ImagePart> {
        self.tables.parts.iter().filter(move |part| part.kind == kind)
    }

    /// The bytes of a part, checked.
    fn bytes(&self, part: &ImagePart) -> Result<&[u8]> {
        let bytes = slice(&self.map, part.offset, u64::from(part.len));
        let found = crc(bytes);
        let is_sound = found == part.crc || planted(Canary::TrustImage);
        if is_sound && bytes.len() == part.len as usize {
            return Ok(bytes);
        }
        Err(self.damage(part.offset, FieldError::new("part checksum", found, part.crc)))
    }

    /// The slot that a segment had.
    pub(crate) fn slot_of(&self, id: u32) -> Option<Slot> {
        let segments = &self.tables.segments;
        let at = segments.binary_search_by_key(&id, |segment| segment.id).ok()?;
        segments.get(at).map(|segment| Slot(segment.slot))
    }

    /// Index and accounts, for a table that holds the segments that the image knows.
    pub(crate) fn restore(&self, table: &SegmentTable) -> Result<Restored> {
        let mut segments: Vec<&Arc<Segment>> = table.iter().collect();
        segments.sort_by_key(|segment| segment.id);
        let accounts = self.accounts(&segments, accounts_of(table))?;
        let mut ends = vec![0; accounts.len()];
        for segment in segments {
            if let Some(end) = ends.get_mut(segment.slot.0 as usize) {
                *end = segment.records_end();
            }
        }
        let may_be = |at: Location| {
            let end = ends.get(at.slot.0 as usize).copied().unwrap_or(0);
            (SEGMENT_HEADER_LEN as u64..end).contains(&u64::from(at.offset))
        };
        let parts: Vec<&ImagePart> = self.parts(PartKind::Buckets).collect();
        let total: u64 = parts.iter().map(|part| u64::from(part.len)).sum();
        let homes = self.tables.homes;
        let broken = parts.iter().any(|part| !(part.len as usize).is_multiple_of(BUCKET_LEN));
        if broken
            || homes == 0
            || total != (Table::buckets_of(homes) as u64).saturating_mul(BUCKET_LEN as u64)
        {
            return Err(self.mismatch("buckets", "others than its homes need"));
        }
        let made = Table::new(homes);
        let made = made.map_err(|error| Error::io("make index", "anonymous memory", error))?;
        let mut end = 0;
        let placed: Vec<(usize, &ImagePart)> = parts
            .into_iter()
            .map(|part| {
                end += part.len as usize / BUCKET_LEN;
                (end - part.len as usize / BUCKET_LEN, part)
            })
            .collect();
        let restore = |placed: &[(usize, &ImagePart)]| {
            placed.iter().try_fold(0, |count, &(first, part)| {
                let (buckets, _) = self.bytes(part)?.as_chunks::<BUCKET_LEN>();
                let restored = made.restore(first, buckets, may_be);
                let entries = restored.ok_or_else(|| self.mismatch("bucket", "an impossible one"));
                Ok::<u64, Error>(count + entries?)
            })
        };
        let (early, late) = placed.split_at(placed.len() / 2);
        let counts = if late.len() < PARTS_FOR_TWO {
            (restore(early), restore(late))
        } else {
            os::both(|| restore(early), || restore(late))
        };
        let count = counts.0? + counts.1?;
        let (index, writer) = PointIndex::restored(made, count);
        Ok(Restored { index, writer, accounts })
    }

    fn accounts(
        &self,
        segments: &[&Arc<Segment>],
        mut accounts: Vec<Option<SegmentAccount>>,
    ) -> Result<Vec<Option<SegmentAccount>>> {
        if segments.len() != self.tables.segments.len() {
            return Err(self.mismatch("segment count", "another one"));
        }
        for (segment, told) in segments.iter().zip(&self.tables.segments) {
            let trailer_crc = segment.sealed().map(|facts| facts.trailer_crc);
            if segment.id.0 != told.id
                || segment.slot.0 != told.slot
                || trailer_crc != Some(told.trailer_crc)
            {
                return Err(self.mismatch("segment", "another one"));
            }
            let Some(Some(account)) = accounts.get_mut(segment.slot.0 as usize) else { continue };
            let tombstones = (told.tombstone_bytes, told.tombstone_count);
            let groups = told.groups.iter().map(group_of).collect();
            let (created_ms, len) = (segment.created_ms, account.record_bytes);
            *account = SegmentAccount::told(created_ms, len, tombstones, groups)
                .ok_or_else(|| self.mismatch("account", "more than the segment's records"))?;
        }
        Ok(accounts)
    }

    /// Leaves and loose tags; `None` when the image does not know the whole order. The hints hold
    /// for the segments that it knows, of which so many had `entered` their table.
    pub(crate) fn order(&self, entered: u32) -> Result<Option<Order>> {
        if !self.tables.ordered {
            return Ok(None);
        }
        let mut leaves: Vec<(Fence, Leaf)> = Vec::new();
        for part in self.parts(PartKind::Leaves) {
            let mut fields = Fields::new(self.bytes(part)?);
            for _ in 0..part.count {
                let read = leaf(&mut fields).map_err(|e| self.damage(part.offset, e))?;
                if leaves.last().is_some_and(|(last, _)| **last >= *read.fence) {
                    return Err(self.mismatch("fence", "one out of order"));
                }
                let entries = read.entries().map(entry_of);
                leaves.push((read.fence.into(), Leaf::restore(read.shared, entered, entries)));
            }
            fields.finish("leaves").map_err(|e| self.damage(part.offset, e))?;
        }
        let mut loose = Vec::new();
        for part in self.parts(PartKind::Loose) {
            let (tags, _) = self.bytes(part)?.as_chunks::<4>();
            loose.extend(tags.iter().map(|&tag| u32::from_le_bytes(tag)));
        }
        Ok(Some(Order { leaves, loose }))
    }
}

fn slice(map: &Map, offset: u64, len: u64) -> &[u8] {
    let range = usize::try_from(offset).ok().zip(usize::try_from(len).ok());
    let range = range.and_then(|(from, len)| Some(from..from.checked_add(len)?));
    range.and_then(|range| map.slice(range)).unwrap_or(&[])
}

fn entry_of(told: ImageEntry) -> LeafEntry {
    let ImageEntry { discriminator, tag, hint } = told;
    LeafEntry { discriminator, tag, hint: Hint::of_bits(hint) }
}

fn group_of(told: &ImageGroup) -> Group {
    let &ImageGroup { incarnation, class_end_ms, bytes, count } = told;
    Group { incarnation: Incarnation(incarnation), class_end_ms, bytes, count }
}

fn told_of(group: &Group) -> ImageGroup {
    let &Group { incarnation, class_end_ms, bytes, count } = group;
    ImageGroup { incarnation: incarnation.0, class_end_ms, bytes, count }
}

impl Tiers {
    /// Writes the image of a store whose journal is sealed; its length and header checksum. Nothing
    /// is synced: an image that does not survive is not missed. `ordered`: all keys are in order or
    /// among the fresh ones.
    pub(crate) fn write_image(
        &self,
        append: &mut Append,
        id: u32,
        ordered: bool,
    ) -> Result<(u64, u32)> {
        let name = image_name(id);
        let io = |error| Error::io("write index image", self.dir.path().join(&name), error);
        let mut out = Parts {
            file: self.dir.create(&name).map_err(io)?,
            offset: IMAGE_HEADER_LEN as u64,
            bytes: Vec::with_capacity(IMAGE_PART_LEN + 1024),
            count: 0,
            tables: ImageTables { ordered, ..ImageTables::default() },
        };
        out.list_segments(append);
        self.write_buckets(append, &mut out).map_err(io)?;
        if ordered {
            self.write_order(&mut out).map_err(io)?;
        }
        out.finish(self.store, id, append.last_seq).map_err(io)
    }

    fn write_buckets(&self, append: &mut Append, out: &mut Parts) -> std::io::Result<()> {
        let mut result = Ok(());
        out.tables.homes = self.index.each_bucket(&mut append.index, |words| {
            if result.is_ok() {
                for word in words {
                    out.bytes.put_u64(*word);
                }
                result = out.counted(PartKind::Buckets);
            }
        });
        result?;
        out.end_part(PartKind::Buckets)
    }

    fn write_order(&self, out: &mut Parts) -> std::io::Result<()> {
        let table = self.segments.load();
        let mut result = Ok(());
        self.order.each_leaf(|fence, leaf| {
            if result.is_ok() {
                // Marks and numbers of segments go with the process.
                let holds = |place: Location| {
                    let segment = table.of(place).filter(|held| held.entered() <= leaf.entered());
                    segment.is_some_and(|held| !held.may_be_superseded(u64::from(place.offset)))
                };
                let entries = leaf.entries().iter().map(|one| ImageEntry {
                    discriminator: one.discriminator,
                    tag: one.tag,
                    hint: one
                        .hint
                        .place()
                        .filter(|&place| holds(place))
                        .map_or(Hint::NONE, |_| one.hint)
                        .bits(),
                });
                put_leaf(&mut out.bytes, fence, leaf.shared(), entries);
                result = out.counted(PartKind::Leaves);
            }
        });
        result?;
        out.end_part(PartKind::Leaves)?;
        for tag in self.order.loose() {
            out.bytes.extend(tag.to_le_bytes());
            out.counted(PartKind::Loose)?;
        }
        out.end_part(PartKind::Loose)
    }
}

/// An image that is being written, part by part.
struct Parts {
    file: Arc<dyn File>,
    offset: u64,
    /// The part so far, and what is in it.
    bytes: Vec<u8>,
    count: u32,
    tables: ImageTables,
}

impl Parts {
    fn list_segments(&mut self, append: &Append) {
        let mut segments: Vec<&Arc<Segment>> = append.table.iter().collect();
        segments.sort_by_key(|segment| segment.id);
        for segment in segments {
            let Some(facts) = segment.sealed() else { continue };
            let account = append.accounts.get(segment.slot.0 as usize).and_then(Option::as_ref);
            let Some(account) = account else { continue };
            self.tables.segments.push(ImageSegment {
                id: segment.id.0,
                slot: segment.slot.0,
                trailer_crc: facts.trailer_crc,
                tombstone_bytes: account.tombstone_bytes,
                tombstone_count: account.tombstone_count,
                groups: account.groups().iter().map(told_of).collect(),
            });
        }
    }

    /// One more entry stands in the part; a full part ends.
    fn counted(&mut self, kind: PartKind) -> std::io::Result<()> {
        self.count += 1;
        if self.bytes.len() < IMAGE_PART_LEN { Ok(()) } else { self.end_part(kind) }
    }

    fn end_part(&mut self, kind: PartKind) -> std::io::Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        self.file.write_all_at(&self.bytes, self.offset)?;
        let len = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let (count, offset, crc) = (self.count, self.offset, crc(&self.bytes));
        self.tables.parts.push(ImagePart { kind, count, offset, len, crc });
        self.offset += u64::from(len);
        self.bytes.clear();
        self.count = 0;
        Ok(())
    }

    fn finish(self, store: [u8; 16], id: u32, last_seq: Seq) -> std::io::Result<(u64, u32)> {
        let tables = self.tables.encode();
        let header = ImageHeader {
            store,
            id,
            last_seq,
            tables_offset: self.offset,
            tables_len: u32::try_from(tables.len()).unwrap_or(u32::MAX),
            tables_crc: crc(&tables),
        };
        let header = header.encode();
        self.file.write_all_at(&tables, self.offset)?;
        self.file.write_all_at(&header, 0)?;
        let crc = header.last_chunk::<4>().map_or(0, |crc| u32::from_le_bytes(*crc));
        Ok((self.offset + tables.len() as u64, crc))
    }
}
