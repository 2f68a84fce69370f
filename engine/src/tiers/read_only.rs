//! Opening a store for reading, also while another process writes to it: no lock, no change.
//! Everything that recovery writes goes to memory. Knows the order in which files are looked at.
//!
//! The manifest is taken first, then the unsealed journal segments, the later ones before the
//! earlier, then the attached ones: so what is taken of a later file never needs more of an earlier
//! one than is taken after it. A file that goes away meanwhile, or a segment that the manifest did
//! not name yet, looks like damage; then all is taken anew.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::segment::SegmentKind;
use crate::limits::SEGMENT_FILE_LEN_MAX;
use crate::manifest::log::{FILE_LEN_MAX, Unreadable, parse_name, read_newest};
use crate::manifest::{FileSet, FileState};
use crate::options::{OpenPolicy, Options};
use crate::tiers::Tiers;
use crate::vfs::overlay::{OverlayDir, OverlayVfs};
use crate::vfs::{Dir, Vfs};

/// How often a store that changes while it is looked at is looked at again.
const ATTEMPTS_MAX: u32 = 16;

impl Tiers {
    /// Opens a store that must be there, as of now.
    pub(crate) fn open_read_only(path: &Path, options: &Options) -> Result<Arc<Self>> {
        options.check()?;
        let vfs = options.files();
        let strict = options.clone().open_policy(OpenPolicy::Strict);
        let mut seen = String::new();
        for _ in 1..ATTEMPTS_MAX {
            let error = match open_once(&vfs, path, strict.clone()) {
                Err(error) if may_pass(&error) => error,
                other => return other,
            };
            // The same damage twice is not the writer's doing.
            let text = error.to_string();
            if text == seen {
                break;
            }
            seen = text;
        }
        open_once(&vfs, path, options.clone())
    }
}

/// Whether a writer that goes on may be the reason.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Damaged { .. } | Error::Corrupt(_) => true,
        Error::Io { source, .. } => {
            matches!(source.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

fn open_once(vfs: &Arc<dyn Vfs>, path: &Path, options: Options) -> Result<Arc<Tiers>> {
    let base = vfs.open_dir(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => no_store(path, "no directory is there"),
        ErrorKind::NotADirectory => no_store(path, "a file stands where the directory should be"),
        _ => Error::io("open store", path, error),
    })?;
    let overlay = OverlayDir::new(base).map_err(|e| Error::io("list directory", path, e))?;
    freeze_all(&overlay, path)?;
    let over = OverlayVfs::new(Arc::clone(vfs), path, Arc::new(overlay));
    Tiers::open_on(&over, path, options)
}

fn no_store(path: &Path, reason: &str) -> Error {
    Error::Foreign { path: path.to_path_buf(), reason: format!("not a store: {reason}") }
}

/// Takes the files that a writer changes in place.
fn freeze_all(overlay: &OverlayDir, path: &Path) -> Result<()> {
    let list = |error| Error::io("list directory", path, error);
    for entry in overlay.list().map_err(list)? {
        if parse_name(&entry.name).is_some() {
            freeze(overlay, &entry.name, FILE_LEN_MAX)?;
        }
    }
    let Some(newest) = read_newest(overlay, Unreadable::IsError)? else {
        return Err(no_store(path, "no manifest is there"));
    };
    for kind in [SegmentKind::Journal, SegmentKind::Attached] {
        for id in unsealed(&newest.set, kind) {
            freeze(overlay, &FileState::OpenSegment(kind).name(id), SEGMENT_FILE_LEN_MAX)?;
        }
    }
    Ok(())
}

/// The unsealed segments of one kind, the latest first.
fn unsealed(set: &FileSet, kind: SegmentKind) -> Vec<u32> {
    let open =
        |(id, state): (&u32, &FileState)| (*state == FileState::OpenSegment(kind)).then_some(*id);
    set.files.iter().rev().filter_map(open).collect()
}

/// What is not there, not a file, or too long for what it should be, is the opening's to report.
fn freeze(overlay: &OverlayDir, name: &str, len_max: u64) -> Result<()> {
    use ErrorKind::{InvalidData, InvalidInput, NotFound};
    match overlay.freeze(name, len_max) {
        Err(error) if matches!(error.kind(), NotFound | InvalidInput | InvalidData) => {
            tracing::debug!(file = name, %error, "not taken when it was looked for");
            Ok(())
        }
        frozen => frozen.map_err(|error| Error::io("read store", overlay.path().join(name), error)),
    }
}
