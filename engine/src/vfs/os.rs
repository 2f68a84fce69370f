//! The kernel's file system: every call that leaves the process, and threads, and random bytes.
//! Knows paths, descriptors and system calls; knows nothing of what the bytes mean.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the one place that calls the kernel"
)]

use std::collections::HashSet;
use std::fs::{DirBuilder, File as StdFile, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use parking_lot::Mutex;
use rustix::fs::{self as sys, AtFlags, FallocateFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::map::Map;
use super::{Dir, Entry, EntryKind, File, Lock, NEW_NAME, Vfs};

/// Flags of every open of a file in a store: no link is followed, nothing blocks (a FIFO would),
/// no child of the process inherits it.
const OPEN_FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Mode of every file that is made.
const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Locks held by this process, as device and inode. It refuses a second open of one store also
/// where `flock` would not tell two descriptors of one process apart.
/// Protects: the set. A leaf lock.
static HELD_LOCKS: Mutex<Option<HashSet<(u64, u64)>>> = Mutex::new(None);

/// The kernel's file system.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OsVfs;

impl Vfs for OsVfs {
    fn create_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        make_dirs(path)?;
        self.open_dir(path)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        let flags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
        let fd = sys::open(path, flags, Mode::empty())?;
        Ok(Arc::new(OsDir { path: path.to_path_buf(), fd: fd.into() }))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir(path)
    }

    fn dir_exists(&self, path: &Path) -> bool {
        path.is_dir()
    }
}

/// Makes what is missing of `path`, outermost first, each name synced into its parent.
fn make_dirs(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path
        .ancestors()
        .take_while(|dir| !dir.as_os_str().is_empty() && sys::lstat(*dir).is_err())
        .collect();
    for dir in missing.iter().rev() {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        StdFile::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// One directory, held open: its files are named relative to the descriptor, so that a rename of
/// the directory, or a link put in its place, leads nowhere else.
#[derive(Debug)]
struct OsDir {
    path: PathBuf,
    fd: StdFile,
}

impl OsDir {
    /// Opens `name` and checks what it is before anybody reads it.
    fn open_regular(&self, name: &str, flags: OFlags) -> io::Result<StdFile> {
        check_name(name)?;
        let fd = retried(|| sys::openat(&self.fd, name, flags.union(OPEN_FLAGS), FILE_MODE));
        let fd: OwnedFd = match fd {
            Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => return Err(not_regular(name)),
            fd => fd?,
        };
        let file = StdFile::from(fd);
        if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular(name)) }
    }
}

impl Dir for OsDir {
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let flags = OFlags::RDWR.union(OFlags::CREATE).union(OFlags::EXCL);
        let file = self.open_regular(name, flags)?;
        Ok(Arc::new(OsFile { file, read_only: false }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let (file, read_only) = match self.open_regular(name, OFlags::RDWR) {
            Err(error) if is_write_refused(&error) => {
                (self.open_regular(name, OFlags::RDONLY)?, true)
            }
            file => (file?, false),
        };
        Ok(Arc::new(OsFile { file, read_only }))
    }

    fn open_to_read(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = self.open_regular(name, OFlags::RDONLY)?;
        Ok(Arc::new(OsFile { file, read_only: true }))
    }

    fn link_into(&self, name: &str, to: &Path) -> io::Result<()> {
        check_name(name)?;
        Ok(sys::linkat(&self.fd, name, sys::CWD, to.join(name), AtFlags::empty())?)
    }

    fn list(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in sys::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let file_type = match entry.file_type() {
                FileType::Unknown => match sys::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                },
                file_type => file_type,
            };
            let kind = match file_type {
                FileType::RegularFile => EntryKind::File,
                FileType::Directory => EntryKind::Dir,
                _ => EntryKind::Other,
            };
            entries.push(Entry { name: name.to_string_lossy().into_owned(), kind });
        }
        Ok(entries)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        Ok(sys::unlinkat(&self.fd, name, AtFlags::empty())?)
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        match self.unlink(NEW_NAME) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.create(NEW_NAME)?.write_all_at(content, 0)?,
        }
        check_name(name)?;
        Ok(sys::renameat(&self.fd, NEW_NAME, &self.fd, name)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.fd.sync_all()
    }

    fn lock(&self, name: &str, content: &[u8]) -> io::Result<Box<dyn Lock>> {
        let file = self.open_regular(name, OFlags::RDWR.union(OFlags::CREATE))?;
        let metadata = file.metadata()?;
        let id = (metadata.dev(), metadata.ino());
        // From here on `lock` undoes on drop what was taken so far.
        let lock = OsLock::register(id, file)?;
        lock.file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::from(io::ErrorKind::WouldBlock),
            TryLockError::Error(error) => error,
        })?;
        let named = sys::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if (named.st_dev, named.st_ino) != id {
            // Somebody replaced the file between our open and our lock: theirs counts.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        lock.file.set_len(0)?;
        lock.file.write_all_at(content, 0)?;
        Ok(Box::new(lock))
    }
}

/// A held lock file: the descriptor carries the `flock`, the registry the process's own knowledge.
#[derive(Debug)]
struct OsLock {
    file: StdFile,
    id: (u64, u64),
    holder_pid: u32,
}

impl OsLock {
    /// Enters `id` into the registry, or fails with `WouldBlock` when it is there.
    fn register(id: (u64, u64), file: StdFile) -> io::Result<Self> {
        if HELD_LOCKS.lock().get_or_insert_default().insert(id) {
            Ok(Self { file, id, holder_pid: process_id() })
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
}

impl Lock for OsLock {}

impl Drop for OsLock {
    /// Unlocks rather than only closing: a child made by `fork` holds the descriptor too. In such
    /// a child the lock is the parent's, and stays.
    fn drop(&mut self) {
        if self.holder_pid != process_id() {
            return;
        }
        // A lock that cannot be released goes with the descriptor, right after.
        drop(self.file.unlock());
        HELD_LOCKS.lock().get_or_insert_default().remove(&self.id);
    }
}

/// One open file.
#[derive(Debug)]
struct OsFile {
    file: StdFile,
    read_only: bool,
}

impl File for OsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn allocated_len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.blocks().saturating_mul(512))
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        let Some(len_bytes @ 1..) = to.checked_sub(from) else { return Ok(()) };
        let flags = FallocateFlags::empty();
        match retried(|| sys::fallocate(&self.file, flags, from, len_bytes)) {
            // Zeros allocate as well, where the file ends; what lies before is left alone.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.write_zeros(from.max(self.len()?), to),
            result => Ok(result?),
        }
    }

    fn punch_to_end(&self, from: u64) -> io::Result<()> {
        let end = self.len()?;
        let Some(len_bytes @ 1..) = end.checked_sub(from) else { return Ok(()) };
        let flags = FallocateFlags::PUNCH_HOLE.union(FallocateFlags::KEEP_SIZE);
        match retried(|| sys::fallocate(&self.file, flags, from, len_bytes)) {
            // The blocks stay, but the bytes are gone as promised.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.write_zeros(from, end),
            result => Ok(result?),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_range(&self, map: &Map, from: u64, to: u64) -> io::Result<()> {
        if map.is_read_only() { self.sync() } else { map.flush_range(from, to) }
    }

    fn map(&self, capacity: u64, published: u64) -> io::Result<Arc<Map>> {
        if published > self.len()?.min(capacity) {
            let text = "published bytes behind the end of the file or of the map";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Map::of_file(&self.file, capacity, published, self.read_only)
    }
}

impl OsFile {
    fn write_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        let zeros = [0; 16 << 10];
        let mut offset = from;
        while offset < to {
            let len_bytes =
                usize::try_from(to - offset).map_or(zeros.len(), |n| n.min(zeros.len()));
            self.file.write_all_at(zeros.get(..len_bytes).unwrap_or_default(), offset)?;
            offset += len_bytes as u64;
        }
        Ok(())
    }
}

/// Repeats a call that a signal interrupted.
fn retried<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Refuses anything but a plain file name.
fn check_name(name: &str) -> io::Result<()> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        let text = format!("{name:?} is not a file name");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(())
}

fn not_regular(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is not a regular file"))
}

fn is_write_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Starts a thread. The name shows in debuggers, at most 15 bytes of it.
pub(crate) fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).spawn(work)
}

/// Does two things at once: the first here, the second in a thread of its own.
pub(crate) fn both<A: Send, B: Send>(
    here: impl FnOnce() -> A,
    there: impl FnOnce() -> B + Send,
) -> (A, B) {
    std::thread::scope(|scope| {
        let other = scope.spawn(there);
        let one = here();
        match other.join() {
            Ok(other) => (one, other),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Rests this thread.
pub(crate) fn pause(duration: std::time::Duration) {
    std::thread::sleep(duration);
}

#[cfg(any(test, feature = "testing"))]
thread_local! {
    /// What the next random bytes of this thread follow from, when a test says so.
    static DRAWN: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// From now on random bytes of this thread follow from a seed, so that a run repeats; `None`:
/// nobody can predict them again.
#[cfg(any(test, feature = "testing"))]
#[cfg_attr(
    not(feature = "testing"),
    expect(unreachable_pub, reason = "tests reach it through the feature `testing`")
)]
pub fn seed_random(seed: Option<u64>) {
    DRAWN.set(seed);
}

/// Lets another thread have the processor.
pub(crate) fn yield_now() {
    std::thread::yield_now();
}

/// Bytes that nobody can predict, unless a test seeded them.
pub(crate) fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    #[cfg(any(test, feature = "testing"))]
    if let Some(seed) = DRAWN.get() {
        for (at, byte) in (1_u64..).zip(&mut bytes) {
            let mixed = seed.wrapping_add(at).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            *byte = (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9).to_be_bytes()[0];
        }
        DRAWN.set(Some(seed.wrapping_add(N as u64 + 1)));
        return Ok(bytes);
    }
    getrandom::fill(&mut bytes).map_err(|error| {
        error.raw_os_error().map_or_else(|| io::Error::other(error), io::Error::from_raw_os_error)
    })?;
    Ok(bytes)
}

/// A file in memory that no directory names, gone when the last handle and map of it go.
pub(crate) fn memory_file(name: &str) -> io::Result<Arc<dyn File>> {
    let fd = sys::memfd_create(name, sys::MemfdFlags::CLOEXEC)?;
    Ok(Arc::new(OsFile { file: StdFile::from(fd), read_only: false }))
}

/// The number of this process; another one in a child made by `fork`.
pub(crate) fn process_id() -> u32 {
    std::process::id()
}

/// A path under the system's temporary directory that nobody has used.
pub(crate) fn temporary_path() -> io::Result<PathBuf> {
    let [a, b] = random_bytes::<16>().map(|bytes| {
        let (a, b) = bytes.split_at(8);
        [a, b].map(|half| u64::from_le_bytes(half.try_into().unwrap_or_default()))
    })?;
    Ok(std::env::temp_dir().join(format!("terrace-{a:016x}{b:016x}")))
}

/// Removes the directory of a temporary store with everything in it.
pub(crate) fn remove_temporary(path: &Path) -> io::Result<()> {
    std::fs::remove_dir_all(path)
}

#[cfg(test)]
mod tests;
