//! Saving what is sound of a damaged store: reads one directory, writes a new store, names the
//! rest.
//! Knows every file by itself; never opens the source as a store, never writes to it.
//!
//! All files are walked twice. The first walk finds, for each key, the newest sound record, and
//! what is missing: records that a sound header or trailer still names, and gaps between sequence
//! numbers. The second walk writes. A key whose newest record is known to be lost gets no older
//! value under its name; the older value goes to a keyspace beside it, named with
//! [`UNKNOWN_SUFFIX`].

mod blocks;
mod catalog;
mod image;
mod journal;
mod log;
mod source;
mod write;

use std::path::Path;

use crate::error::{Damage, Error, Result};
use crate::ids::{Incarnation, Seq};
use crate::options::Options;
use crate::repair::catalog::Catalog;
use crate::repair::source::Source;
use crate::repair::write::Writer;
use crate::verify::Progress;

/// What is appended to a keyspace's name for values that may not be the newest.
pub const UNKNOWN_SUFFIX: &str = " (older versions)";
/// Names kept of each kind; beyond that only counts rise.
const NAMED_MAX: usize = 10_000;

/// One record that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SalvagedKey {
    /// The keyspace, where it is known.
    pub keyspace: String,
    /// The key; `None` when nothing that is left tells it.
    pub key: Option<Vec<u8>>,
    /// The sequence number of the record that is lost, or up to which records may be.
    pub lost_seq: u64,
}

/// What [`salvage`] kept, lost, and cannot know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Salvaged {
    /// Files that were read.
    pub files: u64,
    /// Bytes that were read, each once.
    pub bytes: u64,
    /// Keys whose newest record is sound and was written.
    pub kept: u64,
    /// Keys whose newest record is lost.
    pub lost: u64,
    /// Keys that were written although a newer record may be lost.
    pub unknown: u64,
    /// Records may be missing of which neither key nor number is known: whole files, or a part of
    /// the journal.
    pub has_gap: bool,
    /// The first of the lost ones.
    pub lost_keys: Vec<SalvagedKey>,
    /// The first of the unknown ones.
    pub unknown_keys: Vec<SalvagedKey>,
    /// Every place that did not hold.
    pub damage: Vec<Damage>,
}

impl Salvaged {
    /// Whether nothing was lost and nothing is unknown.
    pub fn is_whole(&self) -> bool {
        self.lost == 0 && self.unknown == 0 && !self.has_gap
    }

    fn name_lost(&mut self, key: SalvagedKey) {
        self.lost += 1;
        if self.lost_keys.len() < NAMED_MAX {
            self.lost_keys.push(key);
        }
    }

    fn name_unknown(&mut self, key: SalvagedKey) {
        self.unknown += 1;
        if self.unknown_keys.len() < NAMED_MAX {
            self.unknown_keys.push(key);
        }
    }
}

/// A sound record of the source, borrowed from its file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sound<'a> {
    incarnation: Incarnation,
    key: &'a [u8],
    /// `None` for a tombstone.
    value: Option<&'a [u8]>,
    seq: Seq,
    deadline_ms: u64,
}

/// A record that is known to be lost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lost {
    incarnation: Incarnation,
    /// Upper half of the key's hash, where a trailer tells it.
    tag: Option<u32>,
    seq: Seq,
    deadline_ms: u64,
    tombstone: bool,
}

/// What a walk over a file hands over, in no order.
pub(crate) enum Find<'a> {
    Sound(Sound<'a>),
    Lost(Lost),
    /// Records of these sequence numbers may have been here; nobody knows of which keys.
    Gap(Seq, Seq),
    /// So many live records of an archive, of keys that nobody knows.
    LostCold(u64),
    /// Nobody knows how many records an archive held.
    ColdGap,
    /// An incarnation ended; the next one, 0 for none.
    Clear(Seq, Incarnation, u32),
    Damage(Damage),
}

/// Reads everything that is sound in the store at `path` and writes it to a new store at `into`.
///
/// The source is never changed, whatever its damage; nobody may have it open for writing. `into`
/// must be new or empty. Deadlines are kept; expired records are left behind. The new store is
/// verified before the call returns. Memory: about 50 bytes a key.
///
/// Errors: [`Error::Foreign`] when nothing of a store is at `path` or something is at `into`,
/// [`Error::Version`], [`Error::Full`], [`Error::Io`]. Damage of the source is never an error.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// let (from, into) = (dir.path().join("from"), dir.path().join("into"));
/// terrace::Db::open(&from)?.keyspace("notes")?.put("a", "1")?;
/// let salvaged = terrace::repair::salvage(&from, &into, |_| ())?;
/// assert!(salvaged.is_whole() && salvaged.kept == 1);
/// assert!(terrace::Db::open(&into)?.keyspace("notes")?.contains("a")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn salvage(
    path: impl AsRef<Path>,
    into: impl AsRef<Path>,
    progress: impl FnMut(Progress),
) -> Result<Salvaged> {
    salvage_with(path.as_ref(), into.as_ref(), Options::new(), progress)
}

/// The same; the new store is opened with these options, and their file system holds both.
pub(crate) fn salvage_with(
    path: &Path,
    into: &Path,
    options: Options,
    mut progress: impl FnMut(Progress),
) -> Result<Salvaged> {
    let mut source = Source::open(path, &options)?;
    let total = source.total_bytes().saturating_mul(2);
    let mut done = 0;
    let mut tell = |bytes: u64| {
        done += bytes;
        progress(Progress { done, total });
    };
    let mut catalog = Catalog::new(source.seed)?;
    let mut salvaged =
        Salvaged { damage: std::mem::take(&mut source.damage), ..Salvaged::default() };
    let gaps = source.find_cut();
    for (first, last) in gaps {
        catalog.note(Find::Gap(first, last), &mut salvaged);
    }
    source.walk(&mut |find| catalog.note(find, &mut salvaged), &mut tell);
    salvaged.files = source.file_count();
    salvaged.bytes = source.total_bytes();
    catalog.finish(&mut source.keyspaces);
    let mut writer = Writer::open(into, options, &source, &mut catalog)?;
    let mut failed: Option<Error> = None;
    source.walk(
        &mut |find| {
            if let (Find::Sound(sound), None) = (find, &failed) {
                failed = writer.write(&sound, &mut salvaged).err();
            }
        },
        &mut tell,
    );
    failed.map_or(Ok(()), Err)?;
    writer.finish(&mut salvaged)?;
    salvaged.has_gap |= source.seed.is_none() || source.missing_archives > 0;
    Ok(salvaged)
}
