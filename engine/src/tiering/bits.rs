//! The file of dead bitmaps: for every sealed segment and archive, which records are dead now.
//! Written before the newest witness of a key leaves the log, so that no older one comes back.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::deadbits::{DeadBitmap, DeadBits};
use crate::ids::Location;
use crate::tiers::Tiers;
use crate::warm::segment::Segment;

impl Tiers {
    /// Writes and syncs the bitmaps of everything but the victims; returns the file's length.
    pub(crate) fn write_bits(&self, id: u32, victims: &[Arc<Segment>]) -> Result<u64> {
        let as_of = self.visible();
        let mut bits = DeadBits { as_of, bitmaps: Vec::new() };
        let table = self.segments.load_full();
        for segment in table.iter().filter(|segment| segment.sealed().is_some()) {
            if victims.iter().any(|victim| victim.id == segment.id) {
                continue;
            }
            let bitmap = self.bitmap_of(segment)?;
            if !bitmap.is_empty() {
                bits.bitmaps.push(bitmap);
            }
        }
        for entry in self.cold.load().entries() {
            let mut bitmap = DeadBitmap::new(entry.archive.id().0, entry.archive.record_count());
            bitmap.bits = entry.dead.to_bits();
            if !bitmap.is_empty() {
                bits.bitmaps.push(bitmap);
            }
        }
        let name = format!("{id:010}.bit");
        let bytes = bits.encode(self.store, id);
        let written = self.dir.create(&name).and_then(|file| {
            file.write_all_at(&bytes, 0)?;
            file.sync()
        });
        written.map_err(|e| Error::io("write dead bitmaps", self.dir.path().join(&name), e))?;
        Ok(bytes.len() as u64)
    }

    /// A record is dead unless the index names it. A segment whose trailer cannot be read gets no
    /// bits: it is damage, and reported where it is read.
    fn bitmap_of(&self, segment: &Arc<Segment>) -> Result<DeadBitmap> {
        let Ok(trailer) = segment.trailer() else { return Ok(DeadBitmap::new(segment.id.0, 0)) };
        let mut bitmap = DeadBitmap::new(segment.id.0, trailer.count());
        for (index, entry) in (0_u32..).zip(trailer.entries()) {
            let entry = entry.map_err(|e| segment.damage("read trailer", 0, e))?;
            let at = Location::new(segment.slot, entry.offset);
            let named = !entry.superseded
                && self.index.peek(entry.tag, |e| Ok::<_, Error>(e.location == at))?.is_some();
            if !named {
                bitmap.set(index);
            }
        }
        Ok(bitmap)
    }
}
