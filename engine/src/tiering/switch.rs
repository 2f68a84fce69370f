//! Pointing the index at where records went, a few at a time under the append lock.
//! A record that was superseded meanwhile stays as it is: its copy is dead on arrival.

use std::sync::Arc;

use crate::cold::ArchiveEntry;
use crate::error::Error;
use crate::ids::Location;
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
pub(crate) enum Destination {
    Warm(Location),
    Cold { ordinal: u32 },
}

/// A record and where it went.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moved {
    pub item: Item,
    pub weight: Weight,
    pub to: Destination,
}

impl Tiers {
    pub(crate) fn switch_moved(&self, moved: &[Moved], archive: Option<&Arc<ArchiveEntry>>) {
        for chunk in moved.chunks(CHUNK) {
            let mut append = self.append.lock();
            self.moved();
            for one in chunk {
                self.switch_one(&mut append, one, archive);
            }
        }
    }

    fn switch_one(&self, append: &mut Append, one: &Moved, archive: Option<&Arc<ArchiveEntry>>) {
        let Item { tag, from, .. } = one.item;
        let found = self
            .index
            .find_for_change(&append.index, tag, |entry| Ok::<_, Error>(entry.location == from))
            .unwrap_or(None);
        match (found, one.to) {
            (Some(found), Destination::Warm(to)) => {
                append.supersede(from);
                self.index.replace(&mut append.index, &found, to, found.entry().tombstone);
                append.kill(from, &one.weight);
                let counts = one.weight.tombstone || self.keyspaces.is_kept(one.weight.incarnation);
                if let Some(account) = append.account(to.slot)
                    && counts
                {
                    account.revive(&one.weight);
                }
            }
            (Some(found), Destination::Cold { .. }) => {
                append.supersede(from);
                self.remove_entry(append, &found);
                append.kill(from, &one.weight);
            }
            (None, Destination::Cold { ordinal }) => {
                if let Some(entry) = archive {
                    let place = OldPlace::Cold { archive: entry.archive.id().0, ordinal };
                    self.versions.move_warm(tag, from, place);
                    let Weight { incarnation, deadline_ms, len, .. } = one.weight;
                    entry.dead.mark(ordinal, incarnation, deadline_ms, len);
                }
            }
            (None, Destination::Warm(to)) => {
                if self.versions.move_warm(tag, from, OldPlace::Warm(to)) {
                    append.pin(to, one.weight.len);
                }
            }
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
