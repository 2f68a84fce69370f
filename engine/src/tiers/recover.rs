//! Opening: lock, manifest, leftovers, the journal's tail, segments, archives, the index.
//! Can be killed anywhere and begun again. Knows what a crash explains; the rest is damage.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use crate::cold::reader::Archive;
use crate::cold::{ArchiveEntry, ArchiveSet};
use crate::error::{Error, Result};
use crate::format::cursor::FieldError;
use crate::format::deadbits::DeadBits;
use crate::format::manifest::{Op, StoreFacts};
use crate::hash::HashSeed;
use crate::ids::{ArchiveId, SegmentId, Seq};
use crate::manifest::log::{
    ManifestLog, file_name, generation_is_sound, generations, parse_name, read_file,
};
use crate::manifest::{FileSet, FileState};
use crate::options::{OpenPolicy, Options};
use crate::tiers::OpenReport;
use crate::tiers::image::{Image, Restored};
use crate::tiers::rebuild::{Rebuilt, rebuild};
use crate::vfs::clock::{SystemTime, TimeSource};
use crate::vfs::lock::LockContent;
use crate::vfs::{Dir, EntryKind, Lock, NEW_NAME, Vfs, os};
use crate::warm::account::SegmentAccount;
use crate::warm::index::point::{IndexWriter, PointIndex};
use crate::warm::segment::Segment;
use crate::warm::table::SegmentTable;

/// The name of the lock file.
pub(crate) const LOCK_NAME: &str = "LOCK";
/// Text for whoever looks on from outside; nothing of the store depends on it.
pub(crate) const STATISTICS_NAME: &str = "STATISTICS";

/// Whether a name belongs to the store though no manifest lists it.
pub(crate) fn is_unlisted(name: &str) -> bool {
    name == LOCK_NAME || name == STATISTICS_NAME || name == NEW_NAME || parse_name(name).is_some()
}
/// Largest file of dead bitmaps that opening reads.
const BITS_LEN_MAX: u64 = 1 << 30;

/// The directories and the manifest of a store, locked.
pub(crate) struct Opened {
    pub dir: Arc<dyn Dir>,
    pub archive_dir: Arc<dyn Dir>,
    pub lock: Box<dyn Lock>,
    pub manifest: ManifestLog,
    pub facts: StoreFacts,
    pub report: OpenReport,
}

fn io_at<'a>(doing: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> Error + 'a {
    move |error| match error.kind() {
        std::io::ErrorKind::NotADirectory => Error::Foreign {
            path: path.to_path_buf(),
            reason: "a file stands where the store's directory should be".into(),
        },
        _ => Error::io(doing, path, error),
    }
}

/// Opens or creates the directory, the lock and the manifest. A directory that is not a store is
/// left as it is.
pub(crate) fn open_dir(vfs: &dyn Vfs, path: &Path, options: &Options) -> Result<Opened> {
    let dir = vfs.create_dir(path).map_err(io_at("open store", path))?;
    let is_new = check_ours(&*dir)?;
    let since_ms = wall_ms(options);
    let content = LockContent { pid: os::process_id(), since_ms }.encode();
    let lock = dir.lock(LOCK_NAME, &content).map_err(|error| locked(&*dir, error))?;
    let opened = if is_new { None } else { ManifestLog::open(Arc::clone(&dir))? };
    let (manifest, manifest_mended) = match opened {
        Some(opened) => opened,
        None => (ManifestLog::create(Arc::clone(&dir), new_facts(options, path)?)?, 0),
    };
    let facts = manifest.read(|set| set.facts.clone());
    let archive_dir = open_archive_dir(vfs, &dir, &facts, options)?;
    let report = OpenReport { manifest_mended, ..OpenReport::default() };
    Ok(Opened { dir, archive_dir, lock, manifest, facts, report })
}

/// Whether the directory is empty enough to become a store; fails when it is somebody else's.
fn check_ours(dir: &dyn Dir) -> Result<bool> {
    let entries = dir.list().map_err(|error| Error::io("list directory", dir.path(), error))?;
    let generations = generations(dir)?;
    let others: Vec<_> = entries.iter().filter(|entry| !is_unlisted(&entry.name)).collect();
    match (generations.as_slice(), others.first()) {
        ([], None) => Ok(true),
        ([], Some(other)) => Err(Error::Foreign {
            path: dir.path(),
            reason: format!("not a store: no manifest, but {:?} is there", other.name),
        }),
        // A crash while the very first manifest was written: there is nothing to lose.
        ([1], None) => {
            let sound = generation_is_sound(dir, 1)?;
            if !sound {
                for copy in 0..2 {
                    let name = file_name(1, copy);
                    if let Err(error) = dir.unlink(&name)
                        && error.kind() != std::io::ErrorKind::NotFound
                    {
                        return Err(Error::io(
                            "remove torn manifest",
                            dir.path().join(name),
                            error,
                        ));
                    }
                }
            }
            Ok(!sound)
        }
        _ => Ok(false),
    }
}

fn locked(dir: &dyn Dir, error: std::io::Error) -> Error {
    if error.kind() != std::io::ErrorKind::WouldBlock {
        return Error::io("lock store", dir.path().join(LOCK_NAME), error);
    }
    let content = read_file(dir, LOCK_NAME, 4096).ok();
    let holder = content.and_then(|bytes| LockContent::decode(&bytes));
    Error::Locked {
        path: dir.path(),
        holder_pid: holder.map(|holder| holder.pid),
        since_ms: holder.map(|holder| holder.since_ms),
    }
}

fn new_facts(options: &Options, path: &Path) -> Result<StoreFacts> {
    let draw = || os::random_bytes().map_err(|error| Error::io("draw store id", path, error));
    Ok(StoreFacts {
        store: draw()?,
        hash_seed: draw()?,
        created_ms: wall_ms(options),
        archive_dir: options.archive_dir.as_ref().map(|path| path.display().to_string()),
    })
}

fn open_archive_dir(
    vfs: &dyn Vfs,
    dir: &Arc<dyn Dir>,
    facts: &StoreFacts,
    options: &Options,
) -> Result<Arc<dyn Dir>> {
    let wanted = options.archive_dir.as_ref().map(|path| path.display().to_string());
    if wanted.is_some() && wanted != facts.archive_dir {
        let expected = facts.archive_dir.as_deref().unwrap_or("none");
        let expected = format!("{expected}, as the store was created");
        return Err(Error::invalid("archive_dir", wanted.unwrap_or_default(), expected));
    }
    match &facts.archive_dir {
        None => Ok(Arc::clone(dir)),
        Some(path) => {
            let path = Path::new(path);
            vfs.create_dir(path).map_err(io_at("open archive directory", path))
        }
    }
}

/// Everything that opening builds before the store exists.
pub(crate) struct Recovered {
    pub index: PointIndex,
    pub writer: IndexWriter,
    pub table: SegmentTable,
    pub accounts: Vec<Option<SegmentAccount>>,
    pub cold: ArchiveSet,
    /// The image that they are from: it keeps the order too.
    pub image: Option<Image>,
}

impl Opened {
    pub(crate) fn seed(&self) -> HashSeed {
        HashSeed(self.facts.hash_seed)
    }

    fn set(&self) -> FileSet {
        self.manifest.read(Clone::clone)
    }

    /// Removes what a crash left behind and names what is not ours.
    pub(crate) fn remove_leftovers(&mut self) -> Result<()> {
        let set = self.set();
        let mut gone = Vec::new();
        for (&id, &state) in &set.files {
            let leftover = matches!(
                state,
                FileState::DraftSegment
                    | FileState::DraftArchive
                    | FileState::DraftBits
                    | FileState::DoomedSegment
                    | FileState::DoomedArchive
                    | FileState::DoomedBits
                    | FileState::DraftImage
                    | FileState::DoomedImage
            );
            if leftover {
                match self.unlink(id, state) {
                    Ok(()) => gone.push(Op::Gone { id }),
                    Err(error) if state == FileState::DoomedImage => {
                        tracing::warn!(%error, "an index image that no longer counts stays");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if !gone.is_empty() {
            self.manifest.commit(&gone)?;
        }
        self.name_foreign()
    }

    fn unlink(&self, id: u32, state: FileState) -> Result<()> {
        let name = state.name(id);
        let dir = if state.is_archive() { &self.archive_dir } else { &self.dir };
        match dir.unlink(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove leftover", dir.path().join(name), error))
            }
            _ => Ok(()),
        }
    }

    fn name_foreign(&mut self) -> Result<()> {
        let set = self.set();
        let known: HashSet<String> = set.files.iter().map(|(&id, state)| state.name(id)).collect();
        let entries = self.dir.list();
        let entries = entries.map_err(|e| Error::io("list directory", self.dir.path(), e))?;
        self.report.foreign.clear();
        for entry in entries {
            let ours = is_unlisted(&entry.name)
                || known.contains(&entry.name) && entry.kind == EntryKind::File;
            if !ours {
                tracing::warn!(file = entry.name, "a file that is not the store's is left alone");
                self.report.foreign.push(entry.name);
            }
        }
        Ok(())
    }

    /// Opens every sealed segment and archive and builds the index from their trailers.
    pub(crate) fn load(&mut self, policy: OpenPolicy) -> Result<Recovered> {
        let set = self.set();
        let bits = self.load_bits(&set)?;
        let image = self.open_image(&set);
        let table = self.open_segments(&set, image.as_ref())?;
        let cold = self.load_archives(&set, &bits)?;
        if policy == OpenPolicy::Strict && !self.report.damage.is_empty() {
            let damage = std::mem::take(&mut self.report.damage);
            return Err(Error::Damaged { path: self.dir.path(), damage });
        }
        let recovered = self.build_index(&set, table, &bits, cold, image)?;
        if policy == OpenPolicy::Strict && !self.report.damage.is_empty() {
            let damage = std::mem::take(&mut self.report.damage);
            return Err(Error::Damaged { path: self.dir.path(), damage });
        }
        Ok(recovered)
    }

    /// The listed image. One that is missing or unsound costs time and nothing else.
    fn open_image(&self, set: &FileSet) -> Option<Image> {
        let last = Seq(set.journal_at.0.saturating_sub(1));
        let opened = Image::open(&*self.dir, self.facts.store, set.image()?, last);
        opened.inspect_err(|error| tracing::warn!(%error, "an index image is not used")).ok()
    }

    /// Every sealed segment, in the slot by which the image knows it.
    fn open_segments(&mut self, set: &FileSet, image: Option<&Image>) -> Result<SegmentTable> {
        let mut table = SegmentTable::default();
        for (&id, state) in &set.files {
            let FileState::SealedSegment(facts) = state else { continue };
            let known = image.and_then(|image| image.slot_of(id));
            let slot = known.filter(|&slot| table.reserve(slot)).or_else(|| table.free_slot());
            let slot = slot.ok_or_else(too_many_segments)?;
            let store = self.facts.store;
            match Segment::open_sealed(&*self.dir, store, SegmentId(id), slot, facts) {
                Ok(segment) => table.insert(segment),
                Err(error) => {
                    table.release(slot);
                    self.note_damage(error, &state.name(id))?;
                }
            }
        }
        Ok(table)
    }

    /// Damage is collected; anything else ends the opening.
    fn note_damage(&mut self, error: Error, file: &str) -> Result<()> {
        match error {
            Error::Corrupt(damage) => self.report.damage.push(*damage),
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                let missing = FieldError::new("file", "missing", "what the manifest lists");
                self.report.damage.push(missing.at("open store", file, 0));
            }
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::InvalidInput => {
                let link = FieldError::new("file", "a link or device", "a regular file");
                self.report.damage.push(link.at("open store", file, 0));
            }
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::InvalidData => {
                let long = FieldError::new("file length", source, "what such a file may have");
                self.report.damage.push(long.at("open store", file, 0));
            }
            other => return Err(other),
        }
        Ok(())
    }

    /// The dead bitmaps. Without them older versions would come back: a device that does not give
    /// them now ends the opening, under every policy.
    fn load_bits(&mut self, set: &FileSet) -> Result<DeadBits> {
        let Some(id) = set.bits() else { return Ok(DeadBits::default()) };
        let name = format!("{id:010}.bit");
        let io = |error| Error::io("read dead bitmaps", self.dir.path().join(&name), error);
        let read = read_file(&*self.dir, &name, BITS_LEN_MAX).map_err(io);
        let decoded = read.and_then(|bytes| {
            let decoded = DeadBits::decode(&bytes, self.facts.store, id);
            decoded.map_err(|error| error.at("open store", &name, 0).into())
        });
        decoded.or_else(|error| {
            self.note_damage(error, &name)?;
            Ok(DeadBits::default())
        })
    }

    fn load_archives(&mut self, set: &FileSet, bits: &DeadBits) -> Result<ArchiveSet> {
        let mut entries = Vec::new();
        for (&id, state) in &set.files {
            if !matches!(state, FileState::Archive { .. }) {
                continue;
            }
            let opened =
                Archive::open(&*self.archive_dir, ArchiveId(id), self.facts.store, self.seed());
            match opened {
                Ok(archive) => {
                    let dead = bits.of(id).map_or(&[][..], |bitmap| &bitmap.bits);
                    let (entry, damage) = ArchiveEntry::restore(archive, dead);
                    self.report.damage.extend(damage);
                    entries.push(entry);
                }
                Err(error) => self.note_damage(error, &state.name(id))?,
            }
        }
        Ok(ArchiveSet::new(entries))
    }

    /// The index and the accounts: as the image has them, or from the trailers.
    fn build_index(
        &mut self,
        set: &FileSet,
        table: SegmentTable,
        bits: &DeadBits,
        cold: ArchiveSet,
        image: Option<Image>,
    ) -> Result<Recovered> {
        // What was read from end to end was read; it goes here and there from now on.
        table.iter().for_each(|segment| segment.map.advise_random());
        let restored = image.and_then(|image| match image.restore(&table) {
            Ok(restored) => Some((image, restored)),
            Err(error) => {
                tracing::warn!(%error, "an index image is not used");
                None
            }
        });
        let current = set.keyspaces.values().map(|keyspace| keyspace.incarnation).collect();
        let recovered = if let Some((image, restored)) = restored {
            let Restored { index, writer, mut accounts } = restored;
            // A snapshot that was held at the close kept what nobody sees any more.
            accounts.iter_mut().flatten().for_each(|account| account.keep_only(&current));
            self.report.index_image = true;
            Recovered { index, writer, table, accounts, cold, image: Some(image) }
        } else {
            let rebuilt = rebuild(&table, bits, &current, self.seed())?;
            let Rebuilt { index, writer, accounts, damage } = rebuilt;
            self.report.damage.extend(damage);
            Recovered { index, writer, table, accounts, cold, image: None }
        };
        Ok(recovered)
    }
}

/// The wall clock before the store has one of its own.
fn wall_ms(options: &Options) -> u64 {
    options.time.as_ref().map_or_else(|| SystemTime.wall_ms(), |time| time.wall_ms())
}

fn too_many_segments() -> Error {
    let limit = crate::limits::SEGMENT_COUNT_MAX as u64;
    Error::Full { doing: "open store", what: "table of segments", used: limit, limit }
}
