//! The open segments by slot: an immutable table that readers load without a lock.
//! Knows slots; knows nothing of files, of records, or of who may retire what.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::ids::{Location, Slot};
use crate::limits::SEGMENT_COUNT_MAX;
use crate::warm::segment::Segment;

/// One state of the table.
#[derive(Debug, Clone, Default)]
pub(crate) struct SegmentTable {
    slots: Vec<Option<Arc<Segment>>>,
    /// Where the search for a free slot begins: a slot rests long before it is used again.
    next: usize,
    /// Slots that were given out and not filled yet.
    reserved: BTreeSet<usize>,
    /// How many segments ever entered.
    entered: u32,
}

impl SegmentTable {
    pub(crate) fn get(&self, slot: Slot) -> Option<&Arc<Segment>> {
        self.slots.get(slot.0 as usize)?.as_ref()
    }

    pub(crate) fn of(&self, location: Location) -> Option<&Arc<Segment>> {
        self.get(location.slot)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.slots.iter().flatten()
    }

    /// A slot that no segment holds, or `None` when 2^20 segments are open. The caller fills it.
    pub(crate) fn free_slot(&mut self) -> Option<Slot> {
        let window = (self.iter().count() * 4).clamp(512, SEGMENT_COUNT_MAX);
        let free = (0..window).map(|step| (self.next + step) % window).find(|&slot| {
            self.slots.get(slot).is_none_or(Option::is_none) && !self.reserved.contains(&slot)
        })?;
        self.next = free + 1;
        self.reserved.insert(free);
        Some(Slot(u32::try_from(free).ok()?))
    }

    /// Reserves this slot unless it is taken.
    pub(crate) fn reserve(&mut self, slot: Slot) -> bool {
        let slot = slot.0 as usize;
        let free = self.slots.get(slot).is_none_or(Option::is_none);
        free && slot < SEGMENT_COUNT_MAX && self.reserved.insert(slot)
    }

    /// All slots in use are below this one.
    pub(crate) fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// How many segments ever entered. Whoever remembers a slot and this number, or a lower one,
    /// finds out whether the slot was used again: its segment entered later then.
    pub(crate) fn entered(&self) -> u32 {
        self.entered
    }

    /// Puts a segment, which was in no table before, into its slot.
    pub(crate) fn insert(&mut self, segment: Arc<Segment>) {
        self.entered = self.entered.saturating_add(1);
        segment.set_entered(self.entered);
        let slot = segment.slot.0 as usize;
        self.reserved.remove(&slot);
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, None);
        }
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(segment);
        }
    }

    /// Takes back a slot that was never filled.
    pub(crate) fn release(&mut self, slot: Slot) {
        self.reserved.remove(&(slot.0 as usize));
    }

    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Arc<Segment>> {
        self.slots.get_mut(slot.0 as usize)?.take()
    }
}
