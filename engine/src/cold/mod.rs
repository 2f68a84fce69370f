//! The cold tier, L3: immutable archives of sorted, compressed records, and which of them are dead.
//! Knows archives; knows nothing of the hot and warm tiers, of the manifest, or of when to merge.

pub(crate) mod builder;
mod cover;
pub(crate) mod cursor;
pub(crate) mod dead;
pub(crate) mod decode;
pub(crate) mod dictionary;
pub(crate) mod filter;
mod hashes;
pub(crate) mod live;
pub(crate) mod opening;
pub(crate) mod reader;
pub(crate) mod tally;
pub(crate) mod verify;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::cold::dead::DeadBits;
use crate::cold::reader::{Archive, Found, Located};
use crate::error::{Damage, Error, Result};
use crate::format::record::{body_crc, encoded_len};
use crate::hash::KeyHash;
use crate::ids::{ArchiveId, Incarnation, Seq};

/// A live put record on its way into, or out of, an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ColdRecord<'a> {
    pub incarnation: Incarnation,
    pub key: &'a [u8],
    pub seq: Seq,
    /// 0 for none.
    pub deadline_ms: u64,
    /// Computed at the put and copied since.
    pub body_crc: u32,
    pub value: &'a [u8],
}

impl ColdRecord<'_> {
    /// What the record would take in the log: the length that all accounts use.
    pub(crate) fn encoded_len(&self) -> u64 {
        encoded_len(self.key.len(), self.value.len())
    }

    /// Verifies the body checksum; the error is what was computed.
    pub(crate) fn check_body(&self) -> Result<(), u32> {
        let found = body_crc(self.incarnation, self.key, self.value);
        if found == self.body_crc { Ok(()) } else { Err(found) }
    }
}

/// An archive with its dead records.
#[derive(Debug)]
pub(crate) struct ArchiveEntry {
    pub archive: Arc<Archive>,
    pub dead: DeadBits,
}

impl ArchiveEntry {
    /// An archive none of whose records is dead.
    pub(crate) fn new(archive: Arc<Archive>) -> Arc<Self> {
        let created_ms = archive.header().created_ms;
        let dead = DeadBits::new(archive.tables(), archive.record_count(), created_ms);
        Arc::new(Self { archive, dead })
    }

    /// When it was made, in milliseconds since 1970.
    pub(crate) fn created_ms(&self) -> u64 {
        self.archive.header().created_ms
    }

    /// An archive with the bits that [`DeadBits::to_bits`] returned. Reads the blocks with dead
    /// records, to sum them; damaged ones are named, their bits are set and not summed.
    pub(crate) fn restore(archive: Arc<Archive>, bits: &[u8]) -> (Arc<Self>, Vec<Damage>) {
        let entry = Self::new(archive);
        for ordinal in 0..entry.archive.record_count() {
            let byte = bits.get(ordinal as usize / 8).copied().unwrap_or(0);
            if byte & 1 << (ordinal % 8) != 0 {
                entry.dead.set(ordinal);
            }
        }
        let damage = entry.archive.walk_locations(
            |ordinals| ordinals.into_iter().any(|ordinal| entry.dead.is_dead(ordinal)),
            |incarnation, located| {
                if entry.dead.is_dead(located.ordinal) {
                    let Located { deadline_ms, encoded_len, .. } = located;
                    entry.dead.add_sums(incarnation, deadline_ms, encoded_len);
                }
            },
        );
        (entry, damage)
    }
}

/// What a call marked dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marked {
    pub archive: ArchiveId,
    pub located: Located,
}

/// The archives at one moment, in their order. Immutable but for the dead bits.
///
/// Of all archives at most one has a record of a key whose bit is clear; the order does not matter
/// to readers.
#[derive(Debug, Clone, Default)]
pub(crate) struct ArchiveSet {
    entries: Vec<Arc<ArchiveEntry>>,
}

impl ArchiveSet {
    pub(crate) fn new(entries: Vec<Arc<ArchiveEntry>>) -> Self {
        Self { entries }
    }

    pub(crate) fn entries(&self) -> &[Arc<ArchiveEntry>] {
        &self.entries
    }

    pub(crate) fn get(&self, id: ArchiveId) -> Option<&Arc<ArchiveEntry>> {
        self.entries.iter().find(|entry| entry.archive.id() == id)
    }

    /// The set in which `made` stand where the first of `gone` stood, or at the end.
    pub(crate) fn replaced(&self, gone: &[ArchiveId], made: Vec<Arc<ArchiveEntry>>) -> Self {
        let is_gone = |entry: &Arc<ArchiveEntry>| gone.contains(&entry.archive.id());
        let place = self.entries.iter().position(is_gone).unwrap_or(self.entries.len());
        let (before, after) = self.entries.split_at(place);
        let after = after.iter().filter(|entry| !is_gone(entry)).cloned();
        Self { entries: before.iter().cloned().chain(made).chain(after).collect() }
    }

    /// The live record of a key, and the place of its archive in the set.
    ///
    /// Errors: [`Error::Corrupt`] when no live record was found and a place that may hold it is
    /// damaged.
    pub(crate) fn find(
        &self,
        hash: KeyHash,
        incarnation: Incarnation,
        key: &[u8],
    ) -> Result<Option<(Found, usize)>> {
        self.first_live(|entry| {
            let found = entry.archive.find(hash, incarnation, key)?;
            Ok(found.filter(|found| !entry.dead.is_dead(found.ordinal)))
        })
    }

    /// As `find`, without reading the value.
    pub(crate) fn locate(
        &self,
        hash: KeyHash,
        incarnation: Incarnation,
        key: &[u8],
    ) -> Result<Option<(Located, usize)>> {
        self.first_live(|entry| {
            let located = entry.archive.locate(hash, incarnation, key)?;
            Ok(located.filter(|located| !entry.dead.is_dead(located.ordinal)))
        })
    }

    /// Marks the live record of a key dead if its `seq` is below `below`, and returns it.
    pub(crate) fn mark_dead(
        &self,
        hash: KeyHash,
        incarnation: Incarnation,
        key: &[u8],
        below: Seq,
    ) -> Result<Option<Marked>> {
        let marked = self.first_live(|entry| {
            let located = entry.archive.locate(hash, incarnation, key)?;
            Ok(located.filter(|one| {
                let Located { ordinal, deadline_ms, encoded_len, .. } = *one;
                one.seq < below && entry.dead.mark(ordinal, incarnation, deadline_ms, encoded_len)
            }))
        })?;
        Ok(marked.and_then(|(located, place)| {
            let archive = self.entries.get(place)?.archive.id();
            Some(Marked { archive, located })
        }))
    }

    /// The first answer of an archive; a damaged one is only an error when no other answers.
    fn first_live<T>(
        &self,
        mut ask: impl FnMut(&ArchiveEntry) -> Result<Option<T>>,
    ) -> Result<Option<(T, usize)>> {
        let mut failed: Option<Error> = None;
        for (place, entry) in self.entries.iter().enumerate() {
            match ask(entry) {
                Ok(Some(answer)) => return Ok(Some((answer, place))),
                Ok(None) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(None), Err)
    }

    /// Anonymous memory of all archives and their dead bits.
    pub(crate) fn anonymous_len(&self) -> u64 {
        let lens = self.entries.iter();
        lens.map(|entry| entry.archive.anonymous_len() + entry.dead.charged_len()).sum()
    }
}
