//! Wraps a file system and counts calls and bytes by kind.
//! Knows which call was made; knows nothing of why, nor of what passes through a map.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::map::Map;
use super::{Dir, Entry, File, Lock, Vfs};

/// What can be counted. Calls that fail count too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// Creating, opening or removing a directory, or asking for one.
    Directory,
    /// Making a file.
    Create,
    /// Opening a file.
    Open,
    /// Listing the names of a directory.
    List,
    /// Removing a name.
    Unlink,
    /// Making names durable.
    SyncDir,
    /// Taking a lock.
    Lock,
    /// Asking for a length.
    Length,
    /// Reading; bytes are counted.
    Read,
    /// Writing; bytes are counted.
    Write,
    /// Allocating; bytes are counted.
    Allocate,
    /// Giving blocks back.
    Punch,
    /// Making a file durable.
    Sync,
    /// Making a range durable; bytes are counted.
    SyncRange,
    /// Mapping a file.
    Map,
}

const CALL_COUNT: usize = Call::Map as usize + 1;

/// Calls and bytes so far, of one file system and everything opened through it.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    calls: [AtomicU64; CALL_COUNT],
    bytes: [AtomicU64; CALL_COUNT],
}

impl Counts {
    /// How often this was called.
    pub(crate) fn calls(&self, call: Call) -> u64 {
        self.calls.get(call as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How many bytes those calls asked for.
    pub(crate) fn bytes(&self, call: Call) -> u64 {
        self.bytes.get(call as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// All calls of every kind.
    pub(crate) fn all_calls(&self) -> u64 {
        self.calls.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn note(&self, call: Call, len_bytes: u64) {
        if let Some(count) = self.calls.get(call as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(count) = self.bytes.get(call as usize) {
            count.fetch_add(len_bytes, Ordering::Relaxed);
        }
    }
}

/// A file system that counts what is asked of the one inside.
#[derive(Debug)]
pub(crate) struct CountingVfs {
    inner: Arc<dyn Vfs>,
    counts: Arc<Counts>,
}

impl CountingVfs {
    /// Counts from 0.
    pub(crate) fn new(inner: Arc<dyn Vfs>) -> Self {
        Self { inner, counts: Arc::default() }
    }

    /// The counts, which go on.
    pub(crate) fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    fn dir(&self, inner: io::Result<Arc<dyn Dir>>) -> io::Result<Arc<dyn Dir>> {
        Ok(Arc::new(CountingDir { inner: inner?, counts: self.counts() }))
    }
}

impl Vfs for CountingVfs {
    fn create_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        self.counts.note(Call::Directory, 0);
        self.dir(self.inner.create_dir(path))
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        self.counts.note(Call::Directory, 0);
        self.dir(self.inner.open_dir(path))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.counts.note(Call::Directory, 0);
        self.inner.remove_dir(path)
    }

    fn dir_exists(&self, path: &Path) -> bool {
        self.counts.note(Call::Directory, 0);
        self.inner.dir_exists(path)
    }
}

#[derive(Debug)]
struct CountingDir {
    inner: Arc<dyn Dir>,
    counts: Arc<Counts>,
}

impl CountingDir {
    fn file(&self, inner: io::Result<Arc<dyn File>>) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(CountingFile { inner: inner?, counts: Arc::clone(&self.counts) }))
    }
}

impl Dir for CountingDir {
    fn path(&self) -> PathBuf {
        self.inner.path()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.counts.note(Call::Create, 0);
        self.file(self.inner.create(name))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.counts.note(Call::Open, 0);
        self.file(self.inner.open(name))
    }

    fn list(&self) -> io::Result<Vec<Entry>> {
        self.counts.note(Call::List, 0);
        self.inner.list()
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.counts.note(Call::Unlink, 0);
        self.inner.unlink(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.counts.note(Call::SyncDir, 0);
        self.inner.sync()
    }

    fn lock(&self, name: &str, content: &[u8]) -> io::Result<Box<dyn Lock>> {
        self.counts.note(Call::Lock, 0);
        self.inner.lock(name, content)
    }
}

#[derive(Debug)]
struct CountingFile {
    inner: Arc<dyn File>,
    counts: Arc<Counts>,
}

impl File for CountingFile {
    fn len(&self) -> io::Result<u64> {
        self.counts.note(Call::Length, 0);
        self.inner.len()
    }

    fn allocated_len(&self) -> io::Result<u64> {
        self.counts.note(Call::Length, 0);
        self.inner.allocated_len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.counts.note(Call::Read, buf.len() as u64);
        self.inner.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.counts.note(Call::Write, bytes.len() as u64);
        self.inner.write_all_at(bytes, offset)
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        self.counts.note(Call::Allocate, to.saturating_sub(from));
        self.inner.allocate(from, to)
    }

    fn punch_to_end(&self, from: u64) -> io::Result<()> {
        self.counts.note(Call::Punch, 0);
        self.inner.punch_to_end(from)
    }

    fn sync(&self) -> io::Result<()> {
        self.counts.note(Call::Sync, 0);
        self.inner.sync()
    }

    fn sync_range(&self, map: &Map, from: u64, to: u64) -> io::Result<()> {
        self.counts.note(Call::SyncRange, to.saturating_sub(from));
        self.inner.sync_range(map, from, to)
    }

    fn map(&self, capacity: u64, published: u64) -> io::Result<Arc<Map>> {
        self.counts.note(Call::Map, 0);
        self.inner.map(capacity, published)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::sim::SimVfs;

    #[test]
    fn calls_and_bytes_are_counted_and_reads_through_a_map_are_not() {
        let vfs = CountingVfs::new(Arc::new(SimVfs::new(0)));
        let counts = vfs.counts();
        let file = vfs.create_dir(Path::new("/a")).unwrap().create("x").unwrap();
        file.write_all_at(b"12345", 0).unwrap();
        file.read_exact_at(&mut [0; 3], 1).unwrap();
        assert!(file.read_exact_at(&mut [0; 3], 9).is_err());
        assert_eq!((counts.calls(Call::Write), counts.bytes(Call::Write)), (1, 5));
        assert_eq!((counts.calls(Call::Read), counts.bytes(Call::Read)), (2, 6));
        let map = file.map(64, 5).unwrap();
        let before = counts.all_calls();
        assert_eq!(map.slice(0..5).unwrap(), b"12345");
        assert_eq!(counts.all_calls(), before);
    }
}
