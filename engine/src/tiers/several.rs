//! Several keys at once, as of one moment that nobody has to hold: the waits for memory overlap.
//! Knows index and segments; what the log does not answer for certain, the caller asks for by
//! itself.

use crate::error::Result;
use crate::format::record::RecordKind;
use crate::ids::{Location, Seq};
use crate::tiers::Tiers;
use crate::tiers::read::{KeyRef, is_record_of};
use crate::value::Value;
use crate::value::pins::Site;
use crate::warm::table::SegmentTable;

/// What the log says of one key.
#[derive(Debug, Clone, Default)]
pub(crate) enum Told {
    /// No record.
    #[default]
    Nothing,
    /// It must be asked again, at a moment that is held.
    Unsure,
    /// The key is absent.
    Absent,
    Value(Value),
}

impl Tiers {
    /// What these keys hold at `moment`, which was visible when this began; values count for
    /// `site`. The index names the
    /// newest records; one that is not newer than the moment held at the moment.
    pub(crate) fn read_several(&self, keys: &[KeyRef<'_>], moment: Seq, site: Site) -> Vec<Told> {
        let moves = self.moves();
        let table = self.segments.load();
        let mut places: Vec<(usize, Location)> = Vec::with_capacity(keys.len() + 4);
        let tags = keys.iter().map(|key| key.hash.tag());
        let whole = self.index.find_several(tags, |number, entry| {
            if let Some(segment) = table.of(entry.location) {
                segment.prefetch(u64::from(entry.location.offset));
            }
            places.push((number, entry.location));
        });
        let mut all = vec![Told::Nothing; keys.len()];
        for (number, place) in places {
            let (Some(key), Some(told)) = (keys.get(number), all.get_mut(number)) else { continue };
            match self.tell_one(&table, key, (place, moment), site) {
                Ok(Told::Nothing) => {}
                Ok(one) => *told = one,
                Err(_) => *told = Told::Unsure,
            }
        }
        // As for one key: a miss counts if nothing moved, and if there is no archive to ask.
        let empty = self.cold.load().entries().is_empty();
        let misses_count = whole && empty && moves == self.moves() && moment == self.visible();
        for told in all.iter_mut().filter(|told| matches!(told, Told::Nothing)) {
            *told = if misses_count { Told::Absent } else { Told::Unsure };
        }
        all
    }

    /// What the record at a place says of a key.
    fn tell_one(
        &self,
        table: &SegmentTable,
        key: &KeyRef<'_>,
        (place, moment): (Location, Seq),
        site: Site,
    ) -> Result<Told> {
        let Some(segment) = table.of(place) else { return Ok(Told::Unsure) };
        let offset = u64::from(place.offset);
        let record = segment.record(offset)?;
        if !is_record_of(segment, place, &record, key)? {
            return Ok(Told::Nothing);
        }
        let header = &record.header;
        if header.seq > moment {
            return Ok(Told::Unsure);
        }
        if header.kind == RecordKind::Tombstone || !self.is_alive(header.deadline_ms) {
            return Ok(Told::Absent);
        }
        segment.check_body(offset, &record)?;
        let value = (record.key.len(), record.value.len());
        Ok(Told::Value(self.value_for(segment, offset, value, site)))
    }
}
