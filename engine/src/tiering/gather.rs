//! Copying what lives in some segments in the order of its keys, before they are reclaimed.
//! Knows order, index and segments; knows nothing of when that is worth it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::Result;
use crate::format::block::put_sort_key;
use crate::format::manifest::Op;
use crate::ids::Location;
use crate::tiering::switch::Item;
use crate::tiers::Tiers;
use crate::tiers::append::segment_target;
use crate::tiers::debt::Debt;
use crate::tiers::order::IndexedKeys;
use crate::warm::active::SegmentWriter;
use crate::warm::index::leaf::Hint;
use crate::warm::segment::Segment;

/// Leaves of the order whose records are copied at a time.
const LEAVES: usize = 16;
/// Records begin at least so many bytes behind each other.
const UNIT: u32 = 32;
/// Copies that are switched to before the order is told of them: whoever walks meanwhile meets few
/// hints that do not hold.
const HINTS: usize = 256;

/// Records that were copied, in order, and the segment that has them.
pub(crate) struct Output {
    pub writer: SegmentWriter,
    pub id: u32,
    pub items: Vec<Item>,
    /// Places of the copies.
    pub offsets: Vec<u32>,
}

/// What was copied out of some victims before they are reclaimed.
#[derive(Default)]
pub(crate) struct Gathered {
    pub outputs: Vec<Output>,
    /// By the victim's slot, a bit for each unit in which a record begins that was copied.
    copied: HashMap<u32, Vec<u64>>,
}

impl Gathered {
    pub(crate) fn of(victims: &[Arc<Segment>]) -> Self {
        let words = |segment: &Arc<Segment>| {
            usize::try_from(segment.records_end() / u64::from(UNIT) / 64 + 1).unwrap_or(0)
        };
        let copied = victims.iter().map(|segment| (segment.slot.0, vec![0; words(segment)]));
        Self { outputs: Vec::new(), copied: copied.collect() }
    }

    fn word(&self, place: Location) -> Option<(&u64, u64)> {
        let unit = place.offset / UNIT;
        let words = self.copied.get(&place.slot.0)?;
        Some((words.get(unit as usize / 64)?, 1 << (unit % 64)))
    }

    /// Whether the record there was copied.
    pub(crate) fn holds(&self, place: Location) -> bool {
        self.word(place).is_some_and(|(word, bit)| word & bit != 0)
    }

    /// Whether the record there is one of a victim's.
    fn is_from(&self, place: Location) -> bool {
        self.word(place).is_some()
    }

    fn note(&mut self, place: Location) {
        let unit = place.offset / UNIT;
        let words = self.copied.get_mut(&place.slot.0);
        if let Some(word) = words.and_then(|words| words.get_mut(unit as usize / 64)) {
            *word |= 1 << (unit % 64);
        }
    }
}

impl Tiers {
    /// Copies what lives in the victims. `false` when something else is wanted more.
    pub(crate) fn copy_in_order(&self, gathered: &mut Gathered, live: u64) -> Result<bool> {
        let target = segment_target(live, 0, &self.options);
        let (mut from, mut tags) = (Vec::new(), Vec::new());
        loop {
            if self.is_closing() || self.space_debt() != Debt::None {
                return Ok(false);
            }
            tags.clear();
            let next = self.order.tags_from(&from, LEAVES, 0, &mut tags);
            let tags: Vec<u32> = tags.iter().map(|one| one.tag).collect();
            let mut items = self.wanted_of(&tags, &from, next.as_deref(), gathered);
            self.sort_items(&mut items);
            for item in items {
                self.copy_one(item, gathered, target)?;
            }
            let Some(fence) = next else { break };
            from.clear();
            from.extend_from_slice(&fence);
        }
        gathered.outputs.last_mut().map_or(Ok(()), |last| self.finish_output(last))?;
        Ok(true)
    }

    /// What the index names of these tags in the victims, from one sort key up to another, and that
    /// is alive.
    fn wanted_of(
        &self,
        tags: &[u32],
        from: &[u8],
        to: Option<&[u8]>,
        gathered: &mut Gathered,
    ) -> Vec<Item> {
        let (table, now) = (self.segments.load(), self.clock.now_ms());
        let mut items = Vec::with_capacity(tags.len());
        self.index.peek_all(tags, |tag, entry| {
            if gathered.is_from(entry.location) && !entry.tombstone {
                if let Some(segment) = table.of(entry.location) {
                    segment.prefetch(u64::from(entry.location.offset));
                }
                items.push(Item { tag, from: entry.location });
            }
        });
        let mut key = Vec::new();
        items.retain(|item| {
            let is_wanted = self.with_record(item, |_, record| {
                let header = &record.header;
                key.clear();
                put_sort_key(&mut key, header.incarnation, record.key);
                // Another key may have the same tag.
                let is_here = *key >= *from && to.is_none_or(|to| *key < *to);
                let expired = header.deadline_ms != 0 && header.deadline_ms <= now;
                Ok(is_here && !expired && self.keyspaces.is_kept(header.incarnation))
            });
            let is_wanted = is_wanted.unwrap_or(false);
            // A tag may have been asked for twice.
            let is_new = !gathered.holds(item.from);
            if is_wanted && is_new {
                gathered.note(item.from);
            }
            is_wanted && is_new
        });
        items
    }

    fn copy_one(&self, item: Item, gathered: &mut Gathered, target: u64) -> Result<()> {
        let len = self.with_record(&item, |_, record| Ok(record.header.encoded_len()))?;
        let is_full = gathered.outputs.last().is_none_or(|output| !output.writer.fits(len));
        if is_full {
            if let Some(last) = gathered.outputs.last_mut() {
                self.finish_output(last)?;
            }
            gathered.outputs.push(self.create_output(target.max(len + 4096))?);
        }
        let Some(output) = gathered.outputs.last_mut() else { return Ok(()) };
        let one = std::slice::from_ref(&item);
        self.write_survivor(&mut output.writer, one, false, &mut output.offsets)?;
        output.items.push(item);
        Ok(())
    }

    fn create_output(&self, limit: u64) -> Result<Output> {
        let id = self.manifest.next_file();
        self.commit_edit(&vec![Op::DraftSegment { id }])?;
        let made = self.create_survivor(id, limit);
        let writer = made.inspect_err(|_| self.discard_file(id))?;
        Ok(Output { writer, id, items: Vec::new(), offsets: Vec::new() })
    }

    fn finish_output(&self, output: &mut Output) -> Result<()> {
        let (facts, footer) = output.writer.write_trailer(&self.seed)?;
        output.writer.segment.set_sealed(facts, footer);
        output.writer.segment.set_gathered();
        Ok(())
    }

    pub(crate) fn abandon_outputs(&self, outputs: Vec<Output>) {
        for output in outputs {
            self.append.lock().table.release(output.writer.segment.slot);
            self.discard_file(output.id);
        }
    }

    /// Points index and order at the copies, some at a time, so that no walk has to ask.
    pub(crate) fn switch_gathered(&self, output: &Output) {
        let segment = &output.writer.segment;
        let source = IndexedKeys::new(self);
        let mut key = Vec::new();
        for (items, offsets) in output.items.chunks(HINTS).zip(output.offsets.chunks(HINTS)) {
            self.switch_to_warm(items.iter().zip(offsets), segment.slot);
            let entered = self.segments.load().entered();
            self.order.note_hints(&source, entered, |note| {
                for (item, &offset) in items.iter().zip(offsets) {
                    let Some(record) = segment.named_record(u64::from(offset)) else { continue };
                    key.clear();
                    put_sort_key(&mut key, record.header.incarnation, record.key);
                    note(&key, item.tag, Hint::at(Location::new(segment.slot, offset)));
                }
            });
        }
    }
}
