//! A file system over another one that is only read: what is written stays in memory.
//! Knows names and files; knows nothing of what they hold, or of who writes the one below.
//!
//! The names are those of the moment at which the directory was opened. A file that the writer of
//! the one below goes on changing is taken by [`OverlayDir::freeze`] before anybody maps it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::os::memory_file;
use super::{Dir, Entry, EntryKind, File, Lock, Vfs};

/// Bytes that are copied at a time.
const COPY_LEN: usize = 256 << 10;

/// A file system whose directories are overlays; one of them was made before.
#[derive(Debug)]
pub(crate) struct OverlayVfs {
    base: Arc<dyn Vfs>,
    home: PathBuf,
    dir: Arc<OverlayDir>,
}

impl OverlayVfs {
    /// `dir` is what opening `home` answers.
    pub(crate) fn new(base: Arc<dyn Vfs>, home: &Path, dir: Arc<OverlayDir>) -> Self {
        Self { base, home: home.to_path_buf(), dir }
    }
}

impl Vfs for OverlayVfs {
    fn create_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        self.open_dir(path)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        if path == self.home {
            return Ok(Arc::<OverlayDir>::clone(&self.dir));
        }
        Ok(Arc::new(OverlayDir::new(self.base.open_dir(path)?)?))
    }

    fn remove_dir(&self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn dir_exists(&self, path: &Path) -> bool {
        self.base.dir_exists(path)
    }
}

/// One directory over another one.
#[derive(Debug)]
pub(crate) struct OverlayDir {
    base: Arc<dyn Dir>,
    /// Protects: the names and what lies in memory. A leaf lock.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    names: BTreeMap<String, EntryKind>,
    memory: HashMap<String, Arc<dyn File>>,
}

impl OverlayDir {
    /// Begins with the names that are there now.
    pub(crate) fn new(base: Arc<dyn Dir>) -> io::Result<Self> {
        let names = base.list()?.into_iter().map(|entry| (entry.name, entry.kind)).collect();
        Ok(Self { base, state: Mutex::new(State { names, memory: HashMap::new() }) })
    }

    /// Copies a file of at most `len_max` bytes into memory, as it is now.
    pub(crate) fn freeze(&self, name: &str, len_max: u64) -> io::Result<()> {
        let source = self.base.open_to_read(name)?;
        let len = source.len()?;
        if len > len_max {
            let text = format!("{name} is longer than {len_max} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let copy = memory_file(name)?;
        copy_bytes(&*source, &*copy, len)?;
        self.state.lock().memory.insert(name.to_owned(), copy);
        Ok(())
    }
}

/// Copies the first `len` bytes of a file.
pub(crate) fn copy_bytes(from: &dyn File, to: &dyn File, len: u64) -> io::Result<()> {
    let mut buffer = vec![0; COPY_LEN];
    let mut done = 0;
    while done < len {
        let count = usize::try_from(len - done).map_or(COPY_LEN, |rest| rest.min(COPY_LEN));
        let Some(piece) = buffer.get_mut(..count) else { break };
        from.read_exact_at(piece, done)?;
        to.write_all_at(piece, done)?;
        done += count as u64;
    }
    Ok(())
}

impl Dir for OverlayDir {
    fn path(&self) -> PathBuf {
        self.base.path()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = memory_file(name)?;
        state.names.insert(name.to_owned(), EntryKind::File);
        state.memory.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let state = self.state.lock();
        if let Some(file) = state.memory.get(name) {
            return Ok(Arc::clone(file));
        }
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.base.open_to_read(name)
    }

    fn link_into(&self, name: &str, to: &Path) -> io::Result<()> {
        if self.state.lock().memory.contains_key(name) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.base.link_into(name, to)
    }

    fn list(&self) -> io::Result<Vec<Entry>> {
        let state = self.state.lock();
        let entries = state.names.iter();
        Ok(entries.map(|(name, &kind)| Entry { name: name.clone(), kind }).collect())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        let mut state = self.state.lock();
        state.memory.remove(name);
        state.names.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _name: &str, _content: &[u8]) -> io::Result<Box<dyn Lock>> {
        Ok(Box::new(NoLock))
    }
}

/// Who only reads holds no lock.
#[derive(Debug)]
struct NoLock;

impl Lock for NoLock {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::os::OsVfs;

    #[test]
    fn what_is_written_stays_in_memory_and_what_is_below_stays_as_it_is() {
        let temporary = tempfile::tempdir().unwrap();
        let base = OsVfs.create_dir(temporary.path()).unwrap();
        base.create("old").unwrap().write_all_at(b"old bytes", 0).unwrap();
        base.create("frozen").unwrap().write_all_at(b"before", 0).unwrap();
        let over = OverlayDir::new(Arc::clone(&base)).unwrap();
        over.freeze("frozen", 6).unwrap();
        assert_eq!(over.freeze("old", 6).unwrap_err().kind(), io::ErrorKind::InvalidData);
        base.open("frozen").unwrap().write_all_at(b"after!", 0).unwrap();
        base.create("later").unwrap();
        let mut bytes = [0; 6];
        over.open("frozen").unwrap().read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"before");
        let made = over.create("new").unwrap();
        made.allocate(0, 4096).unwrap();
        assert_eq!(over.open("new").unwrap().len().unwrap(), 4096);
        assert!(over.open("old").unwrap().write_all_at(b"x", 0).is_err());
        over.unlink("old").unwrap();
        for name in ["old", "later"] {
            assert_eq!(over.open(name).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        assert_eq!(over.list().unwrap().len(), 2);
        assert_eq!(base.list().unwrap().len(), 3);
        assert_eq!(over.create("new").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let to = tempfile::tempdir().unwrap();
        assert!(over.link_into("new", to.path()).is_err());
        base.link_into("old", to.path()).unwrap();
        assert_eq!(OsVfs.open_dir(to.path()).unwrap().open("old").unwrap().len().unwrap(), 9);
    }
}
