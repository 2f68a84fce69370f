//! The damaged store as a set of files: what the manifest says of them, or what they say.
//! Knows names, identities and lengths; the walks over what is in them stand beside it.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Damage, Error, Result};
use crate::format::archive::ArchiveHeader;
use crate::format::cursor::FieldError;
use crate::format::deadbits::DeadBits;
use crate::format::manifest::KeyspaceFacts;
use crate::format::segment::{SegmentHeader, SegmentKind};
use crate::hash::HashSeed;
use crate::ids::Seq;
use crate::limits::{ARCHIVE_LEN_MAX, SEGMENT_FILE_LEN_MAX};
use crate::manifest::log::{Unreadable, parse_name, read_file, read_newest};
use crate::manifest::{FileSet, FileState};
use crate::options::Options;
use crate::repair::Find;
use crate::repair::blocks::walk_archive;
use crate::repair::image::{DOING, Image};
use crate::repair::journal::JournalScan;
use crate::repair::log::walk_segment;
use crate::vfs::{Dir, EntryKind, Vfs};

const BITS_LEN_MAX: u64 = 1 << 30;

/// Everything that is there to be read.
pub(crate) struct Source {
    pub store: [u8; 16],
    /// The secret of the hash; `None` when every copy of the manifest is lost.
    pub seed: Option<HashSeed>,
    pub keyspaces: BTreeMap<u32, KeyspaceFacts>,
    pub damage: Vec<Damage>,
    pub bits: DeadBits,
    pub journal: JournalScan,
    /// Archives that the manifest lists and that cannot be read at all.
    pub missing_archives: u64,
    images: Vec<Image>,
    journal_at: Seq,
}

impl Source {
    pub(crate) fn open(path: &Path, options: &Options) -> Result<Self> {
        let vfs = options.files();
        let dir = vfs.open_dir(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => {
                Error::Foreign { path: path.to_path_buf(), reason: "no directory is there".into() }
            }
            _ => Error::io("open store", path, error),
        })?;
        let mut damage = Vec::new();
        let set = match read_newest(&*dir, Unreadable::IsDamage) {
            Ok(Some(newest)) => Some(newest.set),
            Ok(None) => None,
            Err(Error::Damaged { damage: found, .. }) => {
                damage.extend(found);
                None
            }
            Err(error) => return Err(error),
        };
        if set.is_none() {
            let error = FieldError::new("manifest", "none that is sound", "at least one copy");
            damage.push(error.at(DOING, "manifest", 0));
        }
        let mut this = Self {
            store: set.as_ref().map_or([0; 16], |set| set.facts.store),
            seed: set.as_ref().map(|set| HashSeed(set.facts.hash_seed)),
            keyspaces: BTreeMap::new(),
            damage,
            bits: DeadBits::default(),
            journal: JournalScan::of(set.as_ref().map_or(Seq::ZERO, |set| set.durable_at)),
            missing_archives: 0,
            images: Vec::new(),
            journal_at: set.as_ref().map_or(Seq::ZERO, |set| set.journal_at),
        };
        match set {
            Some(set) => this.open_listed(&*vfs, &dir, &set),
            None => this.open_unlisted(&*dir)?,
        }
        Ok(this)
    }

    fn open_listed(&mut self, vfs: &dyn Vfs, dir: &Arc<dyn Dir>, set: &FileSet) {
        let facts = set.keyspaces.values();
        self.keyspaces = facts.map(|facts| (facts.incarnation, facts.clone())).collect();
        let archive_dir = set
            .facts
            .archive_dir
            .as_ref()
            .map_or_else(|| Ok(Arc::clone(dir)), |path| vfs.open_dir(Path::new(path)));
        let archive_dir = archive_dir.unwrap_or_else(|_| Arc::clone(dir));
        for (&id, &state) in &set.files {
            let dir = if state.is_archive() { &archive_dir } else { dir };
            match state {
                FileState::OpenSegment(_)
                | FileState::SealedSegment(_)
                | FileState::Archive { .. } => self.add(&**dir, id, state),
                _ => {}
            }
        }
        self.add_newer(&**dir, set);
        if let Some(id) = set.bits() {
            self.read_bits(&**dir, id);
        }
    }

    /// Files that an older manifest cannot know: their numbers are above all that it gave.
    fn add_newer(&mut self, dir: &dyn Dir, set: &FileSet) {
        for (id, state) in unlisted(&dir.list().unwrap_or_default()) {
            if id >= set.next_file {
                self.add(dir, id, state);
            }
        }
    }

    /// Without a manifest every file that says whose it is and has its own name counts.
    fn open_unlisted(&mut self, dir: &dyn Dir) -> Result<()> {
        let list = dir.list().map_err(|e| Error::io("list directory", dir.path(), e))?;
        let found = unlisted(&list);
        if found.is_empty() && !list.iter().any(|entry| parse_name(&entry.name).is_some()) {
            let reason = "not a store: no file of one is there".into();
            return Err(Error::Foreign { path: dir.path(), reason });
        }
        let mut votes: HashMap<[u8; 16], u32> = HashMap::new();
        for (id, state) in &found {
            if let Ok(bytes) = read_head(dir, &state.name(*id))
                && let Some(store) = store_of(&bytes, *state)
            {
                *votes.entry(store).or_default() += 1;
            }
        }
        let most = votes.into_iter().max_by_key(|(store, count)| (*count, *store));
        self.store = most.map_or([0; 16], |(store, _)| store);
        for &(id, state) in &found {
            self.add(dir, id, state);
        }
        let bits = list.iter().filter_map(|entry| number(&entry.name, ".bit")).max();
        if let Some(id) = bits {
            self.read_bits(dir, id);
        }
        Ok(())
    }

    fn add(&mut self, dir: &dyn Dir, id: u32, state: FileState) {
        let name = state.name(id);
        match self.image(dir, id, state) {
            Ok(Some(image)) => self.images.push(image),
            Ok(None) => {}
            Err(error) => {
                let error = FieldError::new("file", error, "a file that can be read");
                self.damage.push(error.at(DOING, &name, 0));
                self.journal.note_missing(state);
                self.missing_archives += u64::from(matches!(state, FileState::Archive { .. }));
            }
        }
    }

    /// Takes a file, unless its header says that it is another one.
    fn image(
        &mut self,
        dir: &dyn Dir,
        id: u32,
        state: FileState,
    ) -> std::io::Result<Option<Image>> {
        let name = state.name(id);
        let file = dir.open_to_read(&name)?;
        let len = file.len()?;
        let max = if state.is_archive() { 2 * ARCHIVE_LEN_MAX } else { 2 * SEGMENT_FILE_LEN_MAX };
        if len == 0 || len > max {
            return Err(std::io::Error::other(format!("{len} bytes long")));
        }
        let (map, unreadable) = Image::read(&*file, len)?;
        let image = Image::new(id, name, state, len, map);
        if let Some((first, count)) = unreadable {
            let found = format_args!("{count} that the device does not give back").to_string();
            self.damage.push(image.damage(first, FieldError::new("bytes", found, "all of them")));
        }
        if let Some((store, own)) = identity(image.rest(0), state)
            && (store != self.store || own != id)
        {
            let text = format!("a file of another store, or file {own}");
            return Err(std::io::Error::other(text));
        }
        Ok(Some(image))
    }

    fn read_bits(&mut self, dir: &dyn Dir, id: u32) {
        let name = format!("{id:010}.bit");
        let read = read_file(dir, &name, BITS_LEN_MAX);
        let decoded = match &read {
            Ok(bytes) => DeadBits::decode(bytes, self.store, id),
            Err(error) => Err(FieldError::new("file", error, "a file of dead bitmaps")),
        };
        match decoded {
            Ok(bits) => self.bits = bits,
            Err(error) => {
                self.damage.push(error.at(DOING, &name, 0));
                // Any key may have been deleted, or have had a newer version, since.
                self.journal.doubt_all();
            }
        }
    }

    /// Walks the unsealed journal: where it is cut, and which of its records are missing before.
    pub(crate) fn find_cut(&mut self) -> Vec<(Seq, Seq)> {
        let mut scan = std::mem::take(&mut self.journal);
        for image in &self.images {
            if let Some(kind) = Self::kind_of(image)
                && is_unsealed(image, kind)
            {
                scan.add(image, kind);
            }
        }
        let gaps = scan.judge(self.journal_at);
        self.journal = scan;
        gaps
    }

    /// Journal, survivor or attached, from the manifest or the header.
    fn kind_of(image: &Image) -> Option<SegmentKind> {
        match image.state {
            FileState::OpenSegment(kind) => Some(kind),
            FileState::SealedSegment(facts) => Some(facts.kind),
            FileState::DraftSegment => SegmentHeader::decode(image.rest(0)).ok().map(|h| h.kind),
            _ => None,
        }
    }

    /// Hands everything that is in the files to `each`; `tell` hears bytes as they are done.
    pub(crate) fn walk(&self, each: &mut dyn FnMut(Find<'_>), tell: &mut dyn FnMut(u64)) {
        for image in &self.images {
            let dead = self.bits.of(image.id);
            match Self::kind_of(image) {
                Some(kind) if is_unsealed(image, kind) => {
                    self.journal.walk(image, kind, self.seed.as_ref(), each);
                }
                None if image.state.is_archive() => walk_archive(image, dead, each),
                _ => walk_segment(image, dead, self.seed.as_ref(), each),
            }
            tell(image.len);
        }
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.images.iter().map(|image| image.len).sum()
    }

    pub(crate) fn file_count(&self) -> u64 {
        self.images.len() as u64
    }
}

/// Whether a segment has no trailer yet, as the manifest or the file itself says.
fn is_unsealed(image: &Image, kind: SegmentKind) -> bool {
    match image.state {
        FileState::OpenSegment(_) => true,
        FileState::DraftSegment => {
            kind != SegmentKind::Survivor && super::log::find_footer(image).is_none()
        }
        _ => false,
    }
}

/// Segments and archives among the names, taken for files that nobody lists.
fn unlisted(list: &[crate::vfs::Entry]) -> Vec<(u32, FileState)> {
    let files = list.iter().filter(|entry| entry.kind == EntryKind::File);
    let known = files.filter_map(|entry| {
        let segment = number(&entry.name, ".seg").map(|id| (id, FileState::DraftSegment));
        segment.or_else(|| number(&entry.name, ".arc").map(|id| (id, FileState::DraftArchive)))
    });
    let mut known: Vec<_> = known.collect();
    known.sort_by_key(|(id, _)| *id);
    known
}

/// The number that a name of ten digits and this ending stands for.
fn number(name: &str, ending: &str) -> Option<u32> {
    let digits = name.strip_suffix(ending)?;
    let plain = digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

fn read_head(dir: &dyn Dir, name: &str) -> std::io::Result<[u8; 64]> {
    let mut bytes = [0; 64];
    dir.open_to_read(name)?.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn store_of(bytes: &[u8], state: FileState) -> Option<[u8; 16]> {
    identity(bytes, state).map(|(store, _)| store)
}

/// Store and number in a sound header.
fn identity(bytes: &[u8], state: FileState) -> Option<([u8; 16], u32)> {
    if state.is_archive() {
        return ArchiveHeader::decode(bytes).ok().map(|header| (header.store, header.id.0));
    }
    SegmentHeader::decode(bytes).ok().map(|header| (header.store, header.id.0))
}
