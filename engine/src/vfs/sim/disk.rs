//! The state of the simulated disk: live and durable bytes, and the effects between the two.
//! Knows nodes, sectors and counters; knows nothing of handles, paths or the trait `Vfs`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;
use std::sync::{Arc, Weak};

use super::Survivors;
use super::choice::{Filler, Random, surviving};
use super::effect::{Change, Effect, NodeId, SECTOR_LEN};
use super::pages::{Pages, fold, mix};
use crate::vfs::map::Map;

/// What the file system allocates.
const BLOCK_LEN: u64 = 4096;

/// The directory that all paths begin at.
pub(super) const ROOT: NodeId = 0;

#[derive(Debug, Default)]
pub(super) struct FileNode {
    /// What a running process reads.
    pub live: Pages,
    /// What is left when every pending effect is lost.
    pub durable: Pages,
    /// Which blocks of the live file are allocated.
    blocks: Vec<bool>,
    /// The maps of the running process.
    pub maps: Vec<Weak<Map>>,
    /// Cloned by every open handle.
    pub handle: Arc<()>,
}

impl FileNode {
    /// The same bytes for another disk: no handle, no map.
    fn copied(&self) -> Self {
        Self {
            live: self.live.clone(),
            durable: self.durable.clone(),
            blocks: self.blocks.clone(),
            maps: Vec::new(),
            handle: Arc::default(),
        }
    }

    pub(super) fn allocated_len(&self) -> u64 {
        self.blocks.iter().filter(|&&block| block).count() as u64 * BLOCK_LEN
    }

    /// Whether a store into `from..to` finds blocks under all of it.
    pub(super) fn is_allocated(&self, from: u64, to: u64) -> bool {
        (from / BLOCK_LEN..to.div_ceil(BLOCK_LEN))
            .all(|block| self.blocks.get(usize_of(block)) == Some(&true))
    }

    fn mirror(&self, offset: u64, bytes: &[u8]) {
        for map in self.maps.iter().filter_map(Weak::upgrade) {
            map.mirror(offset, bytes);
        }
    }

    /// Applies one effect to the durable bytes.
    fn make_durable(&mut self, change: Change, filler: &mut Filler<'_>) {
        match change {
            Change::Length(len_bytes) => {
                let (from, to) = (self.durable.len(), usize_of(len_bytes));
                if to > from {
                    self.durable.resize(to);
                    if let Some(bytes) = filler.fill(from, to - from) {
                        self.durable.write(from, &bytes);
                    }
                }
            }
            Change::Bytes { offset, bytes, .. } => self.durable.write(usize_of(offset), &bytes),
            Change::Punch { from, to } => self.durable.zero(usize_of(from), usize_of(to)),
            Change::Name { .. } => {}
        }
    }
}

#[derive(Debug, Default, Clone)]
pub(super) struct DirNode {
    pub live: BTreeMap<String, NodeId>,
    pub durable: BTreeMap<String, NodeId>,
}

/// Fires once, at the k-th call from when it was set; `None` never.
#[derive(Debug, Default, Clone)]
pub(super) struct Countdown(pub Option<u64>);

impl Countdown {
    pub(super) fn fires(&mut self) -> bool {
        let left = self.0.map(|left| left.saturating_sub(1));
        self.0 = left.filter(|&left| left > 0);
        left == Some(0)
    }
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    pub sync: Countdown,
    pub write: Countdown,
    pub read: Countdown,
    /// A read that ends in its middle.
    pub short_read: Countdown,
    pub die: Countdown,
}

/// Keeps copies of the disk as it is right before an effect.
#[derive(Debug, Default)]
pub(super) struct Camera {
    /// One in so many effects; 0 for none.
    pub every: u64,
    pub taken: Vec<Disk>,
}

#[derive(Debug)]
pub(super) struct Disk {
    pub files: BTreeMap<NodeId, FileNode>,
    pub dirs: BTreeMap<NodeId, DirNode>,
    /// In the order in which they were made.
    pub pending: Vec<Effect>,
    next_node: NodeId,
    /// Lock files that are held.
    pub locks: BTreeSet<NodeId>,
    pub capacity: u64,
    pub faults: Faults,
    /// Effects and syncs so far.
    pub effects: u64,
    pub random: Random,
    /// Which process runs; handles of another one are dead.
    pub life: u64,
    /// Whether the running process died at an effect.
    pub dead: bool,
    /// A digest of all effects and syncs so far, in their order.
    pub trace: u64,
    pub camera: Camera,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            files: BTreeMap::new(),
            dirs: BTreeMap::from([(ROOT, DirNode::default())]),
            pending: Vec::new(),
            next_node: ROOT + 1,
            locks: BTreeSet::new(),
            capacity: u64::MAX,
            faults: Faults::default(),
            effects: 0,
            random: Random(seed),
            life: 0,
            dead: false,
            trace: 0,
            camera: Camera::default(),
        }
    }

    /// Another disk with the same state; nobody holds it open.
    pub(super) fn copied(&self) -> Self {
        Self {
            files: self.files.iter().map(|(&id, file)| (id, file.copied())).collect(),
            dirs: self.dirs.clone(),
            pending: self.pending.clone(),
            next_node: self.next_node,
            capacity: self.capacity,
            random: self.random.clone(),
            trace: self.trace,
            ..Self::new(0)
        }
    }

    /// What a machine finds when the power comes back.
    pub(super) fn crashed(&self, survivors: Survivors) -> Self {
        let mut disk = self.copied();
        let pending = mem::take(&mut disk.pending);
        let (kept, mut random) = surviving(pending, survivors);
        let stale: Vec<Pages> = self.files.values().map(|file| file.live.clone()).collect();
        disk.make_durable(kept, &mut Filler { random: random.as_mut(), stale: &stale });
        for dir in disk.dirs.values_mut() {
            dir.live.clone_from(&dir.durable);
        }
        for file in disk.files.values_mut() {
            file.live.clone_from(&file.durable);
            file.blocks.resize(file.live.len().div_ceil(usize_of(BLOCK_LEN)), false);
            for (index, _) in file.live.filled() {
                if let Some(block) = file.blocks.get_mut(index) {
                    *block = true;
                }
            }
        }
        disk.forget_nameless();
        disk
    }

    /// One more effect is about to happen; the process may die before it.
    pub(super) fn step(&mut self) -> io::Result<()> {
        self.effects += 1;
        if self.camera.every > 0 && self.effects.is_multiple_of(self.camera.every) {
            let copy = self.copied();
            self.camera.taken.push(copy);
        }
        self.dead |= self.faults.die.fires();
        if self.dead { Err(dead_process()) } else { Ok(()) }
    }

    pub(super) fn add_file(&mut self) -> NodeId {
        let node = self.fresh_node();
        self.files.insert(node, FileNode::default());
        node
    }

    pub(super) fn add_dir(&mut self) -> NodeId {
        let node = self.fresh_node();
        self.dirs.insert(node, DirNode::default());
        node
    }

    fn fresh_node(&mut self) -> NodeId {
        self.next_node += 1;
        self.next_node - 1
    }

    /// Changes where a name leads, live.
    pub(super) fn set_name(
        &mut self,
        dir: NodeId,
        name: &str,
        target: Option<NodeId>,
    ) -> io::Result<()> {
        self.step()?;
        let names = &mut self.dirs.get_mut(&dir).ok_or(io::ErrorKind::NotFound)?.live;
        match target {
            Some(node) => names.insert(name.to_owned(), node),
            None => names.remove(name),
        };
        let change = Change::Name { name: name.to_owned(), target };
        self.note(dir, change);
        Ok(())
    }

    /// One more effect that is not durable.
    fn note(&mut self, node: NodeId, change: Change) {
        let (kind, bytes, numbers): (u64, &[u8], [u64; 2]) = match &change {
            Change::Bytes { offset, bytes, .. } => (1, bytes, [*offset, 0]),
            Change::Length(len_bytes) => (2, &[], [*len_bytes, 0]),
            Change::Punch { from, to } => (3, &[], [*from, *to]),
            Change::Name { name, target } => (4, name.as_bytes(), [target.unwrap_or(0), 0]),
        };
        let place = numbers.iter().fold(mix(node ^ mix(kind)), |sum, number| mix(sum ^ number));
        self.trace = fold(self.trace ^ place, bytes);
        self.pending.push(Effect { node, change });
    }

    /// The same for the same names and bytes, live.
    pub(super) fn digest(&self, dir: NodeId) -> u64 {
        let names = self.dirs.get(&dir).map(|dir| &dir.live).into_iter().flatten();
        let entries = names.map(|(name, node)| {
            let file = self.files.get(node).map(|file| file.live.digest());
            mix(fold(7, name.as_bytes()) ^ file.unwrap_or_else(|| self.digest(*node)))
        });
        entries.fold(0, u64::wrapping_add)
    }

    /// Makes the file at least `to` long, live.
    pub(super) fn grow(&mut self, node: NodeId, to: u64) -> io::Result<()> {
        let len_bytes = self.file(node)?.live.len() as u64;
        if to > len_bytes {
            self.step()?;
            self.file(node)?.live.resize(usize_of(to));
            self.note(node, Change::Length(to));
        }
        Ok(())
    }

    /// Allocates the blocks of `from..to` from the front, and says where the disk was full.
    pub(super) fn allocate(&mut self, node: NodeId, from: u64, to: u64) -> io::Result<u64> {
        let mut free = match self.capacity {
            u64::MAX => u64::MAX,
            capacity => {
                let used: u64 = self.files.values().map(FileNode::allocated_len).sum();
                capacity.saturating_sub(used) / BLOCK_LEN
            }
        };
        let blocks = &mut self.file(node)?.blocks;
        for block in from / BLOCK_LEN..to.div_ceil(BLOCK_LEN) {
            let index = usize_of(block);
            if blocks.len() <= index {
                blocks.resize(index + 1, false);
            }
            let Some(allocated) = blocks.get_mut(index).filter(|allocated| !**allocated) else {
                continue;
            };
            if free == 0 {
                return Ok((block * BLOCK_LEN).max(from));
            }
            free -= 1;
            *allocated = true;
        }
        Ok(to)
    }

    /// Writes `bytes`, sector by sector, live; what does not fit the disk is an error after the
    /// rest was written.
    pub(super) fn write(&mut self, node: NodeId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let failing = self.faults.write.fires();
        let end = offset + bytes.len() as u64;
        let full_at = self.allocate(node, offset, end)?;
        let reached = if failing { full_at.min(offset + bytes.len() as u64 / 2) } else { full_at };
        if reached > offset {
            self.grow(node, reached)?;
        }
        let written = bytes.get(..usize_of(reached - offset)).unwrap_or(bytes);
        self.put_sectors(node, offset, written, false)?;
        if failing {
            return Err(device_error());
        }
        if full_at < end { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// The bytes of a write or store, one effect a sector. The file is long enough.
    pub(super) fn put_sectors(
        &mut self,
        node: NodeId,
        offset: u64,
        mut bytes: &[u8],
        mapped: bool,
    ) -> io::Result<()> {
        let mut offset = offset;
        while !bytes.is_empty() {
            self.step()?;
            let room = usize_of(SECTOR_LEN - offset % SECTOR_LEN);
            let (piece, rest) = bytes.split_at(room.min(bytes.len()));
            let file = self.file(node)?;
            let room = file.live.len().saturating_sub(usize_of(offset));
            assert!(room >= piece.len(), "store at {offset}: behind the end of the file");
            file.live.write(usize_of(offset), piece);
            file.mirror(offset, piece);
            self.note(node, Change::Bytes { offset, bytes: piece.into(), mapped });
            offset += piece.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Zeros from `from` to the end, live; whole blocks are given back.
    pub(super) fn punch_to_end(&mut self, node: NodeId, from: u64) -> io::Result<()> {
        self.step()?;
        let file = self.file(node)?;
        let to = file.live.len() as u64;
        file.live.zero(usize_of(from), usize_of(to));
        if file.maps.iter().any(|map| map.strong_count() > 0) {
            file.mirror(from, &vec![0; usize_of(to - from)]);
        }
        for block in file.blocks.iter_mut().skip(usize_of(from.div_ceil(BLOCK_LEN))) {
            *block = false;
        }
        self.note(node, Change::Punch { from, to });
        Ok(())
    }

    /// Makes all effects on `node` durable. A sync that fails makes some of them durable and the
    /// rest unreachable: the kernel marks the pages clean, and a second sync succeeds without them.
    pub(super) fn sync(&mut self, node: NodeId) -> io::Result<()> {
        self.step()?;
        self.trace = mix(self.trace ^ node);
        let (mine, rest) =
            mem::take(&mut self.pending).into_iter().partition(|effect| effect.node == node);
        self.pending = rest;
        self.finish_sync(mine)
    }

    /// Makes the sectors that `from..to` touches durable, and the length that they need.
    pub(super) fn sync_range(&mut self, node: NodeId, from: u64, to: u64) -> io::Result<()> {
        let of_file = |effect: &Effect| effect.node == node;
        let punched = |effect: &Effect| matches!(effect.change, Change::Punch { .. });
        if self.pending.iter().any(|effect| of_file(effect) && punched(effect)) {
            // The order of a punch and the stores around it must be kept: all of them.
            return self.sync(node);
        }
        self.step()?;
        self.trace = mix(self.trace ^ node ^ mix(from) ^ mix(to));
        let (first, last) = (from / SECTOR_LEN, to.div_ceil(SECTOR_LEN));
        let (mut mine, rest): (Vec<_>, _) =
            mem::take(&mut self.pending).into_iter().partition(|effect| {
                let Change::Bytes { offset, .. } = effect.change else { return false };
                of_file(effect) && (first..last).contains(&(offset / SECTOR_LEN))
            });
        self.pending = rest;
        let len_bytes = (last * SECTOR_LEN).min(self.file(node)?.live.len() as u64);
        mine.push(Effect { node, change: Change::Length(len_bytes) });
        self.finish_sync(mine)
    }

    fn finish_sync(&mut self, effects: Vec<Effect>) -> io::Result<()> {
        let mut zeros = Filler { random: None, stale: &[] };
        if self.faults.sync.fires() {
            let (kept, _) = surviving(effects, Survivors::Random(self.random.next()));
            self.make_durable(kept, &mut zeros);
            return Err(device_error());
        }
        self.make_durable(effects, &mut zeros);
        Ok(())
    }

    /// Applies effects to the durable state: lengths first, the others in their order.
    fn make_durable(&mut self, effects: Vec<Effect>, filler: &mut Filler<'_>) {
        let (lengths, others): (Vec<_>, Vec<_>) =
            effects.into_iter().partition(|effect| matches!(effect.change, Change::Length(_)));
        for Effect { node, change } in lengths.into_iter().chain(others) {
            match (change, self.dirs.get_mut(&node)) {
                (Change::Name { name, target: Some(target) }, Some(dir)) => {
                    dir.durable.insert(name, target);
                }
                (Change::Name { name, target: None }, Some(dir)) => {
                    dir.durable.remove(&name);
                }
                (change, _) => {
                    if let Some(file) = self.files.get_mut(&node) {
                        file.make_durable(change, filler);
                    }
                }
            }
        }
    }

    /// Forgets files that no name leads to, now or after a crash, and nobody holds open.
    pub(super) fn forget_nameless(&mut self) {
        let targets = self.pending.iter().filter_map(|effect| match effect.change {
            Change::Name { target, .. } => target,
            _ => None,
        });
        let mut named: BTreeSet<NodeId> = targets.collect();
        for dir in self.dirs.values() {
            named.extend(dir.live.values().chain(dir.durable.values()));
        }
        self.files.retain(|node, file| {
            let mapped = file.maps.iter().any(|map| map.strong_count() > 0);
            named.contains(node) || mapped || Arc::strong_count(&file.handle) > 1
        });
        let (files, dirs) = (&self.files, &self.dirs);
        self.pending
            .retain(|Effect { node, .. }| files.contains_key(node) || dirs.contains_key(node));
    }

    pub(super) fn file(&mut self, node: NodeId) -> io::Result<&mut FileNode> {
        self.files.get_mut(&node).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// What every call of a dead process answers.
pub(super) fn dead_process() -> io::Error {
    io::Error::other("the simulated process is dead")
}

/// `EIO`.
pub(super) fn device_error() -> io::Error {
    io::Error::from(rustix::io::Errno::IO)
}

/// Positions on the simulated disk are positions in a `Vec`.
pub(super) fn usize_of(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}
