//! The manifest on disk: two copies of one log of edits, rolled over at every open and when it has
//! grown to twice what says everything.
//! Knows how an edit becomes durable; knows nothing of what an edit is about.
//!
//! An edit counts when it is written and synced in both copies. A crash tears at most the last
//! frame of each copy; the copy with more sound frames is read, and the next generation heals both.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Damage, Error, Result};
use crate::format::cursor::FieldError;
use crate::format::manifest::{
    MANIFEST_HEADER_LEN, ManifestHeader, Op, StoreFacts, decode_frame, encode_frame,
};
use crate::format::segment::FORMAT_VERSION;
use crate::limits::EDIT_LEN_MAX;
use crate::manifest::FileSet;
use crate::vfs::{Dir, File, os};

/// The next generation begins when edits take as many bytes as the one that said everything did,
/// but not before the lower and not after the upper of these.
const EDITS_LEN_MIN: u64 = 256 << 10;
const EDITS_LEN_MAX: u64 = 4 << 20;
/// Largest manifest file that opening reads.
pub(crate) const FILE_LEN_MAX: u64 = EDITS_LEN_MAX + 2 * EDIT_LEN_MAX as u64;

/// The manifest of an open store.
#[derive(Debug)]
pub(crate) struct ManifestLog {
    /// Protects: the file set and the tail of both copies. The last lock of all; held across the
    /// sync of an edit, never across anything else.
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: Arc<dyn Dir>,
    set: FileSet,
    generation: u64,
    copies: Vec<Copy>,
    failed: Option<String>,
}

#[derive(Debug)]
struct Copy {
    file: Arc<dyn File>,
    nonce: u64,
    /// Bytes of the header and the edit that says everything.
    first_len: u64,
    len: u64,
}

impl Copy {
    fn is_long(&self) -> bool {
        self.len - self.first_len > self.first_len.clamp(EDITS_LEN_MIN, EDITS_LEN_MAX)
    }
}

/// What the manifest of a directory says.
#[derive(Debug)]
pub(crate) struct Newest {
    /// The file set that the newest sound generation tells.
    pub set: FileSet,
    /// The highest generation that has a name.
    pub generation: u64,
    /// Copies that were torn, missing or not sound. They cost nothing: a crash while one is written
    /// explains them, and the next generation heals them.
    pub unsound: Vec<Damage>,
}

/// The name of one copy of one generation.
pub(crate) fn file_name(generation: u64, copy: u32) -> String {
    format!("{generation:010}.man{copy}")
}

/// The generation and copy that a file name stands for.
pub(crate) fn parse_name(name: &str) -> Option<(u64, u32)> {
    let (number, copy) = name.split_once(".man")?;
    let (generation, copy) = (number.parse().ok()?, copy.parse().ok()?);
    (file_name(generation, copy) == name).then_some((generation, copy))
}

impl ManifestLog {
    /// Begins the manifest of a new store.
    pub(crate) fn create(dir: Arc<dyn Dir>, facts: StoreFacts) -> Result<Self> {
        Self::begin(dir, FileSet::new(facts), 1)
    }

    fn begin(dir: Arc<dyn Dir>, set: FileSet, generation: u64) -> Result<Self> {
        let inner = Inner { dir, set, generation, copies: Vec::new(), failed: None };
        let log = Self { inner: Mutex::new(inner) };
        log.inner.lock().roll(generation)?;
        Ok(log)
    }

    /// Reads the newest sound generation and begins the next one; answers how many copies that
    /// mended. `None`: no manifest is there.
    pub(crate) fn open(dir: Arc<dyn Dir>) -> Result<Option<(Self, u64)>> {
        let Some(newest) = read_newest(&*dir, Unreadable::IsError)? else { return Ok(None) };
        let log = Self::begin(dir, newest.set, newest.generation + 1)?;
        Ok(Some((log, newest.unsound.len() as u64)))
    }

    /// Begins a manifest that says this, in a directory that has none.
    pub(crate) fn begin_with(dir: Arc<dyn Dir>, set: FileSet) -> Result<()> {
        Self::begin(dir, set, 1).map(drop)
    }

    /// Makes one edit durable, then true.
    pub(crate) fn commit(&self, ops: &Vec<Op>) -> Result<()> {
        let mut inner = self.inner.lock();
        if let Some(cause) = &inner.failed {
            return Err(Error::Poisoned { doing: "commit manifest edit", cause: cause.clone() });
        }
        if inner.copies.iter().any(Copy::is_long) {
            let next = inner.generation + 1;
            inner.roll(next)?;
        }
        inner.append(ops)
    }

    /// Whether an edit could not be made durable: no other is taken until the store is reopened.
    pub(crate) fn has_failed(&self) -> bool {
        self.inner.lock().failed.is_some()
    }

    /// Reads the file set as of the last edit.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&FileSet) -> R) -> R {
        read(&self.inner.lock().set)
    }

    /// The next number of a file. The edit that names the file makes it durable.
    pub(crate) fn next_file(&self) -> u32 {
        let mut inner = self.inner.lock();
        let id = inner.set.next_file;
        inner.set.next_file = id.saturating_add(1);
        id
    }

    /// The next number of an incarnation.
    pub(crate) fn next_incarnation(&self) -> u32 {
        let mut inner = self.inner.lock();
        let id = inner.set.next_incarnation;
        inner.set.next_incarnation = id.saturating_add(1);
        id
    }

    /// Bytes of both copies, and what they take on the device.
    pub(crate) fn file_lens(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        let len = inner.copies.iter().map(|copy| copy.len).sum();
        let allocated = inner.copies.iter().filter_map(|copy| copy.file.allocated_len().ok()).sum();
        (len, allocated)
    }
}

impl Inner {
    fn io(&self, doing: &'static str, name: &str, error: std::io::Error) -> Error {
        Error::io(doing, self.dir.path().join(name), error)
    }

    /// Writes both copies of a new generation, each one edit that says everything; then lets the
    /// older generations go.
    fn roll(&mut self, generation: u64) -> Result<()> {
        let mut copies = Vec::new();
        for copy in 0..2 {
            let name = file_name(generation, copy);
            let nonce = u64::from_le_bytes(
                os::random_bytes().map_err(|error| self.io("draw nonce", &name, error))?,
            );
            let store = self.set.facts.store;
            let mut bytes = ManifestHeader { store, generation, nonce, copy }.encode();
            bytes.extend(Self::frame(&self.set.snapshot(), nonce, bytes.len() as u64)?);
            let written = self.dir.create(&name).and_then(|file| {
                file.write_all_at(&bytes, 0)?;
                file.sync()?;
                Ok(file)
            });
            let file = written.map_err(|error| self.io("write manifest", &name, error))?;
            let len = bytes.len() as u64;
            copies.push(Copy { file, nonce, first_len: len, len });
        }
        self.dir.sync().map_err(|error| self.io("sync directory", "", error))?;
        self.copies = copies;
        self.generation = generation;
        self.remove_older(generation);
        Ok(())
    }

    /// An older generation that cannot be removed does no harm and is tried again next time.
    fn remove_older(&self, generation: u64) {
        let Ok(entries) = self.dir.list() else { return };
        for entry in entries {
            if parse_name(&entry.name).is_some_and(|(found, _)| found < generation)
                && let Err(error) = self.dir.unlink(&entry.name)
            {
                tracing::warn!(file = entry.name, %error, "old manifest stays");
            }
        }
    }

    fn frame(ops: &Vec<Op>, nonce: u64, offset: u64) -> Result<Vec<u8>> {
        encode_frame(ops, nonce, offset).ok_or(Error::Limit {
            what: "manifest edit length",
            max: EDIT_LEN_MAX as u64,
            found: u64::MAX,
        })
    }

    fn append(&mut self, ops: &Vec<Op>) -> Result<()> {
        let mut frames = Vec::new();
        for copy in &self.copies {
            frames.push(Self::frame(ops, copy.nonce, copy.len)?);
        }
        if let Err(error) = self.write_frames(&frames) {
            // A full disk is no reason to give up, if nothing of the edit stays behind.
            let is_full = matches!(error, Error::Full { doing: "write manifest edit", .. });
            if !is_full || self.take_back(&frames).is_err() {
                self.failed = Some(error.to_string());
            }
            return Err(error);
        }
        for (copy, frame) in self.copies.iter_mut().zip(&frames) {
            copy.len += frame.len() as u64;
        }
        let applied = self.set.apply(ops);
        assert!(applied.is_ok(), "an edit of ours follows from the file set: {applied:?}");
        Ok(())
    }
}

impl Inner {
    /// Writes the frames behind both copies, then syncs both.
    fn write_frames(&self, frames: &[Vec<u8>]) -> Result<()> {
        for step in ["write manifest edit", "sync manifest edit"] {
            for (index, (copy, frame)) in self.copies.iter().zip(frames).enumerate() {
                let done = if step.starts_with("write") {
                    copy.file.write_all_at(frame, copy.len)
                } else {
                    copy.file.sync()
                };
                let copy = u32::try_from(index).unwrap_or(0);
                let name = file_name(self.generation, copy);
                done.map_err(|error| self.io(step, &name, error))?;
            }
        }
        Ok(())
    }

    /// Makes zeros of what was written of an edit that is not to be, in blocks that are there.
    fn take_back(&self, frames: &[Vec<u8>]) -> std::io::Result<()> {
        for (copy, frame) in self.copies.iter().zip(frames) {
            let end = (copy.len + frame.len() as u64).min(copy.file.len()?);
            let written = usize::try_from(end.saturating_sub(copy.len)).unwrap_or(0);
            copy.file.write_all_at(&vec![0; written], copy.len)?;
            copy.file.sync()?;
        }
        Ok(())
    }
}

/// What a copy is that the device does not give back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Nobody knows what it says: opening does not guess.
    IsError,
    /// As good as none: salvage takes what there is.
    IsDamage,
}

/// What the newest sound generation tells. `None`: no manifest is there.
pub(crate) fn read_newest(dir: &dyn Dir, unreadable: Unreadable) -> Result<Option<Newest>> {
    let mut names = generations(dir)?;
    let Some(&newest) = names.last() else { return Ok(None) };
    let mut unsound = Vec::new();
    while let Some(generation) = names.pop() {
        if let Some(set) = read_generation(dir, generation, unreadable, &mut unsound)? {
            for damage in &unsound {
                tracing::warn!(%damage, "one copy of the manifest is not sound");
            }
            return Ok(Some(Newest { set, generation: newest, unsound }));
        }
    }
    Err(Error::Damaged { path: dir.path(), damage: unsound })
}

/// The generations whose names are in the directory, the oldest first.
pub(crate) fn generations(dir: &dyn Dir) -> Result<Vec<u64>> {
    let entries = dir.list().map_err(|error| Error::io("list directory", dir.path(), error))?;
    let mut found: Vec<u64> = entries
        .iter()
        .filter_map(|entry| parse_name(&entry.name))
        .map(|(number, _)| number)
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// The better copy of one generation; `None` when neither has a sound first edit. What is wrong
/// with a copy goes to `unsound`.
fn read_generation(
    dir: &dyn Dir,
    generation: u64,
    unreadable: Unreadable,
    unsound: &mut Vec<Damage>,
) -> Result<Option<FileSet>> {
    let mut best: Option<(u64, FileSet)> = None;
    let mut newer = None;
    for copy in 0..2 {
        let name = file_name(generation, copy);
        let read = match read_copy(dir, &name, generation, copy) {
            Err(error) if unreadable == Unreadable::IsDamage => {
                Err(FieldError::new("file", error, "one that can be read"))
            }
            read => read?,
        };
        match read {
            Ok(found) => {
                let frames = best.as_ref().map_or(found.0, |(frames, _)| *frames);
                if found.0 != frames {
                    let shorter = file_name(generation, u32::from(found.0 < frames));
                    let ends = FieldError::new("edits", found.0.min(frames), found.0.max(frames));
                    unsound.push(ends.at("read manifest", &shorter, 0));
                }
                if best.is_none() || found.0 > frames {
                    best = Some(found);
                }
            }
            Err(error) if error.field == "format version" => {
                let file = dir.path().join(&name);
                let found = error.found.parse().unwrap_or(0);
                newer = Some(Error::Version { file, found, supported: FORMAT_VERSION });
                unsound.push(error.at("read manifest", &name, 0));
            }
            Err(error) => unsound.push(error.at("read manifest", &name, 0)),
        }
    }
    // A version that one copy alone has is damage, and the other copy is enough.
    if let (None, Some(newer)) = (&best, newer) {
        return Err(newer);
    }
    Ok(best.map(|(_, set)| set))
}

type CopyRead = std::result::Result<(u64, FileSet), FieldError>;

fn read_copy(dir: &dyn Dir, name: &str, generation: u64, copy: u32) -> Result<CopyRead> {
    let bytes = match read_file(dir, name, FILE_LEN_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Err(FieldError::new("file", "none", "a manifest file")));
        }
        Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            return Ok(Err(FieldError::new("file length", error, FILE_LEN_MAX)));
        }
        Err(error) => return Err(Error::io("read manifest", dir.path().join(name), error)),
    };
    Ok(parse_copy(&bytes, generation, copy))
}

fn parse_copy(bytes: &[u8], generation: u64, copy: u32) -> CopyRead {
    let header = ManifestHeader::decode(bytes)?;
    if (header.generation, header.copy) != (generation, copy) {
        return Err(FieldError::new("generation", header.generation, generation));
    }
    let mut offset = MANIFEST_HEADER_LEN as u64;
    let rest = |offset: u64| usize::try_from(offset).ok().and_then(|at| bytes.get(at..));
    let first = decode_frame(rest(offset).unwrap_or(&[]), header.nonce, offset)?;
    let Some((ops, len)) = first else {
        return Err(FieldError::new("first edit", "nothing", "the whole file set"));
    };
    let Some(Op::Facts(facts)) = ops.first() else {
        return Err(FieldError::new("first edit", "another op", "the store's facts"));
    };
    if facts.store != header.store {
        return Err(FieldError::new("store id", "another store's", "the header's"));
    }
    let mut set = FileSet::new(facts.clone());
    set.apply(&ops)?;
    offset += len;
    let mut frames = 1;
    // Whatever stops the walk is the torn end of this copy; the other copy may know more.
    while let Ok(Some((ops, len))) = decode_frame(rest(offset).unwrap_or(&[]), header.nonce, offset)
    {
        set.apply(&ops)?;
        offset += len;
        frames += 1;
    }
    Ok((frames, set))
}

/// Reads a whole file. One that is longer than `len_max` is refused as invalid data, unread.
pub(crate) fn read_file(dir: &dyn Dir, name: &str, len_max: u64) -> std::io::Result<Vec<u8>> {
    let file = dir.open(name)?;
    let len = file.len()?;
    if len > len_max {
        let text = format!("{} is longer than {len_max} bytes", Path::new(name).display());
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, text));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Whether at least one copy of a generation begins with a sound edit.
pub(crate) fn generation_is_sound(dir: &dyn Dir, generation: u64) -> Result<bool> {
    Ok(read_generation(dir, generation, Unreadable::IsError, &mut Vec::new())?.is_some())
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
