//! The point index of the warm tier: from a key's tag to the location of its newest record.
//! Knows tags and locations; knows nothing of keys, records or what a location holds.
//!
//! Who may call: lookups from any thread, without a lock. Changes need the one [`IndexWriter`],
//! which stands behind the append lock. What holds always: one entry a key; an entry is found in
//! the table that its home belongs to. What stays valid: a `Found` until the next change.
//!
//! Growth (`grow`) pairs two tables: homes of the old table before `progress` have moved to the new
//! one. Entries are copied, not moved, so a reader with an old view finds the entry as it was when
//! its call began; a miss counts only if the view is still the current one.

pub(crate) mod searches;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::error::{Error, Result};
use crate::format::cursor::FieldError;
use crate::ids::Location;
use crate::warm::index::bucket::{ENTRIES, IndexEntry, WORDS};
use crate::warm::index::table::{Fill, Found, Table};

/// Entries for each hundred places at which the table grows.
const LOAD_PERCENT_MAX: u64 = 88;
/// Entries for each hundred places below which the table shrinks.
const LOAD_PERCENT_MIN: u64 = 40;
/// A table shrinks to no less than one part of so many at a time.
const SHRINK_MAX: u64 = 4;
/// Homes of the smallest table.
const HOMES_MIN: u64 = 64;
/// Buckets that one change moves while the table is changing its size.
const BUCKETS_PER_STEP: u64 = 8;
/// Entries without room near their homes that filling a table puts up with.
const LATE_MAX: usize = 64;
/// Given-back memory goes in pieces of this many homes: 2 MiB.
const HOMES_PER_PIECE: u64 = 1 << 15;

/// One view: a table, and the one it is replacing while its size changes.
#[derive(Debug)]
struct View {
    old: Option<Arc<Table>>,
    new: Arc<Table>,
    /// Homes of `old` before this one have moved.
    progress: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct PointIndex {
    view: ArcSwap<View>,
    count: AtomicU64,
    charged: AtomicU64,
}

/// The right to change the index; there is one, and the append lock protects it.
#[derive(Debug)]
pub(crate) struct IndexWriter {
    given_back: u64,
    /// The table shrinks only when it holds fewer entries.
    shrink_below: u64,
}

impl IndexWriter {
    fn new() -> Self {
        Self { given_back: 0, shrink_below: u64::MAX }
    }
}

/// An entry together with the table that it was found in.
#[derive(Debug)]
pub(crate) struct IndexFound {
    table: Arc<Table>,
    found: Found,
}

/// An index that is being made of entries in the order of their tags.
#[derive(Debug)]
pub(crate) struct Filling<'t> {
    fill: Fill<'t>,
    count: u64,
    /// Entries that found no room near their homes.
    late: Vec<IndexEntry>,
    /// There were more of these than tags that are spread like hashes can explain.
    crowded: bool,
}

impl Filling<'_> {
    /// The tag is at or above that of the entry before.
    #[inline]
    pub(crate) fn push(&mut self, entry: IndexEntry) {
        if self.fill.push(entry) {
            self.count += 1;
        } else if self.late.len() < LATE_MAX {
            self.late.push(entry);
        } else {
            self.crowded = true;
        }
    }
}

impl IndexFound {
    pub(crate) fn entry(&self) -> &IndexEntry {
        &self.found.entry
    }
}

impl View {
    /// The table in which the tag's entry is, as of now.
    fn table(&self, tag: u32) -> &Arc<Table> {
        match &self.old {
            Some(old) if old.home(tag) >= self.progress.load(Ordering::Acquire) => old,
            _ => &self.new,
        }
    }
}

impl PointIndex {
    pub(crate) fn new(expected: u64) -> io::Result<(Self, IndexWriter)> {
        let homes = homes_for(expected);
        let new = Arc::new(Table::new(homes)?);
        let charged = AtomicU64::new(new.len_bytes());
        let view = View { old: None, new, progress: AtomicU64::new(0) };
        let index = Self { view: ArcSwap::from_pointee(view), count: AtomicU64::new(0), charged };
        Ok((index, IndexWriter::new()))
    }

    /// An index of the entries that `feed` pushes in the order of their tags, `expected` or fewer.
    pub(crate) fn filled(
        expected: u64,
        feed: impl FnOnce(&mut Filling<'_>) -> Result<()>,
    ) -> Result<(Self, IndexWriter)> {
        let grow = |error| Error::io("make index", "anonymous memory", error);
        let (index, mut writer) = Self::new(expected).map_err(grow)?;
        let view = index.view.load_full();
        let fill = view.new.fill();
        let mut filling = Filling { fill, count: 0, late: Vec::new(), crowded: false };
        feed(&mut filling)?;
        filling.fill.flush();
        if filling.crowded {
            let error = FieldError::new("tags", "crowded", "spread like hashes");
            return Err(error.at("make index", "all segments", 0).into());
        }
        index.count.store(filling.count, Ordering::Relaxed);
        for entry in filling.late {
            let (tag, at) = (entry.tag, entry.location);
            index.insert(&mut writer, tag, at, entry.tombstone).map_err(grow)?;
        }
        index.fit(&mut writer).map_err(grow)?;
        Ok((index, writer))
    }

    /// The homes of the table, once no change of size is under way, and every bucket in order.
    pub(crate) fn each_bucket(
        &self,
        writer: &mut IndexWriter,
        mut each: impl FnMut(&[u64; WORDS]),
    ) -> io::Result<u64> {
        while self.carry_on(writer, u64::MAX)? {}
        let view = self.view.load();
        view.new.each_bucket(|bucket| each(bucket.words()));
        Ok(view.new.homes())
    }

    /// An index of a table that was put back, and its entries.
    pub(crate) fn restored(table: Table, count: u64) -> (Self, IndexWriter) {
        let charged = AtomicU64::new(table.len_bytes());
        let view = View { old: None, new: Arc::new(table), progress: AtomicU64::new(0) };
        let count = AtomicU64::new(count);
        let index = Self { view: ArcSwap::from_pointee(view), count, charged };
        (index, IndexWriter::new())
    }

    /// Entries, tombstones included.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes of anonymous memory that the index holds.
    pub(crate) fn charged_len(&self) -> u64 {
        self.charged.load(Ordering::Relaxed)
    }

    /// Hands the entries of all these tags to `each`, tag by tag, and touches none. The homes are
    /// loaded into the cache ahead of the search, so that the waits for them overlap. `false` when
    /// the table was replaced meanwhile: then some may be missing.
    pub(crate) fn peek_all(&self, tags: &[u32], mut each: impl FnMut(u32, &IndexEntry)) -> bool {
        let view = self.view.load();
        for &tag in tags {
            view.table(tag).prefetch(tag);
        }
        if view.old.is_some() {
            // While the table changes its size, each tag is asked for by itself.
            for &tag in tags {
                let walked = self.peek(tag, |entry| {
                    each(tag, entry);
                    Ok::<_, Infallible>(false)
                });
                debug_assert!(walked.is_ok_and(|found| found.is_none()));
            }
            return true;
        }
        for &tag in tags {
            view.new.visit(tag, false, |entry| each(tag, entry));
        }
        Arc::ptr_eq(&view, &self.view.load())
    }

    /// The entry that `is_match` accepts among those with this tag.
    pub(crate) fn find<E>(
        &self,
        tag: u32,
        is_match: impl FnMut(&IndexEntry) -> Result<bool, E>,
    ) -> Result<Option<IndexEntry>, E> {
        self.look(tag, true, is_match)
    }

    /// The same without touching it.
    pub(crate) fn peek<E>(
        &self,
        tag: u32,
        is_match: impl FnMut(&IndexEntry) -> Result<bool, E>,
    ) -> Result<Option<IndexEntry>, E> {
        self.look(tag, false, is_match)
    }

    fn look<E>(
        &self,
        tag: u32,
        touch: bool,
        mut is_match: impl FnMut(&IndexEntry) -> Result<bool, E>,
    ) -> Result<Option<IndexEntry>, E> {
        loop {
            let view = self.view.load();
            let table = view.table(tag);
            if let Some(found) = table.find(tag, &mut is_match)? {
                if touch && !found.entry.touched {
                    table.touch(&found);
                }
                return Ok(Some(found.entry));
            }
            if Arc::ptr_eq(view.table(tag), table) && Arc::ptr_eq(&view, &self.view.load()) {
                return Ok(None);
            }
        }
    }

    /// The same for a writer: a place that can be changed, and no touch.
    pub(crate) fn find_for_change<E>(
        &self,
        _writer: &IndexWriter,
        tag: u32,
        is_match: impl FnMut(&IndexEntry) -> Result<bool, E>,
    ) -> Result<Option<IndexFound>, E> {
        let view = self.view.load();
        let table = Arc::clone(view.table(tag));
        let found = table.find(tag, is_match)?;
        Ok(found.map(|found| IndexFound { table, found }))
    }

    /// Adds the entry of a key that has none.
    pub(crate) fn insert(
        &self,
        writer: &mut IndexWriter,
        tag: u32,
        location: Location,
        tombstone: bool,
    ) -> io::Result<()> {
        self.step(writer, BUCKETS_PER_STEP)?;
        let entry = IndexEntry { tag, location, tombstone, touched: false };
        let inserted = self.view.load().table(tag).insert(entry);
        if !inserted {
            self.regrow(writer)?;
            let view = self.view.load();
            assert!(view.table(tag).insert(entry), "a table that just grew has room at its end");
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    #[expect(clippy::unused_self, reason = "changes go through the index and its one writer")]
    pub(crate) fn replace(
        &self,
        _writer: &mut IndexWriter,
        found: &IndexFound,
        location: Location,
        tombstone: bool,
    ) {
        found.table.replace(&found.found, location, tombstone);
    }

    pub(crate) fn remove(&self, writer: &mut IndexWriter, found: &IndexFound) -> io::Result<()> {
        found.table.remove(&found.found);
        self.count.fetch_sub(1, Ordering::Relaxed);
        if self.view.load().old.is_none() {
            self.shrink(writer)?;
        }
        self.step(writer, BUCKETS_PER_STEP)
    }

    /// Gives back what was made for entries that did not come.
    pub(crate) fn fit(&self, writer: &mut IndexWriter) -> io::Result<()> {
        loop {
            self.migrate(writer, &self.view.load_full(), u64::MAX)?;
            self.shrink(writer)?;
            if self.view.load().old.is_none() {
                return Ok(());
            }
        }
    }

    /// Walks up to `homes_max` homes from `from` (a tag, or 2^32 for the end), in tag order.
    /// Returns where to go on. The caller holds the append lock, so a piece is one moment.
    pub(crate) fn walk(
        &self,
        _writer: &IndexWriter,
        from: u64,
        homes_max: u64,
        mut each: impl FnMut(IndexEntry),
    ) -> Option<u64> {
        let tag = u32::try_from(from).ok()?;
        let view = self.view.load();
        let table = view.table(tag);
        let bound = match &view.old {
            Some(old) if !Arc::ptr_eq(table, old) => {
                old.first_tag(view.progress.load(Ordering::Acquire))
            }
            _ => 1 << 32,
        };
        let first = table.home(tag);
        for home in first..(first + homes_max).min(table.homes()) {
            table.entries_of(home, |entry| {
                let at = u64::from(entry.tag);
                if at >= from && at < bound {
                    each(entry);
                }
            });
            let next = table.first_tag(home + 1);
            if next >= bound {
                return (bound < 1 << 32).then_some(bound);
            }
        }
        let next = table.first_tag((first + homes_max).min(table.homes()));
        (next < 1 << 32).then_some(next)
    }

    /// Starts or carries on a change of size.
    fn step(&self, writer: &mut IndexWriter, buckets: u64) -> io::Result<()> {
        let view = self.view.load();
        if view.old.is_some() {
            return self.migrate(writer, &view, buckets);
        }
        let homes = view.new.homes();
        if self.count() * 100 >= homes * ENTRIES as u64 * LOAD_PERCENT_MAX {
            writer.shrink_below = u64::MAX;
            self.resize(writer, homes + homes.div_ceil(8))?;
        }
        Ok(())
    }

    /// Starts to make a table smaller that has lost most of its entries; one that waits for the
    /// entries it was made for stays. To a quarter at most: while the entries move, one step for
    /// each change, the new table must have room for every change.
    fn shrink(&self, writer: &mut IndexWriter) -> io::Result<()> {
        let (count, homes) = (self.count(), self.view.load().new.homes());
        let wanted = homes_for(count).max(homes / SHRINK_MAX);
        if count < writer.shrink_below
            && count * 100 < homes * ENTRIES as u64 * LOAD_PERCENT_MIN
            && wanted * 4 / 3 < homes
        {
            self.resize(writer, wanted)?;
        }
        Ok(())
    }

    /// Finishes any change of size under way and makes the table larger at once.
    fn regrow(&self, writer: &mut IndexWriter) -> io::Result<()> {
        let view = self.view.load_full();
        self.migrate(writer, &view, u64::MAX)?;
        let homes = self.view.load().new.homes();
        self.resize(writer, homes + homes.div_ceil(4))?;
        let view = self.view.load_full();
        self.migrate(writer, &view, u64::MAX)
    }

    fn resize(&self, writer: &mut IndexWriter, homes: u64) -> io::Result<()> {
        let old = Arc::clone(&self.view.load().new);
        let new = Arc::new(Table::new(homes)?);
        writer.given_back = 0;
        let view = View { old: Some(old), new, progress: AtomicU64::new(0) };
        self.view.store(Arc::new(view));
        Ok(())
    }

    /// Copies `buckets` more homes of the old table into the new one.
    fn migrate(&self, writer: &mut IndexWriter, view: &View, buckets: u64) -> io::Result<()> {
        let Some(old) = &view.old else { return Ok(()) };
        let from = view.progress.load(Ordering::Relaxed);
        let to = from.saturating_add(buckets).min(old.homes());
        if !old.copy_homes(from..to, &view.new) {
            return self.unite(writer, old, &view.new, from);
        }
        view.progress.store(to, Ordering::Release);
        if to == old.homes() {
            self.charged.store(view.new.len_bytes(), Ordering::Relaxed);
            let view = View { old: None, new: Arc::clone(&view.new), progress: AtomicU64::new(0) };
            self.view.store(Arc::new(view));
            return Ok(());
        }
        if to - writer.given_back >= 2 * HOMES_PER_PIECE {
            // One piece stays behind: entries of the last homes may have spilled into it.
            old.give_back_before(writer.given_back, to - HOMES_PER_PIECE);
            writer.given_back = to - HOMES_PER_PIECE;
        }
        // Pages of the new table that nothing was moved to are not there yet.
        let reached =
            u32::try_from(old.first_tag(to)).map_or(view.new.homes(), |t| view.new.home(t));
        let left = old.len_bytes() - old.len_before(writer.given_back);
        self.charged.store(left + view.new.len_before(reached), Ordering::Relaxed);
        Ok(())
    }

    /// Puts everything into one table that has room, at once: what remained in the old one is not
    /// spread like hashes, because it was entries of one range of tags that left, and a table for
    /// its number alone has no room where it is dense. Homes before `home` have moved.
    fn unite(
        &self,
        writer: &mut IndexWriter,
        old: &Arc<Table>,
        new: &Arc<Table>,
        home: u64,
    ) -> io::Result<()> {
        let mut homes = old.homes().max(new.homes());
        loop {
            let wide = Table::new(homes)?;
            let mut fits = true;
            let moved = old.first_tag(home);
            for home in 0..new.homes() {
                new.entries_of(home, |entry| {
                    fits &= u64::from(entry.tag) >= moved || wide.insert(entry);
                });
            }
            (home..old.homes())
                .for_each(|home| old.entries_of(home, |entry| fits &= wide.insert(entry)));
            if fits {
                // It would only come to this again until much more has left.
                writer.shrink_below = self.count() / 2;
                self.charged.store(wide.len_bytes(), Ordering::Relaxed);
                let view = View { old: None, new: Arc::new(wide), progress: AtomicU64::new(0) };
                self.view.store(Arc::new(view));
                return Ok(());
            }
            homes += homes.div_ceil(4);
        }
    }

    /// Carries on a change of size while nobody inserts. Answers whether one is under way.
    pub(crate) fn carry_on(&self, writer: &mut IndexWriter, buckets: u64) -> io::Result<bool> {
        let view = self.view.load_full();
        self.migrate(writer, &view, buckets)?;
        Ok(view.old.is_some())
    }
}

/// Homes for so many entries at half way between growing and having grown.
fn homes_for(count: u64) -> u64 {
    (count * 100).div_ceil(ENTRIES as u64 * (LOAD_PERCENT_MAX - 6)).max(HOMES_MIN)
}

#[cfg(test)]
mod tests;
