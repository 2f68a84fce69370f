//! Memory that is shared: maps of files; `anon` has the anonymous memory.
//! Knows addresses, pages and lengths; knows nothing of what the bytes mean.
//!
//! The one module of the crate, with its part `anon`, that has `unsafe`. Everything they offer is
//! safe to call; what a caller must keep, beyond memory safety, is marked "duty". The invariants:
//!
//! * **M1** A `Map` or an anonymous area keeps its base address and its `capacity` for its whole
//!   life, and `capacity` fits `isize`. No pointer beyond `base + capacity` is ever formed.
//! * **M2** A mapped file never gets shorter while a map of it lives. Nothing in `vfs` can cut a
//!   file: there is no `set_len` in the trait `File`; giving blocks back punches holes and keeps
//!   the length. Another program that writes to our files is outside what a lock protects.
//! * **M3** Bytes below `published` never change while the map lives, bytes at or above it are
//!   never lent out. `slice` reads `published` with Acquire; `publish` writes it with Release after
//!   the stores; it only grows; `store` begins at or above it. So a `&[u8]` never covers a byte
//!   that is still written, and `slice` and `store` need no lock between them. Duty of the owner
//!   of a file: one `MapWriter` a file, and no `write_all_at` or `punch_to_end` below `published`.
//! * **M4** There is at most one `MapWriter` a map (`writing`, taken with Acquire, released with
//!   Release), and its methods that move bytes or bounds take `&mut self`: stores do not race each
//!   other. Maps with an observer are also written by `mirror`; both sides then hold `mirroring`.
//! * **M5** Stores stay below `writable`, which the owner raises only to what `File::allocate`
//!   really allocated, and maps publish at first only what `fstat` says exists. Both duties guard
//!   against SIGBUS, not against undefined behaviour.
#![expect(unsafe_code, reason = "the one module that turns mapped addresses into slices")]
#![expect(clippy::disallowed_types, reason = "maps are made from open files")]

pub(crate) mod anon;

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};
use parking_lot::Mutex;

use crate::vfs::map::anon::{AnonMap, AnonMemory, LINE_LEN, prefetch_line};
use crate::vfs::published::Published;

/// Hears of every store through a map. The simulated disk uses it to see bytes that no call of
/// `File` carried, and files that are not mapped to write them.
pub(crate) trait StoreObserver: Send + Sync {
    /// `bytes` were stored at `offset`. Called on the storing thread, after the copy.
    fn stored(&self, offset: u64, bytes: &[u8]);
}

enum Memory {
    File { raw: MmapRaw, read_only: bool },
    Anon(#[expect(dead_code, reason = "held for as long as the map lives")] AnonMemory),
}

/// A shared map of a file, or the simulator's stand-in for one.
///
/// Readers take slices of what is published; one [`MapWriter`] appends behind it. All methods may
/// be called from any thread.
pub(crate) struct Map {
    // Constant after construction; the others have their own synchronization.
    base: Base,
    capacity: usize,
    memory: Memory,
    observer: Option<Arc<dyn StoreObserver>>,
    /// Bytes that may be read. Grows only.
    published: Published,
    /// Bytes that may be stored to. Written by the holder of `writing` alone.
    writable: AtomicU64,
    /// Whether a `MapWriter` lives.
    writing: AtomicBool,
    /// Protects: the bytes at and above `published` of a map with an observer. A leaf lock, not
    /// held while the observer runs.
    mirroring: Mutex<()>,
}

/// The first byte of a map or area; dangling and never read when its length is 0.
#[derive(Debug, Clone, Copy)]
struct Base(*mut u8);

// SAFETY: a plain address. What may be done through it is decided by `Map` and the areas, whose
// invariants M1 to M5 hold from every thread.
unsafe impl Send for Base {}
// SAFETY: as above; `Base` itself has no interior state.
unsafe impl Sync for Base {}

impl Map {
    /// Maps `capacity` bytes of `file`, of which `published` may be read at once.
    /// Duty: `published` bytes exist in the file (M5).
    pub(crate) fn of_file(
        file: &File,
        capacity: u64,
        published: u64,
        read_only: bool,
    ) -> io::Result<Arc<Self>> {
        let len_bytes = checked_len(capacity)?;
        let mut options = MmapOptions::new();
        options.len(len_bytes);
        let raw =
            if read_only { options.map_raw_read_only(file)? } else { options.map_raw(file)? };
        let base = Base(raw.as_mut_ptr());
        Ok(Self::over(base, len_bytes, published, Memory::File { raw, read_only }, None))
    }

    /// Memory that starts with `initial` and zeros, all of `initial` published.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn anonymous(
        capacity: u64,
        initial: &[u8],
        observer: Option<Arc<dyn StoreObserver>>,
    ) -> io::Result<Arc<Self>> {
        Self::filled(capacity, initial.len() as u64, observer, |bytes| {
            bytes.copy_from_slice(initial);
            Ok(())
        })
    }

    /// Memory of which `fill` writes the first `published` bytes, and zeros.
    pub(crate) fn filled(
        capacity: u64,
        published: u64,
        observer: Option<Arc<dyn StoreObserver>>,
        fill: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<Arc<Self>> {
        let mut area = AnonMap::new(checked_len(capacity)?, false)?;
        let head = area.as_mut_slice().get_mut(..checked_len(published)?);
        fill(head.ok_or(io::ErrorKind::InvalidInput)?)?;
        let AnonMap { base, len_bytes, memory } = area;
        Ok(Self::over(base, len_bytes, published, Memory::Anon(memory), observer))
    }

    fn over(
        base: Base,
        capacity: usize,
        published: u64,
        memory: Memory,
        observer: Option<Arc<dyn StoreObserver>>,
    ) -> Arc<Self> {
        assert!(published <= capacity as u64, "map: {published} published of {capacity} bytes");
        Arc::new(Self {
            base,
            capacity,
            memory,
            observer,
            published: Published::new(published),
            writable: AtomicU64::new(published),
            writing: AtomicBool::new(false),
            mirroring: Mutex::new(()),
        })
    }

    /// The bytes of `range`, or `None` unless it is ordered and ends at or before `published`.
    #[inline]
    pub(crate) fn slice(&self, range: Range<usize>) -> Option<&[u8]> {
        let len_bytes = range.end.checked_sub(range.start)?;
        if range.end as u64 > self.published() {
            return None;
        }
        // SAFETY: `range.start <= range.end <= published <= capacity`: inside the map (M1).
        let start = unsafe { self.base.0.add(range.start) };
        // SAFETY: the bytes lie inside the map (above), initialised by the kernel or by `store`,
        // and do not change while `self` lives, because they are below `published` (M2, M3). The
        // result borrows `self`, which keeps the memory mapped.
        Some(unsafe { slice::from_raw_parts(start, len_bytes) })
    }

    /// All bytes from `start` on, or `None` when nothing is published there.
    #[inline]
    pub(crate) fn slice_from(&self, start: usize) -> Option<&[u8]> {
        self.slice(start..usize::try_from(self.published()).ok()?)
    }

    /// How many bytes from the start may be read. Never shrinks.
    #[inline]
    pub(crate) fn published(&self) -> u64 {
        self.published.get()
    }

    /// The length of the map; what may be published at most.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity as u64
    }

    /// The only writer of this map, or `None` while another lives or when the map is read-only.
    pub(crate) fn writer(self: &Arc<Self>) -> Option<MapWriter> {
        if self.is_read_only() || self.writing.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(MapWriter { map: Arc::clone(self) })
    }

    /// Writes the pages of `from..to` to the file and waits (`msync`). Anonymous maps have nothing
    /// to flush.
    pub(crate) fn flush_range(&self, from: u64, to: u64) -> io::Result<()> {
        let range = self.clip(from, to);
        match &self.memory {
            Memory::File { raw, read_only: false } if !range.is_empty() => {
                raw.flush_range(range.start, range.len())
            }
            _ => Ok(()),
        }
    }

    /// Whether `flush_range` reaches everything that was written to the file through this map.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self.memory, Memory::File { read_only: true, .. })
    }

    /// Takes the page faults of `from..to` now, writable; changes no byte. What is not allocated in
    /// the file is an error. Kernels without `MADV_POPULATE_WRITE` (before 5.14) take them at the
    /// stores.
    pub(crate) fn populate(&self, from: u64, to: u64) -> io::Result<()> {
        match self.advise(Advice::PopulateWrite, self.clip(from, to)) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            result => result,
        }
    }

    /// Tells the kernel that reads will jump about, so that it does not read ahead. Best effort.
    pub(crate) fn advise_random(&self) {
        drop(self.advise(Advice::Random, 0..self.capacity));
    }

    /// Asks the processor for the cache lines of `range`, without waiting for them.
    #[inline]
    pub(crate) fn prefetch_lines(&self, range: Range<usize>) {
        let end = range.end.min(usize::try_from(self.published()).unwrap_or(usize::MAX));
        // Maps begin at a page, so that lines of the file are lines of memory.
        let mut at = range.start - range.start % LINE_LEN;
        while at < end {
            // SAFETY: `at < published <= capacity`: inside the map (M1).
            prefetch_line(unsafe { self.base.0.add(at) });
            at += LINE_LEN;
        }
    }

    /// Starts reading the pages of `range` in. Best effort; one system call, so worth it from
    /// several pages on.
    pub(crate) fn prefetch(&self, range: Range<u64>) {
        drop(self.advise(Advice::WillNeed, self.clip(range.start, range.end)));
    }

    fn advise(&self, advice: Advice, range: Range<usize>) -> io::Result<()> {
        match &self.memory {
            Memory::File { raw, .. } if !range.is_empty() => {
                raw.advise_range(advice, range.start, range.len())
            }
            _ => Ok(()),
        }
    }

    /// Copies bytes that reached the file another way into a map that stands in for it.
    ///
    /// Only for maps with an observer. Asserts that nothing published changes (M3).
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn mirror(&self, offset: u64, bytes: &[u8]) {
        assert!(self.observer.is_some(), "mirror: the map is not the simulator's");
        let _held = self.mirroring.lock();
        let room = usize::try_from(self.capacity().saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = bytes.get(..room).unwrap_or(bytes);
        let below = usize::try_from(self.published().saturating_sub(offset)).unwrap_or(usize::MAX);
        let (below, above) = bytes.split_at(below.min(bytes.len()));
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let same = below.is_empty() || self.slice(start..start + below.len()) == Some(below);
        assert!(same, "write at {offset} changes what is published");
        self.copy_in(offset + below.len() as u64, above);
    }

    /// Makes what was mirrored so far readable: how a map of the simulator begins.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn publish_mirrored(&self, published: u64) {
        assert!(self.observer.is_some() && published <= self.capacity(), "not the simulator's");
        self.writable.fetch_max(published, Ordering::Relaxed);
        self.published.raise(published.max(self.published()));
    }

    fn clip(&self, from: u64, to: u64) -> Range<usize> {
        let bound = |at: u64| usize::try_from(at).map_or(self.capacity, |at| at.min(self.capacity));
        bound(from)..bound(to)
    }

    /// Copies `bytes` to `offset`. The callers hold what M4 asks: the writer, and `mirroring` where
    /// the map has an observer.
    #[inline]
    fn copy_in(&self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset.checked_add(bytes.len() as u64);
        assert!(end.is_some_and(|end| end <= self.capacity()), "copy ends behind the map");
        assert!(offset >= self.published.get(), "copy below what is published");
        #[expect(clippy::cast_possible_truncation, reason = "below `capacity`, a usize")]
        let start = offset as usize;
        // SAFETY: `start + bytes.len() <= capacity` (asserted): inside the map (M1).
        let target = unsafe { self.base.0.add(start) };
        // SAFETY: source is a live slice, target lies inside the map (above). Target bytes are at
        // or above `published` (asserted), so no slice covers them (M3), and `bytes`, were it lent
        // by this map, would lie below: no overlap. No other store runs (M4).
        unsafe { target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Map({} of {} bytes published)", self.published(), self.capacity)
    }
}

/// The only writer of a [`Map`]: stores bytes behind what is published, then publishes them.
///
/// A store is visible to nobody until `publish`; both survive the death of the process. Dropping
/// the writer lets `Map::writer` give another.
#[derive(Debug)]
pub(crate) struct MapWriter {
    map: Arc<Map>,
}

impl MapWriter {
    /// Bytes that may be stored to.
    pub(crate) fn writable(&self) -> u64 {
        self.map.writable.load(Ordering::Relaxed)
    }

    /// Says up to where stores may go. Duty: the file is really allocated up to `to`
    /// (`File::allocate`), else a store may end in a SIGBUS (M5).
    pub(crate) fn set_writable(&mut self, to: u64) {
        assert!(to <= self.map.capacity(), "writable up to {to} of {}", self.map.capacity);
        assert!(to >= self.map.published(), "writable up to {to}, below what is published");
        self.map.writable.store(to, Ordering::Relaxed);
    }

    /// Copies `bytes` to `offset`, which is at or above `published`; the end is at or below
    /// `writable`. The same place may be stored to again until it is published.
    #[inline]
    pub(crate) fn store(&mut self, offset: u64, bytes: &[u8]) {
        let writable = self.writable();
        let end = offset.checked_add(bytes.len() as u64);
        assert!(end.is_some_and(|end| end <= writable), "store at {offset}: beyond {writable}");
        match &self.map.observer {
            None => self.map.copy_in(offset, bytes),
            Some(observer) => {
                let held = self.map.mirroring.lock();
                self.map.copy_in(offset, bytes);
                drop(held);
                observer.stored(offset, bytes);
            }
        }
    }

    /// Lets readers see everything below `to`. Duty: all of it was stored.
    #[inline]
    pub(crate) fn publish(&mut self, to: u64) {
        let published = self.map.published.get();
        let writable = self.writable();
        assert!(to >= published, "publish {to}: {published} are published");
        assert!(to <= writable.max(published), "publish {to}: beyond {writable}");
        let _held = self.map.observer.as_ref().map(|_| self.map.mirroring.lock());
        self.map.published.raise(to);
    }

    /// As [`Map::populate`], below `writable`.
    pub(crate) fn populate(&self, from: u64, to: u64) -> io::Result<()> {
        let writable = self.writable();
        assert!(to <= writable, "populate up to {to}: beyond {writable}");
        self.map.populate(from, to)
    }
}

impl Drop for MapWriter {
    fn drop(&mut self) {
        self.map.writing.store(false, Ordering::Release);
    }
}

/// Refuses lengths that no pointer arithmetic can cover (M1).
fn checked_len(len_bytes: u64) -> io::Result<usize> {
    isize::try_from(len_bytes)
        .map(isize::unsigned_abs)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "map longer than the memory"))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn empty_map(capacity: u64) -> Arc<Map> {
        Map::anonymous(capacity, &[], None).unwrap()
    }

    #[test]
    fn nothing_above_published_is_lent_out() {
        let map = empty_map(4096);
        let mut writer = map.writer().unwrap();
        writer.set_writable(4096);
        writer.store(0, b"abcd");
        assert_eq!(map.slice(0..1), None);
        writer.publish(3);
        assert_eq!(map.slice(0..3), Some(&b"abc"[..]));
        assert_eq!(map.slice(0..4), None);
        assert_eq!(map.slice_from(1), Some(&b"bc"[..]));
        assert_eq!(map.slice_from(4), None);
        assert_eq!(map.slice(3..3), Some(&b""[..]));
        #[expect(clippy::reversed_empty_ranges, reason = "what a damaged length may ask for")]
        let reversed = map.slice(2..1);
        assert_eq!(reversed, None);
        assert_eq!(map.slice(usize::MAX..usize::MAX), None);
    }

    #[test]
    fn a_map_has_one_writer_at_a_time() {
        let map = empty_map(64);
        let writer = map.writer().unwrap();
        assert!(map.writer().is_none());
        drop(writer);
        assert!(map.writer().is_some());
    }

    #[test]
    #[should_panic(expected = "copy below what is published")]
    fn what_is_published_cannot_be_stored_to() {
        let map = Map::anonymous(64, b"old", None).unwrap();
        let mut writer = map.writer().unwrap();
        writer.set_writable(64);
        writer.store(2, b"x");
    }

    #[test]
    #[should_panic(expected = "beyond")]
    fn a_store_beyond_the_allocated_length_stops() {
        let mut writer = empty_map(64).writer().unwrap();
        writer.set_writable(8);
        writer.store(4, b"12345");
    }

    #[test]
    #[should_panic(expected = "are published")]
    fn published_never_shrinks() {
        let map = Map::anonymous(64, b"old", None).unwrap();
        map.writer().unwrap().publish(2);
    }

    #[test]
    fn readers_see_whole_stores_while_a_writer_appends() {
        let rounds: usize = if cfg!(miri) { 20 } else { 20_000 };
        let map = empty_map(rounds as u64 * 8);
        let mut writer = map.writer().unwrap();
        writer.set_writable(map.capacity());
        thread::scope(|scope| {
            let reader = Arc::clone(&map);
            scope.spawn(move || {
                let mut seen = 0;
                while seen < rounds {
                    let published = usize::try_from(reader.published()).unwrap() / 8;
                    for index in seen..published {
                        let bytes = reader.slice(index * 8..index * 8 + 8).unwrap();
                        assert_eq!(bytes, (index as u64).to_le_bytes());
                    }
                    seen = published;
                    thread::yield_now();
                }
            });
            for index in 0..rounds {
                let offset = index as u64 * 8;
                writer.store(offset, &(index as u64).to_le_bytes());
                writer.publish(offset + 8);
            }
        });
        assert_eq!(map.published(), map.capacity());
    }

    struct Heard(Mutex<Vec<(u64, Vec<u8>)>>);

    impl StoreObserver for Heard {
        fn stored(&self, offset: u64, bytes: &[u8]) {
            self.0.lock().push((offset, bytes.to_vec()));
        }
    }

    #[test]
    fn an_observer_hears_stores_and_a_mirror_reaches_readers() {
        let heard = Arc::new(Heard(Mutex::new(Vec::new())));
        let observer = Arc::<Heard>::clone(&heard);
        let map = Map::anonymous(32, b"ab", Some(observer)).unwrap();
        let mut writer = map.writer().unwrap();
        writer.set_writable(32);
        writer.store(2, b"cd");
        map.mirror(1, b"bCDE");
        writer.publish(5);
        assert_eq!(map.slice(0..5), Some(&b"abCDE"[..]));
        assert_eq!(*heard.0.lock(), [(2, b"cd".to_vec())]);
    }

    #[test]
    fn a_map_of_no_bytes_is_empty() {
        assert_eq!(empty_map(0).slice(0..0), Some(&b""[..]));
    }
}
