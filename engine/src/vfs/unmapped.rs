//! A file system over another one that maps nothing: for hosts that must not take a SIGBUS.
//! Knows calls and bytes; knows nothing of what they mean.
//!
//! `map` answers memory that the file was read into. What is stored there goes to the file by a
//! call, before the store returns; the first such call that fails is the answer of every later
//! one that writes or syncs. Files that only grow old are better read by `View`, piece by piece.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::map::{Map, StoreObserver};
use super::{Dir, Entry, File, Lock, Vfs};

/// Another file system without its maps.
#[derive(Debug)]
pub(crate) struct UnmappedVfs {
    base: Arc<dyn Vfs>,
}

impl UnmappedVfs {
    pub(crate) fn new(base: Arc<dyn Vfs>) -> Self {
        Self { base }
    }
}

impl Vfs for UnmappedVfs {
    fn create_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        Ok(Arc::new(UnmappedDir { base: self.base.create_dir(path)? }))
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        Ok(Arc::new(UnmappedDir { base: self.base.open_dir(path)? }))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.base.remove_dir(path)
    }

    fn dir_exists(&self, path: &Path) -> bool {
        self.base.dir_exists(path)
    }
}

#[derive(Debug)]
struct UnmappedDir {
    base: Arc<dyn Dir>,
}

impl Dir for UnmappedDir {
    fn path(&self) -> PathBuf {
        self.base.path()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(UnmappedFile::over(self.base.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(UnmappedFile::over(self.base.open(name)?))
    }

    fn open_to_read(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(UnmappedFile::over(self.base.open_to_read(name)?))
    }

    fn link_into(&self, name: &str, to: &Path) -> io::Result<()> {
        self.base.link_into(name, to)
    }

    fn list(&self) -> io::Result<Vec<Entry>> {
        self.base.list()
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.base.unlink(name)
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.base.replace(name, content)
    }

    fn sync(&self) -> io::Result<()> {
        self.base.sync()
    }

    fn lock(&self, name: &str, content: &[u8]) -> io::Result<Box<dyn Lock>> {
        self.base.lock(name, content)
    }
}

/// One open file, and what became of the stores to it.
#[derive(Debug)]
struct UnmappedFile {
    base: Arc<dyn File>,
    stores: Arc<Stores>,
}

impl UnmappedFile {
    fn over(base: Arc<dyn File>) -> Arc<dyn File> {
        let stores = Arc::new(Stores { file: Arc::clone(&base), failed: OnceLock::new() });
        Arc::new(Self { base, stores })
    }
}

/// Takes every store to the file.
#[derive(Debug)]
struct Stores {
    file: Arc<dyn File>,
    /// Kind and text of the first failure; nothing is written after it.
    failed: OnceLock<(io::ErrorKind, String)>,
}

impl Stores {
    fn check(&self) -> io::Result<()> {
        match self.failed.get() {
            Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
            None => Ok(()),
        }
    }
}

impl StoreObserver for Stores {
    fn stored(&self, offset: u64, bytes: &[u8]) {
        if self.failed.get().is_some() {
            return;
        }
        if let Err(error) = self.file.write_all_at(bytes, offset) {
            // The first of several threads tells; there is one writer a map.
            let _first = self.failed.set((error.kind(), error.to_string()));
        }
    }
}

impl File for UnmappedFile {
    fn len(&self) -> io::Result<u64> {
        self.base.len()
    }

    fn allocated_len(&self) -> io::Result<u64> {
        self.base.allocated_len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.base.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.stores.check()?;
        self.base.write_all_at(bytes, offset)
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        self.stores.check()?;
        self.base.allocate(from, to)
    }

    fn punch_to_end(&self, from: u64) -> io::Result<()> {
        self.stores.check()?;
        self.base.punch_to_end(from)
    }

    fn sync(&self) -> io::Result<()> {
        self.stores.check()?;
        self.base.sync()
    }

    fn sync_range(&self, _map: &Map, _from: u64, _to: u64) -> io::Result<()> {
        self.sync()
    }

    fn map(&self, capacity: u64, published: u64) -> io::Result<Arc<Map>> {
        if published > self.len()? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "behind the end of the file"));
        }
        let stores: Arc<dyn StoreObserver> = Arc::<Stores>::clone(&self.stores);
        Map::filled(capacity, published, Some(stores), |bytes| self.base.read_exact_at(bytes, 0))
    }

    fn is_mapped(&self) -> bool {
        false
    }

    fn stored(&self) -> io::Result<()> {
        self.stores.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::sim::SimVfs;
    use crate::vfs::view::View;

    #[test]
    fn stores_reach_the_file_by_calls_and_a_call_that_fails_is_told_ever_after() {
        let disk = SimVfs::new(1);
        let dir = UnmappedVfs::new(Arc::new(disk.clone())).create_dir(Path::new("/")).unwrap();
        let file = dir.create("x").unwrap();
        file.write_all_at(b"head", 0).unwrap();
        file.allocate(4, 4096).unwrap();
        let map = file.map(8192, 4).unwrap();
        let mut writer = map.writer().unwrap();
        writer.set_writable(4096);
        writer.store(4, b"tail");
        assert_eq!(disk.read("/x").unwrap().get(..8), Some(&b"headtail"[..]));
        assert_eq!(map.slice(0..8), None);
        writer.publish(8);
        assert_eq!(map.slice(0..8), Some(&b"headtail"[..]));
        file.sync_range(&map, 4, 8).unwrap();
        assert!(file.stored().is_ok() && !file.is_mapped());
        disk.fail_write_at(1);
        writer.store(8, b"lost");
        for answer in [file.stored(), file.sync(), file.allocate(4096, 8192)] {
            assert!(answer.is_err());
        }
        writer.store(12, b"more");
        // The part of the failed write that came through is all.
        assert_eq!(disk.read("/x").unwrap().get(12..16), Some(&[0; 4][..]));
    }

    #[test]
    fn a_view_reads_what_is_inside_and_tells_an_error_from_an_end() {
        let disk = SimVfs::new(1);
        let kernel: Arc<dyn Vfs> = Arc::new(disk.clone());
        let calls: Arc<dyn Vfs> = Arc::new(UnmappedVfs::new(Arc::clone(&kernel)));
        kernel.create_dir(Path::new("/")).unwrap().create("x").unwrap();
        for (vfs, mapped) in [(kernel, true), (calls, false)] {
            let file = vfs.open_dir(Path::new("/")).unwrap().open("x").unwrap();
            file.write_all_at(b"0123456789", 0).unwrap();
            let view = View::of(file, 10).unwrap();
            assert_eq!(view.map().is_some(), mapped);
            assert_eq!(view.piece(3, 4).unwrap().as_deref(), Some(&b"3456"[..]));
            assert_eq!(view.piece(10, 0).unwrap().as_deref(), Some(&b""[..]));
            for (offset, len) in [(3, 8), (11, 0), (u64::MAX, 1), (0, u64::MAX)] {
                assert!(view.piece(offset, len).unwrap().is_none());
            }
            view.prefetch(0..10);
            if !mapped {
                disk.fail_read_at(1);
                assert!(view.piece(3, 4).is_err());
            }
        }
    }
}
