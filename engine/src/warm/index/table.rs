//! One table of buckets in hash order: an entry lives in its home bucket or in one shortly behind.
//! Knows placing and finding; knows nothing of growth, which pairs two tables.
//!
//! The home of a tag is `tag * homes / 2^32`, so bucket order is hash order, whatever the size.
//! An entry that finds its home full goes to the next bucket with room, and each bucket that it
//! passes counts one more spill; a search goes on only while the spill count says so.

use std::io;
use std::ops::Range;
use std::sync::atomic::AtomicU64;

use crate::ids::Location;
use crate::vfs::map::anon::AtomicMap;
use crate::warm::index::bucket::{self, ENTRIES, IndexEntry, Snapshot, WORDS};

/// Buckets behind the last home, so that the end needs no wrapping.
const TAIL_BUCKETS: usize = 64;
/// Bytes of one bucket.
pub(crate) const BUCKET_LEN: usize = WORDS * 8;
/// Buckets from an entry to its home at most in a table that is filled, put back or moved to: many
/// times what tags that are spread like hashes need.
const DISTANCE_MAX: usize = 256;
/// Buckets in a row that pushed entries on, at most, in a table that is put back.
const SPILL_RUN_MAX: u32 = 1024;
/// What the system hands out at once for a large map: a huge page.
const PIECE_LEN: u64 = 2 << 20;

/// What a search for one tag decided about a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    bucket: usize,
    position: usize,
    /// The entry as it was read.
    pub entry: IndexEntry,
}

#[derive(Debug)]
pub(crate) struct Table {
    homes: u64,
    map: AtomicMap,
}

impl Table {
    pub(crate) fn new(homes: u64) -> io::Result<Self> {
        let len = Self::buckets_of(homes).saturating_mul(BUCKET_LEN);
        Ok(Self { homes, map: AtomicMap::new(len, len >= 4 << 20)? })
    }

    /// Buckets of a table with so many homes.
    pub(crate) fn buckets_of(homes: u64) -> usize {
        usize::try_from(homes).unwrap_or(usize::MAX).saturating_add(TAIL_BUCKETS)
    }

    pub(crate) fn homes(&self) -> u64 {
        self.homes
    }

    /// Bytes of anonymous memory, before anything was given back.
    pub(crate) fn len_bytes(&self) -> u64 {
        self.buckets() as u64 * BUCKET_LEN as u64
    }

    /// Bytes of the buckets before `home`, in whole pieces of memory.
    pub(crate) fn len_before(&self, home: u64) -> u64 {
        (home * BUCKET_LEN as u64).next_multiple_of(PIECE_LEN).min(self.len_bytes())
    }

    /// Buckets, those behind the last home included.
    pub(crate) fn buckets(&self) -> usize {
        self.map.words().len() / WORDS
    }

    pub(crate) fn home(&self, tag: u32) -> u64 {
        (u64::from(tag) * self.homes) >> 32
    }

    /// The smallest tag whose home is `home` or later; 2^32 behind the last.
    pub(crate) fn first_tag(&self, home: u64) -> u64 {
        (home << 32).div_ceil(self.homes).min(1 << 32)
    }

    fn words(&self, bucket: usize) -> &[AtomicU64; WORDS] {
        let (buckets, _) = self.map.words().as_chunks::<WORDS>();
        #[expect(clippy::indexing_slicing, reason = "searches end at the table's last bucket")]
        &buckets[bucket]
    }

    /// Asks for the home of `tag`, without waiting for it.
    #[inline]
    pub(crate) fn prefetch(&self, tag: u32) {
        let home = usize::try_from(self.home(tag)).unwrap_or(0);
        self.map.prefetch_word(home * WORDS);
    }

    /// Hands every entry with this tag to `is_match` until it says yes.
    pub(crate) fn find<E>(
        &self,
        tag: u32,
        mut is_match: impl FnMut(&IndexEntry) -> Result<bool, E>,
    ) -> Result<Option<Found>, E> {
        let (buckets, _) = self.map.words().as_chunks::<WORDS>();
        let home = usize::try_from(self.home(tag)).unwrap_or(0);
        for (bucket, words) in buckets.iter().enumerate().skip(home) {
            let look = bucket::look(words, tag);
            if look.more {
                let found = Self::find_among(bucket, words, tag, &mut is_match)?;
                if found.is_some() {
                    return Ok(found);
                }
            } else if let Some((position, entry)) = look.first
                && is_match(&entry)?
            {
                return Ok(Some(Found { bucket, position, entry }));
            }
            if !look.spill {
                break;
            }
        }
        Ok(None)
    }

    /// Hands every entry of one bucket with this tag to `is_match` until it says yes.
    #[cold]
    fn find_among<E>(
        bucket: usize,
        words: &[AtomicU64; WORDS],
        tag: u32,
        is_match: &mut impl FnMut(&IndexEntry) -> Result<bool, E>,
    ) -> Result<Option<Found>, E> {
        let snapshot = Snapshot::read(words);
        let mut matches = snapshot.matches(tag);
        while matches != 0 {
            let position = matches.trailing_zeros() as usize;
            matches &= matches - 1;
            if let Some(entry) = snapshot.entry(position)
                && is_match(&entry)?
            {
                return Ok(Some(Found { bucket, position, entry }));
            }
        }
        Ok(None)
    }

    /// Hands every entry with this tag to `each`; `touch` marks them.
    pub(crate) fn visit(&self, tag: u32, touch: bool, mut each: impl FnMut(&IndexEntry)) {
        let (buckets, _) = self.map.words().as_chunks::<WORDS>();
        let home = usize::try_from(self.home(tag)).unwrap_or(0);
        for words in buckets.iter().skip(home) {
            let mut one = |position: usize, entry: &IndexEntry| {
                if touch && !entry.touched {
                    bucket::touch(words, position);
                }
                each(entry);
            };
            let look = bucket::look(words, tag);
            if look.more {
                let snapshot = Snapshot::read(words);
                let matches = snapshot.matches(tag);
                for position in (0..ENTRIES).filter(|position| matches >> position & 1 != 0) {
                    if let Some(entry) = snapshot.entry(position) {
                        one(position, &entry);
                    }
                }
            } else if let Some((position, entry)) = look.first {
                one(position, &entry);
            }
            if !look.spill {
                break;
            }
        }
    }

    pub(crate) fn touch(&self, found: &Found) {
        bucket::touch(self.words(found.bucket), found.position);
    }

    /// Places an entry; `false` when the end of the table is full and it must grow first.
    pub(crate) fn insert(&self, entry: IndexEntry) -> bool {
        let home = usize::try_from(self.home(entry.tag)).unwrap_or(0);
        let end = self.buckets();
        let Some((bucket, mut snapshot, position)) = (home..end).find_map(|bucket| {
            let snapshot = Snapshot::read(self.words(bucket));
            snapshot.vacancy().map(|position| (bucket, snapshot, position))
        }) else {
            return false;
        };
        snapshot.set(position, Some(entry));
        snapshot.write(self.words(bucket));
        // A reader that passes before these counts are up misses a key whose put has not returned.
        self.add_spill(home..bucket, 1);
        true
    }

    fn add_spill(&self, buckets: Range<usize>, by: i32) {
        buckets.for_each(|bucket| bucket::add_spill(self.words(bucket), by));
    }

    /// Points the entry at another record.
    pub(crate) fn replace(&self, found: &Found, location: Location, tombstone: bool) {
        let mut snapshot = Snapshot::read(self.words(found.bucket));
        let tag = found.entry.tag;
        let entry = IndexEntry { tag, location, tombstone, touched: false };
        snapshot.set(found.position, Some(entry));
        snapshot.write(self.words(found.bucket));
    }

    pub(crate) fn remove(&self, found: &Found) {
        let mut snapshot = Snapshot::read(self.words(found.bucket));
        snapshot.set(found.position, None);
        snapshot.write(self.words(found.bucket));
        let home = usize::try_from(self.home(found.entry.tag)).unwrap_or(0);
        self.add_spill(home..found.bucket, -1);
    }

    /// Hands every entry whose home is `home` to `each`. The caller may write: nobody else does.
    pub(crate) fn entries_of(&self, home: u64, mut each: impl FnMut(IndexEntry)) {
        let (from, to) = (self.first_tag(home), self.first_tag(home + 1));
        let (buckets, _) = self.map.words().as_chunks::<WORDS>();
        for words in buckets.iter().skip(usize::try_from(home).unwrap_or(usize::MAX)) {
            if !bucket::entries_between(words, from, to, &mut each) {
                break;
            }
        }
    }

    /// Copies the entries of these homes to another table, near their homes there. `false` when
    /// one finds no room. The caller may write; nobody looks for these entries there yet.
    pub(crate) fn copy_homes(&self, homes: Range<u64>, to: &Self) -> bool {
        let (from, until) = (self.first_tag(homes.start), self.first_tag(homes.end));
        let first = usize::try_from(homes.start).unwrap_or(usize::MAX);
        let last = usize::try_from(homes.end).unwrap_or(usize::MAX).saturating_sub(1);
        let (mut fits, mut copy) = (true, Copying::new(to));
        let (buckets, _) = self.map.words().as_chunks::<WORDS>();
        for (bucket, words) in buckets.iter().enumerate().skip(first) {
            let each = |low, high| fits &= copy.place(low, high);
            if !bucket::packed_between(words, from, until, each) && bucket >= last {
                break;
            }
        }
        copy.flush();
        fits
    }

    /// Begins to fill this table, which is empty.
    pub(crate) fn fill(&self) -> Fill<'_> {
        Fill { table: self, bucket: 0, snapshot: Snapshot::default(), len: 0 }
    }

    /// Hands every bucket to `each`, from the first to the last.
    pub(crate) fn each_bucket(&self, mut each: impl FnMut(&Snapshot)) {
        (0..self.buckets()).for_each(|bucket| each(&Snapshot::read(self.words(bucket))));
    }

    /// Puts buckets back where they were kept from, in a table that nobody sees yet: those from
    /// `first` on. Answers how many entries they have; `None` when a bucket cannot be there, or
    /// `may_be` refuses the place of an entry.
    pub(crate) fn restore(
        &self,
        first: usize,
        kept: &[[u8; BUCKET_LEN]],
        may_be: impl Fn(Location) -> bool,
    ) -> Option<u64> {
        let (mut count, mut run) = (0, 0);
        for (bucket, kept) in (first..).zip(kept) {
            if bucket >= self.buckets() {
                return None;
            }
            let kept = Snapshot::restore(kept);
            for position in 0..ENTRIES {
                let Some(entry) = kept.entry(position) else { continue };
                let home = usize::try_from(self.home(entry.tag)).unwrap_or(usize::MAX);
                let near = bucket.checked_sub(home).is_some_and(|far| far <= DISTANCE_MAX);
                if !near || !may_be(entry.location) {
                    return None;
                }
                count += 1;
            }
            run = if kept.spill() == 0 { 0 } else { run + 1 };
            if run > SPILL_RUN_MAX {
                return None;
            }
            kept.place(self.words(bucket));
        }
        Some(count)
    }

    /// Gives the memory of buckets before `home` back, in whole pieces. They read as empty.
    pub(crate) fn give_back_before(&self, from_home: u64, home: u64) {
        let byte = |home: u64| usize::try_from(home).unwrap_or(0) * BUCKET_LEN;
        self.map.give_back(byte(from_home), byte(home));
    }
}

/// Buckets that are open at a time while entries are copied: those of one step and their spill.
const OPEN_MAX: usize = 24;

/// Places entries that come nearly in the order of their tags: buckets that lie side by side are
/// read once and written once for all that comes to them.
#[derive(Debug)]
struct Copying<'t> {
    table: &'t Table,
    /// The first bucket that is open.
    first: usize,
    count: usize,
    open: [Snapshot; OPEN_MAX],
}

impl<'t> Copying<'t> {
    fn new(table: &'t Table) -> Self {
        Self { table, first: 0, count: 0, open: [Snapshot::default(); OPEN_MAX] }
    }

    fn flush(&mut self) {
        for (bucket, snapshot) in (self.first..).zip(self.open.iter().take(self.count)) {
            snapshot.write(self.table.words(bucket));
        }
        self.count = 0;
    }

    /// What a bucket shall hold.
    #[inline]
    fn bucket(&mut self, bucket: usize) -> Option<&mut Snapshot> {
        if self.count == 0 || !(self.first..self.first + OPEN_MAX).contains(&bucket) {
            self.flush();
            self.first = bucket;
        }
        let at = bucket - self.first;
        while self.count <= at {
            let next = Snapshot::read(self.table.words(self.first + self.count));
            *self.open.get_mut(self.count)? = next;
            self.count += 1;
        }
        self.open.get_mut(at)
    }

    /// Places an entry as it is packed; `false` when there is no room near its home.
    #[inline]
    fn place(&mut self, low: u64, high: u64) -> bool {
        let tag = u32::try_from(low >> 32).unwrap_or(0);
        let home = usize::try_from(self.table.home(tag)).unwrap_or(0);
        let end = home.saturating_add(DISTANCE_MAX).min(self.table.buckets());
        for bucket in home..end {
            let Some(snapshot) = self.bucket(bucket) else { return false };
            if let Some(position) = snapshot.vacancy() {
                snapshot.set_packed(position, low, high);
                return true;
            }
            snapshot.set_spill(snapshot.spill().saturating_add(1));
        }
        false
    }
}

/// Fills a table with entries that come in the order of their tags: each bucket is written once,
/// from the first to the last.
#[derive(Debug)]
pub(crate) struct Fill<'t> {
    table: &'t Table,
    bucket: usize,
    snapshot: Snapshot,
    len: usize,
}

impl Fill<'_> {
    /// Places an entry; `false` when there is no room near its home.
    #[inline]
    pub(crate) fn push(&mut self, entry: IndexEntry) -> bool {
        let home = usize::try_from(self.table.home(entry.tag)).unwrap_or(0);
        if home > self.bucket || self.len == ENTRIES {
            let next = home.max(self.bucket + 1);
            if next >= self.table.buckets() || next - home > DISTANCE_MAX {
                return false;
            }
            self.flush();
            self.bucket = next;
        }
        self.snapshot.set(self.len, Some(entry));
        self.len += 1;
        if home < self.bucket {
            self.table.add_spill(home..self.bucket, 1);
        }
        true
    }

    /// Writes the bucket that is being filled.
    pub(crate) fn flush(&mut self) {
        std::mem::take(&mut self.snapshot).write(self.table.words(self.bucket));
        self.len = 0;
    }
}
