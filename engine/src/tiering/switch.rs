//! Pointing the index at where records went, a few at a time under the append lock.
//! A record that was superseded meanwhile stays as it is: its copy is dead on arrival.

use crate::cold::ArchiveEntry;
use crate::error::Error;
use crate::ids::{Location, Slot};
use crate::tiers::append::Append;
use crate::tiers::{Tiers, bump};
use crate::warm::account::Weight;
use crate::warm::versions::OldPlace;

/// Records switched for each time the append lock is taken.
const CHUNK: usize = 128;

/// A live record of a victim.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Item {
    pub tag: u32,
    pub from: Location,
}

/// Where a record went.
#[derive(Debug, Clone, Copy)]
enum Destination<'a> {
    Warm(Location),
    Cold { archive: &'a ArchiveEntry, ordinal: u32 },
}

/// A record and where it went.
#[derive(Debug)]
struct Moved<'a> {
    item: Item,
    /// `None` when the record can no longer be read: then it counts as nothing.
    weight: Option<Weight>,
    to: Destination<'a>,
}

impl Tiers {
    /// Points the index at copies in a survivor segment.
    pub(crate) fn switch_to_warm<'i>(
        &self,
        copies: impl Iterator<Item = (&'i Item, &'i u32)>,
        slot: Slot,
    ) {
        self.switch_moved(
            copies.map(|(item, offset)| (*item, Destination::Warm(Location::new(slot, *offset)))),
        );
    }

    /// Takes what an archive has now out of the index. The archive has it in this order.
    pub(crate) fn switch_to_cold(&self, items: &[Item], archive: &ArchiveEntry) {
        let ordinals = (0_u32..).map(|ordinal| Destination::Cold { archive, ordinal });
        self.switch_moved(items.iter().copied().zip(ordinals));
    }

    /// What a record weighs is read where it was, before the append lock is taken for some of them.
    fn switch_moved<'a>(&self, mut moved: impl Iterator<Item = (Item, Destination<'a>)>) {
        let mut chunk: Vec<Moved<'a>> = Vec::with_capacity(CHUNK);
        loop {
            chunk.extend(moved.by_ref().take(CHUNK).map(|(item, to)| {
                let weight = self.with_record(&item, |_, record| Ok(Weight::of(&record.header)));
                Moved { item, weight: weight.ok(), to }
            }));
            if chunk.is_empty() {
                return;
            }
            let mut append = self.append.lock();
            self.moved();
            for one in chunk.drain(..) {
                self.switch_one(&mut append, &one);
            }
        }
    }

    fn switch_one(&self, append: &mut Append, one: &Moved<'_>) {
        let Item { tag, from, .. } = one.item;
        let found = self
            .index
            .find_for_change(&append.index, tag, |entry| Ok::<_, Error>(entry.location == from))
            .unwrap_or(None);
        let mut kept = false;
        match (&found, one.to) {
            (Some(found), Destination::Warm(to)) => {
                append.supersede(from);
                self.index.replace(&mut append.index, found, to, found.entry().tombstone);
            }
            (Some(found), Destination::Cold { .. }) => {
                append.supersede(from);
                self.remove_entry(append, found);
            }
            (None, Destination::Warm(to)) => {
                // No hint may lead to it.
                append.supersede(to);
                kept = self.versions.move_warm(tag, from, OldPlace::Warm(to));
            }
            (None, Destination::Cold { archive, ordinal }) => {
                let place = OldPlace::Cold { archive: archive.archive.id().0, ordinal };
                self.versions.move_warm(tag, from, place);
            }
        }
        let Some(weight) = &one.weight else { return };
        if found.is_some() {
            append.kill(from, weight);
        }
        match one.to {
            Destination::Warm(to) if found.is_some() => {
                let counts = weight.tombstone || self.keyspaces.is_kept(weight.incarnation);
                if let Some(account) = append.account(to.slot)
                    && counts
                {
                    account.revive(weight);
                }
            }
            Destination::Warm(to) if kept => append.pin(to, weight.len),
            Destination::Cold { archive, ordinal } if found.is_none() => {
                let Weight { incarnation, deadline_ms, len, .. } = *weight;
                archive.dead.mark(ordinal, incarnation, deadline_ms, len);
            }
            Destination::Warm(_) | Destination::Cold { .. } => {}
        }
    }

    fn remove_entry(&self, append: &mut Append, found: &crate::warm::index::point::IndexFound) {
        if let Err(error) = self.index.remove(&mut append.index, found) {
            tracing::warn!(%error, "the index could not shrink");
        }
    }

    /// Removes tombstones and expired records from the index.
    pub(crate) fn switch_dropped(&self, dropped: &[Item]) {
        for chunk in dropped.chunks(CHUNK) {
            let mut append = self.append.lock();
            self.moved();
            for item in chunk {
                self.drop_one(&mut append, item);
            }
        }
    }

    fn drop_one(&self, append: &mut Append, item: &Item) {
        let found = self
            .index
            .find_for_change(&append.index, item.tag, |e| Ok::<_, Error>(e.location == item.from))
            .unwrap_or(None);
        let Some(found) = found else {
            // It was replaced since it was judged: expired, so that no moment shows it.
            self.versions.forget(item.tag, item.from);
            return;
        };
        let weight = append.table.of(item.from).and_then(|segment| {
            segment
                .record(u64::from(item.from.offset))
                .ok()
                .map(|record| Weight::of(&record.header))
        });
        append.supersede(item.from);
        self.remove_entry(append, &found);
        let Some(weight) = weight else { return };
        if weight.tombstone || self.keyspaces.is_kept(weight.incarnation) {
            append.kill(item.from, &weight);
        }
        if let Some(keyspace) = self.keyspaces.by_incarnation(weight.incarnation)
            && !weight.tombstone
        {
            keyspace.count_by(-1);
            bump(&self.counters.records_expired, 1);
        }
    }
}
