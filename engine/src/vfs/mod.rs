//! The outside world: files, directories, maps, the lock, clocks, threads.
//! Says what each call promises after a crash; knows nothing of what the bytes mean.
//!
//! | call | after the process dies | after the power goes |
//! |---|---|---|
//! | `File::write_at`, `MapWriter::store` | kept | any subset of its 512-byte sectors |
//! | `File::sync`, `File::sync_range` | kept | data and length of this file kept, its name not |
//! | `Dir::create`, `Dir::unlink`, `Dir::rename` | kept | old or new state |
//! | `Dir::sync` | kept | the names in this directory kept |
#![cfg_attr(
    not(feature = "testing"),
    expect(unreachable_pub, reason = "tests reach these names through the feature `testing`")
)]

pub(crate) mod clock;
#[cfg(test)]
pub(crate) mod counting;
pub(crate) mod lock;
pub(crate) mod map;
pub(crate) mod memory;
pub(crate) mod os;
pub(crate) mod overlay;
pub(crate) mod published;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod sim;
pub(crate) mod unmapped;
pub(crate) mod view;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::map::Map;

/// Where the next content of a replaced file is written first.
pub(crate) const NEW_NAME: &str = "NEW";

/// What a directory entry is, without following links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A link, FIFO, socket or device: never opened.
    Other,
}

/// One name of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, lossily decoded; ours are ASCII.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
}

/// A file system.
pub trait Vfs: Send + Sync + Debug {
    /// Makes the directory and its parents (0700) unless it is there, and opens it.
    /// Fails with `NotADirectory` when a file stands in its place.
    fn create_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>>;
    /// Opens a directory that must be there.
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Whether a directory is there.
    fn dir_exists(&self, path: &Path) -> bool;
}

/// One directory. Names are plain file names, never paths.
pub trait Dir: Send + Sync + Debug {
    /// Where it is, for errors.
    fn path(&self) -> PathBuf;
    /// Creates a file that must not exist (0600, no link followed), open for reading and writing.
    fn create(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// Opens a regular file that must exist; links and devices are refused with `InvalidInput`.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;
    /// The same for a file that is only read: works where writing is not allowed.
    fn open_to_read(&self, name: &str) -> io::Result<Arc<dyn File>> {
        self.open(name)
    }
    /// Gives a file a second name of the same kind in the directory `to`. `Unsupported` where there
    /// are no links, `CrossesDevices` for another file system: the caller copies.
    fn link_into(&self, name: &str, to: &Path) -> io::Result<()> {
        let text = format!("{name:?} cannot be linked into {}", to.display());
        Err(io::Error::new(io::ErrorKind::Unsupported, text))
    }
    /// All names, in no order; `.` and `..` are left out.
    fn list(&self) -> io::Result<Vec<Entry>>;
    /// Removes a name. Open files and maps of it live on.
    fn unlink(&self, name: &str) -> io::Result<()>;
    /// Puts a file of this content (0600) in the place of `name`. Whoever opens it meanwhile finds
    /// the old one or the new one, or, where names cannot be moved, none. Nothing is synced.
    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        match self.unlink(name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.create(name)?.write_all_at(content, 0),
        }
    }
    /// Makes creates and unlinks in this directory durable.
    fn sync(&self) -> io::Result<()>;
    /// Takes the exclusive lock file `name`, creating it when absent, and writes `content` into it.
    /// `WouldBlock` when somebody else holds it. Dropping the result releases the lock; the file
    /// stays.
    fn lock(&self, name: &str, content: &[u8]) -> io::Result<Box<dyn Lock>>;
}

/// A held lock file.
pub trait Lock: Send + Sync + Debug {}

/// One open file, opaque outside of the crate. Any thread may call its methods.
#[cfg_attr(
    feature = "testing",
    expect(clippy::len_without_is_empty, reason = "nobody asks whether a file is empty")
)]
pub trait File: Send + Sync + Debug {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// What it takes on the device: `st_blocks` times 512.
    fn allocated_len(&self) -> io::Result<u64>;
    /// Reads exactly `buf.len()` bytes, or fails (`UnexpectedEof` past the end).
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes`, growing the file as needed.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Really allocates the bytes `from..to` and makes the file at least `to` long, with zeros.
    /// A full disk is an error here, never a fault later.
    fn allocate(&self, from: u64, to: u64) -> io::Result<()>;
    /// Gives the blocks from `from` to the end back. The length and all maps stay; the bytes read
    /// as zeros.
    fn punch_to_end(&self, from: u64) -> io::Result<()>;
    /// Makes data and length durable (`fdatasync`).
    fn sync(&self) -> io::Result<()>;
    /// Makes the bytes `from..to`, written by either way, durable.
    #[cfg_attr(feature = "testing", expect(private_interfaces, reason = "a map is opaque outside"))]
    fn sync_range(&self, map: &Map, from: u64, to: u64) -> io::Result<()>;
    /// Maps `capacity` bytes from the start, writable; the file may be shorter than that now.
    /// `published` bytes may be read through the map at once, and must lie inside the file.
    #[cfg_attr(feature = "testing", expect(private_interfaces, reason = "a map is opaque outside"))]
    fn map(&self, capacity: u64, published: u64) -> io::Result<Arc<Map>>;
    /// Whether `map` maps the file; else it answers memory that the file was read into.
    fn is_mapped(&self) -> bool {
        true
    }
    /// Fails when a store through a map of it did not reach the file, however long ago. A map of
    /// the file itself has no such stores.
    fn stored(&self) -> io::Result<()> {
        Ok(())
    }
}
