//! A simulated disk: what a process sees, what a power cut leaves, and faults from a seed.
//! Knows files, names and sectors; knows nothing of what the bytes mean.
//!
//! Which faults it plays, for which promise of DESIGN section 11:
//!
//! | promise | fault | set by |
//! |---|---|---|
//! | C1, C3 | unsynced sectors, lengths and names survive one by one | [`SimVfs::crash`] |
//! | C1 | a file grew and holds zeros, noise or old blocks there | `crash` |
//! | C4, C5 | an unlink survives before the edit that allows it; a create is lost | `crash` |
//! | C1, C6 | the process dies before its k-th effect | [`SimVfs::die_at`], then `kill` |
//! | C8 | any of these again on what they left | `crash`, [`SimVfs::kill`] |
//! | R1 to R6 | bytes change at rest; files vanish or appear | [`SimVfs::edit`], [`SimVfs::lose`] |
//! | R8 | a sync fails; the next one succeeds without its bytes | [`SimVfs::fail_sync_at`] |
//! | R10 | a read answers `EIO`, or ends early | [`SimVfs::fail_read_at`], `shorten_read_at` |
//! | R12 | the disk is full; a write ends in its middle | [`SimVfs::set_capacity`] |
//! | R12 | half of a write arrives, then `EIO` | [`SimVfs::fail_write_at`] |
//!
//! And why no more. What a sync covered stays: a disk that lies about it breaks every promise.
//! A sector (512 bytes) holds one of its versions whole; only stores through a map tear inside it,
//! at words. Zeros, noise and old blocks stand only where a file grew since its last sync. After a
//! failed sync the live bytes stay readable until the process ends. Reads through a map cannot
//! fail; a store where no block is allocated, a SIGBUS in earnest, stops the test.
//!
//! The same calls with the same seed give the same disk, byte for byte.

mod choice;
mod disk;
mod effect;
mod handle;
mod pages;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use self::choice::outcomes;
use self::disk::{Disk, Faults, FileNode, ROOT, dead_process};
use self::effect::NodeId;
use self::handle::SimDir;
use super::{Dir, Vfs};

/// Which unsynced effects a power cut leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivors {
    /// None: the disk as the last syncs left it.
    None,
    /// All of them: as if everything had been synced.
    All,
    /// The first so many, in the order in which they were made.
    Prefix(usize),
    /// The last so many.
    Suffix(usize),
    /// All but this one, and what came later in its sector.
    AllBut(usize),
    /// This one, and what came before it in its sector.
    Only(usize),
    /// One of the [`SimVfs::outcomes`], by its number: without noise, each subset once.
    Outcome(u64),
    /// Chosen by the seed: of each sector, length and name one of its versions, on its own.
    Random(u64),
}

/// An in-memory disk, and a process that uses it. Clones are the same process.
#[derive(Debug, Clone)]
pub struct SimVfs {
    /// Protects: the disk. Taken for one call at a time; a map's `mirroring` is taken inside it.
    disk: Arc<Mutex<Disk>>,
    life: u64,
}

impl SimVfs {
    /// An empty disk without an end.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(Disk::new(seed))
    }

    fn with(disk: Disk) -> Self {
        Self { life: disk.life, disk: Arc::new(Mutex::new(disk)) }
    }

    /// The process dies, the machine goes on: all live bytes and names stay, locks are free.
    /// Handles of the old process answer errors from here on; the result is the next process.
    #[must_use]
    pub fn kill(&self) -> Self {
        let mut disk = self.disk.lock();
        disk.life += 1;
        disk.dead = false;
        disk.faults.die.0 = None;
        disk.locks.clear();
        for file in disk.files.values_mut() {
            file.maps.clear();
        }
        Self { life: disk.life, disk: Arc::clone(&self.disk) }
    }

    /// What the machine finds if the power goes now: another disk, in the hands of a new process.
    /// This one goes on as if nothing had happened, so that one run gives many images.
    #[must_use]
    pub fn crash(&self, survivors: Survivors) -> Self {
        Self::with(self.disk.lock().crashed(survivors))
    }

    /// Another disk in the same state, unsynced effects included, in the hands of a new process.
    /// Faults that were set are not copied.
    #[must_use]
    pub fn clone_image(&self) -> Self {
        Self::with(self.disk.lock().copied())
    }

    /// How many effects this disk has seen: what `die_at` counts.
    #[must_use]
    pub fn effects(&self) -> u64 {
        self.disk.lock().effects
    }

    /// How many effects are not durable: what `Survivors::Prefix` counts.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.disk.lock().pending.len()
    }

    /// How many different subsets of what is not durable a power cut could leave; `u64::MAX` when
    /// they are too many to count.
    #[must_use]
    pub fn outcomes(&self) -> u64 {
        outcomes(&self.disk.lock().pending)
    }

    /// The same for the same names and bytes.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.disk.lock().digest(ROOT)
    }

    /// The same for the same effects and syncs in the same order.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.disk.lock().trace
    }

    /// Keeps a copy of the disk before one in so many effects from now on; 0 ends that.
    pub fn photograph(&self, every: u64) {
        self.disk.lock().camera.every = every;
    }

    /// The copies that were kept since the last call, in order. Each can crash, or be killed.
    #[must_use]
    pub fn photographs(&self) -> Vec<Self> {
        std::mem::take(&mut self.disk.lock().camera.taken).into_iter().map(Self::with).collect()
    }

    /// The process dies instead of its `k`-th effect from now (1 is the next): that call and all
    /// later ones fail, later stores go nowhere. `kill` or `crash` goes on from there.
    pub fn die_at(&self, k: u64) {
        self.disk.lock().faults.die.0 = Some(k.max(1));
    }

    /// Whether `die_at` has struck, or another process has taken over.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.alive().is_err()
    }

    /// The `k`-th sync from now, of a file, range or directory, fails.
    pub fn fail_sync_at(&self, k: u64) {
        self.disk.lock().faults.sync.0 = Some(k.max(1));
    }

    /// The `k`-th write from now fails after half of its bytes.
    pub fn fail_write_at(&self, k: u64) {
        self.disk.lock().faults.write.0 = Some(k.max(1));
    }

    /// The `k`-th read or map from now fails.
    pub fn fail_read_at(&self, k: u64) {
        self.disk.lock().faults.read.0 = Some(k.max(1));
    }

    /// The `k`-th read from now ends in its middle, as if the file did.
    pub fn shorten_read_at(&self, k: u64) {
        self.disk.lock().faults.short_read.0 = Some(k.max(1));
    }

    /// No fault that was set strikes any more.
    pub fn heal(&self) {
        let mut disk = self.disk.lock();
        disk.faults = Faults::default();
        disk.capacity = u64::MAX;
    }

    /// What `set_capacity` counts, now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.disk.lock().files.values().map(FileNode::allocated_len).sum()
    }

    /// Bytes of all files together, in blocks of 4 KiB; beyond them `StorageFull`.
    pub fn set_capacity(&self, len_bytes: u64) {
        self.disk.lock().capacity = len_bytes;
    }

    /// The live bytes of a file, or `None` when there is none.
    #[must_use]
    pub fn read(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let disk = self.disk.lock();
        let node = find(&disk, path.as_ref()).ok()?;
        disk.files.get(&node).map(|file| file.live.to_vec())
    }

    /// Damage at rest: changes the bytes of a file, live and durable alike, or makes the file.
    /// Maps that are open do not see it. The directory must be there.
    pub fn edit(&self, path: impl AsRef<Path>, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk.lock();
        let path = path.as_ref();
        let node = find(&disk, path).unwrap_or_else(|_| {
            let node = disk.add_file();
            name_durably(&mut disk, path, Some(node));
            node
        });
        if let Ok(file) = disk.file(node) {
            let mut bytes = file.live.to_vec();
            change(&mut bytes);
            file.live.set(&bytes);
            file.durable.clone_from(&file.live);
        }
        disk.pending.retain(|effect| effect.node != node);
    }

    /// Damage at rest: the name is gone, live and durable.
    pub fn lose(&self, path: impl AsRef<Path>) {
        name_durably(&mut self.disk.lock(), path.as_ref(), None);
    }

    /// The disk, unless this process is dead.
    fn alive(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk.lock();
        if disk.dead || disk.life != self.life { Err(dead_process()) } else { Ok(disk) }
    }

    fn dir(&self, path: &Path, node: NodeId) -> Arc<dyn Dir> {
        Arc::new(SimDir { vfs: self.clone(), path: path.to_path_buf(), node })
    }
}

/// The plain names of a path; `/`, `.` and links mean nothing here.
fn names(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    })
}

/// The node that a path leads to.
fn find(disk: &Disk, path: &Path) -> io::Result<NodeId> {
    let mut node = ROOT;
    for name in names(path) {
        let dir = disk.dirs.get(&node).ok_or(io::ErrorKind::NotADirectory)?;
        node = *dir.live.get(name).ok_or(io::ErrorKind::NotFound)?;
    }
    Ok(node)
}

fn name_durably(disk: &mut Disk, path: &Path, target: Option<NodeId>) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
    let name = name.to_string_lossy().into_owned();
    let Some(dir) = find(disk, parent).ok().and_then(|node| disk.dirs.get_mut(&node)) else {
        panic!("{} is not a directory of the simulated disk", parent.display());
    };
    for names in [&mut dir.live, &mut dir.durable] {
        match target {
            Some(node) => names.insert(name.clone(), node),
            None => names.remove(&name),
        };
    }
}

impl Vfs for SimVfs {
    fn create_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        let mut disk = self.alive()?;
        let mut node = ROOT;
        for name in names(path) {
            let dir = disk.dirs.get(&node).ok_or(io::ErrorKind::NotADirectory)?;
            node = if let Some(&child) = dir.live.get(name) {
                child
            } else {
                let child = disk.add_dir();
                disk.set_name(node, name, Some(child))?;
                disk.sync(node)?;
                child
            };
        }
        if !disk.dirs.contains_key(&node) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        drop(disk);
        Ok(self.dir(path, node))
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        let disk = self.alive()?;
        let node = find(&disk, path)?;
        if !disk.dirs.contains_key(&node) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        drop(disk);
        Ok(self.dir(path, node))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.alive()?;
        let node = find(&disk, path)?;
        let dir = disk.dirs.get(&node).ok_or(io::ErrorKind::NotADirectory)?;
        if !dir.live.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let parent = find(&disk, parent)?;
        disk.set_name(parent, &name.to_string_lossy(), None)
    }

    fn dir_exists(&self, path: &Path) -> bool {
        self.alive()
            .is_ok_and(|disk| find(&disk, path).is_ok_and(|node| disk.dirs.contains_key(&node)))
    }
}
