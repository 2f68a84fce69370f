//! Open files, directories, maps and locks of the simulated disk.
//! Knows the traits of `vfs`; knows nothing of what survives.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::SimVfs;
use super::disk::{Disk, device_error, usize_of};
use super::effect::NodeId;
use super::pages::PAGE_LEN;
use crate::vfs::map::{Map, StoreObserver};
use crate::vfs::{Dir, Entry, EntryKind, File, Lock};

/// An open directory.
#[derive(Debug)]
pub(super) struct SimDir {
    pub vfs: SimVfs,
    pub path: PathBuf,
    pub node: NodeId,
}

impl SimDir {
    fn lookup(&self, disk: &Disk, name: &str) -> io::Result<NodeId> {
        let dir = disk.dirs.get(&self.node).ok_or(io::ErrorKind::NotFound)?;
        dir.live.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file(&self, disk: &mut Disk, node: NodeId) -> io::Result<Arc<dyn File>> {
        let Ok(file) = disk.file(node) else { return Err(io::ErrorKind::InvalidInput.into()) };
        Ok(Arc::new(SimFile { vfs: self.vfs.clone(), node, _handle: Arc::clone(&file.handle) }))
    }
}

fn check_name(name: &str) -> io::Result<()> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(())
}

impl Dir for SimDir {
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        check_name(name)?;
        let mut disk = self.vfs.alive()?;
        if self.lookup(&disk, name).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = disk.add_file();
        disk.set_name(self.node, name, Some(node))?;
        self.file(&mut disk, node)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        check_name(name)?;
        let mut disk = self.vfs.alive()?;
        let node = self.lookup(&disk, name)?;
        self.file(&mut disk, node)
    }

    fn list(&self) -> io::Result<Vec<Entry>> {
        let disk = self.vfs.alive()?;
        let dir = disk.dirs.get(&self.node).ok_or(io::ErrorKind::NotFound)?;
        let kind_of = |node| {
            if disk.files.contains_key(node) { EntryKind::File } else { EntryKind::Dir }
        };
        Ok(dir
            .live
            .iter()
            .map(|(name, node)| Entry { name: name.clone(), kind: kind_of(node) })
            .collect())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        check_name(name)?;
        let mut disk = self.vfs.alive()?;
        let node = self.lookup(&disk, name)?;
        if disk.dirs.contains_key(&node) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        disk.set_name(self.node, name, None)
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.vfs.alive()?;
        disk.sync(self.node)?;
        disk.forget_nameless();
        Ok(())
    }

    fn lock(&self, name: &str, content: &[u8]) -> io::Result<Box<dyn Lock>> {
        check_name(name)?;
        let mut disk = self.vfs.alive()?;
        let node = if let Ok(node) = self.lookup(&disk, name) {
            node
        } else {
            let node = disk.add_file();
            disk.set_name(self.node, name, Some(node))?;
            node
        };
        let Ok(file) = disk.file(node) else { return Err(io::ErrorKind::InvalidInput.into()) };
        let handle = Arc::clone(&file.handle);
        if !disk.locks.insert(node) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let lock = SimLock { vfs: self.vfs.clone(), node, _handle: handle };
        // The one file that gets shorter; its content is a courtesy, not a promise.
        disk.file(node)?.live.set(&[]);
        let written = disk.write(node, 0, content);
        drop(disk);
        written.map(|()| Box::new(lock) as Box<dyn Lock>)
    }
}

/// A held lock file.
#[derive(Debug)]
struct SimLock {
    vfs: SimVfs,
    node: NodeId,
    _handle: Arc<()>,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        if let Ok(mut disk) = self.vfs.alive() {
            disk.locks.remove(&self.node);
        }
    }
}

/// An open file.
#[derive(Debug)]
struct SimFile {
    vfs: SimVfs,
    node: NodeId,
    _handle: Arc<()>,
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.vfs.alive()?.file(self.node)?.live.len() as u64)
    }

    fn allocated_len(&self) -> io::Result<u64> {
        Ok(self.vfs.alive()?.file(self.node)?.allocated_len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut disk = self.vfs.alive()?;
        if disk.faults.read.fires() {
            return Err(device_error());
        }
        let is_short = disk.faults.short_read.fires();
        let whole = disk.file(self.node)?.live.read(usize_of(offset), buf);
        if is_short || !whole {
            buf.get_mut(buf.len() / 2..).unwrap_or_default().fill(0);
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > i64::MAX as u64) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.vfs.alive()?.write(self.node, offset, bytes)
    }

    fn allocate(&self, from: u64, to: u64) -> io::Result<()> {
        if from >= to {
            return Ok(());
        }
        let mut disk = self.vfs.alive()?;
        if disk.allocate(self.node, from, to)? < to {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.grow(self.node, to)
    }

    fn punch_to_end(&self, from: u64) -> io::Result<()> {
        let mut disk = self.vfs.alive()?;
        if from >= disk.file(self.node)?.live.len() as u64 {
            return Ok(());
        }
        disk.punch_to_end(self.node, from)
    }

    fn sync(&self) -> io::Result<()> {
        self.vfs.alive()?.sync(self.node)
    }

    fn sync_range(&self, _map: &Map, from: u64, to: u64) -> io::Result<()> {
        self.vfs.alive()?.sync_range(self.node, from, to)
    }

    fn map(&self, capacity: u64, published: u64) -> io::Result<Arc<Map>> {
        let mut disk = self.vfs.alive()?;
        if disk.faults.read.fires() {
            return Err(device_error());
        }
        let file = disk.file(self.node)?;
        if published > (file.live.len() as u64).min(capacity) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let observer = SimObserver {
            disk: Arc::downgrade(&self.vfs.disk),
            node: self.node,
            life: self.vfs.life,
        };
        let map = Map::anonymous(capacity, &[], Some(Arc::new(observer)))?;
        for (index, bytes) in file.live.filled() {
            map.mirror(index as u64 * PAGE_LEN as u64, bytes);
        }
        map.publish_mirrored(published);
        file.maps.retain(|map| map.strong_count() > 0);
        file.maps.push(Arc::downgrade(&map));
        Ok(map)
    }
}

/// Carries stores through a map to the disk.
struct SimObserver {
    disk: Weak<Mutex<Disk>>,
    node: NodeId,
    life: u64,
}

impl StoreObserver for SimObserver {
    /// Stops the test where the kernel would send a SIGBUS: behind the end of the file, or where no
    /// block was allocated. Stores of a dead process go nowhere.
    fn stored(&self, offset: u64, bytes: &[u8]) {
        let Some(disk) = self.disk.upgrade() else { return };
        let mut disk = disk.lock();
        if disk.dead || disk.life != self.life {
            return;
        }
        let Ok(file) = disk.file(self.node) else { return };
        let end = offset + bytes.len() as u64;
        assert!(end <= file.live.len() as u64, "SIGBUS: store up to {end} behind the file's end");
        assert!(file.is_allocated(offset, end), "SIGBUS: store at {offset} where no block is");
        // An error says that the process died at this effect: nobody is left to hear of it.
        drop(disk.put_sectors(self.node, offset, bytes, true));
    }
}
