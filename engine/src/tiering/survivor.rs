//! Survivor segments: how one is begun, and how records are copied into it unchanged.
//! Knows bytes and places; knows nothing of who survives, or why.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::record::{Record, RecordHeader};
use crate::format::segment::{SegmentHeader, SegmentKind};
use crate::ids::SegmentId;
use crate::tiering::switch::Item;
use crate::tiers::Tiers;
use crate::vfs::os;
use crate::warm::active::SegmentWriter;
use crate::warm::segment::Segment;

impl Tiers {
    /// A survivor segment with room for so many bytes; it was drafted before.
    pub(crate) fn create_survivor(&self, id: u32, limit: u64) -> Result<SegmentWriter> {
        let slot = {
            let mut append = self.append.lock();
            self.take_slot(&mut append)?
        };
        let header = SegmentHeader {
            store: self.store,
            id: SegmentId(id),
            kind: SegmentKind::Survivor,
            created_ms: self.clock.now_ms(),
            nonce: self.draw_nonce()?,
        };
        let made = SegmentWriter::create(&*self.dir, &header, slot, limit, 256 << 10);
        made.inspect_err(|_| self.append.lock().table.release(slot))
    }

    pub(crate) fn draw_nonce(&self) -> Result<u64> {
        let nonce = os::random_bytes();
        let nonce = nonce.map_err(|error| Error::io("draw nonce", self.dir.path(), error))?;
        Ok(u64::from_le_bytes(nonce))
    }

    /// Hands the record of an item to `read`. The segment cannot be retired meanwhile: movement
    /// retires segments, and there is one movement at a time.
    pub(crate) fn with_record<R>(
        &self,
        item: &Item,
        read: impl FnOnce(&Arc<Segment>, &Record<'_>) -> Result<R>,
    ) -> Result<R> {
        let table = self.segments.load();
        let segment = table.of(item.from).ok_or(Error::Closed)?;
        let record = segment.record(u64::from(item.from.offset))?;
        read(segment, &record)
    }

    /// Copies records behind each other, and appends where they are now.
    pub(crate) fn write_survivor(
        &self,
        writer: &mut SegmentWriter,
        items: &[Item],
        old: bool,
        offsets: &mut Vec<u32>,
    ) -> Result<()> {
        for item in items {
            self.with_record(item, |segment, record| {
                record.check_body().map_err(|e| {
                    segment.damage("relocate record", u64::from(item.from.offset), e)
                })?;
                writer.make_room(record.header.encoded_len())?;
                let header = RecordHeader { more: false, batch: false, old, ..record.header };
                offsets.push(writer.append(&header, record.key, record.value));
                Ok(())
            })?;
        }
        writer.publish();
        Ok(())
    }
}
