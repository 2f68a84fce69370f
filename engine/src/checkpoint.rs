//! A copy of one moment of an open store that opens by itself: hard links where the file system
//! has them, copies elsewhere. Knows files and their order; knows nothing of records.
//!
//! What is sealed never changes, so a second name of it is a copy of it. What is not sealed yet is
//! copied up to the moment's last record, and opening the checkpoint finishes it as after a crash.
//! The manifest comes last: a directory that a crash left half-done is no store.

use std::path::Path;
use std::sync::Arc;

use crate::cold::reader::Archive;
use crate::error::{Error, Result};
use crate::manifest::log::ManifestLog;
use crate::manifest::{FileSet, FileState};
use crate::tiers::Tiers;
use crate::tiers::append::Append;
use crate::vfs::overlay::copy_bytes;
use crate::vfs::{Dir, File};
use crate::warm::active::SegmentWriter;
use crate::warm::segment::Segment;

/// Bytes of an archive that are copied at a time.
const COPY_LEN: u64 = 1 << 20;

/// Where the bytes of one file come from, whatever becomes of its name.
enum Source {
    Segment(Arc<Segment>, u64),
    Archive(Arc<Archive>),
    File(Arc<dyn File>),
}

/// What is still to be copied, under which name.
type Rest = Vec<(String, Source)>;

/// Makes a checkpoint of what is visible now in a directory that is new or empty.
pub(crate) fn checkpoint(tiers: &Tiers, path: &Path) -> Result<()> {
    let io = |doing| move |error| Error::io(doing, path, error);
    let vfs = tiers.options.files();
    let target = vfs.create_dir(path).map_err(io("create checkpoint"))?;
    if let Some(other) = target.list().map_err(io("list directory"))?.first() {
        let reason =
            format!("a checkpoint goes to an empty directory, but {:?} is there", other.name);
        return Err(Error::Foreign { path: path.to_path_buf(), reason });
    }
    let made = write_all(tiers, &target);
    if made.is_err() {
        remove_all(&*target);
    }
    made
}

fn write_all(tiers: &Tiers, target: &Arc<dyn Dir>) -> Result<()> {
    let io = |doing| move |error| Error::io(doing, target.path(), error);
    let (set, rest) = {
        // Nothing is sealed, moved or unlinked until every file has its second name.
        let _moving = tiers.maintenance.lock();
        let (set, open) = moment(tiers, &tiers.append.lock());
        let mut rest: Rest = Vec::new();
        for (&id, &state) in &set.files {
            let name = state.name(id);
            let dir = if state.is_archive() { &tiers.archive_dir } else { &tiers.dir };
            let unsealed = matches!(state, FileState::OpenSegment(_));
            if unsealed || dir.link_into(&name, &target.path()).is_err() {
                rest.push((name, source(tiers, id, state, &open)?));
            }
        }
        (set, rest)
    };
    for (name, source) in rest {
        let file = target.create(&name).map_err(io("create checkpoint"))?;
        copy(&source, &*file).and_then(|()| file.sync()).map_err(io("write checkpoint"))?;
    }
    target.sync().map_err(io("sync directory"))?;
    ManifestLog::begin_with(Arc::clone(target), set)
}

/// The files that count at this moment, and the unsealed ones with the end of their records.
fn moment(tiers: &Tiers, append: &Append) -> (FileSet, Vec<(Arc<Segment>, u64)>) {
    let writers = append.closed.iter().chain(&append.attached).map(|(writer, _)| writer);
    let ends = |writer: &SegmentWriter| (Arc::clone(&writer.segment), writer.records_end());
    let open: Vec<_> = writers.chain([&append.active]).map(ends).collect();
    let mut set = tiers.manifest.read(Clone::clone);
    set.facts.archive_dir = None;
    set.durable_at = append.last_seq;
    let bits = set.bits();
    set.files.retain(|&id, state| match state {
        FileState::OpenSegment(_) => open.iter().any(|(segment, _)| segment.id.0 == id),
        FileState::SealedSegment(_) | FileState::Archive { .. } => true,
        FileState::Bits { .. } => Some(id) == bits,
        _ => false,
    });
    (set, open)
}

fn source(
    tiers: &Tiers,
    id: u32,
    state: FileState,
    open: &[(Arc<Segment>, u64)],
) -> Result<Source> {
    if let Some((segment, end)) = open.iter().find(|(segment, _)| segment.id.0 == id) {
        return Ok(Source::Segment(Arc::clone(segment), *end));
    }
    let known = match state {
        FileState::SealedSegment(facts) => {
            let table = tiers.segments.load();
            let found = table.iter().find(|segment| segment.id.0 == id);
            found.map(|segment| Source::Segment(Arc::clone(segment), facts.len))
        }
        FileState::Archive { .. } => {
            let set = tiers.cold.load();
            let found = set.entries().iter().find(|entry| entry.archive.id().0 == id);
            found.map(|entry| Source::Archive(Arc::clone(&entry.archive)))
        }
        _ => None,
    };
    if let Some(known) = known {
        return Ok(known);
    }
    let dir = if state.is_archive() { &tiers.archive_dir } else { &tiers.dir };
    let name = state.name(id);
    let file = dir.open_to_read(&name);
    Ok(Source::File(file.map_err(|e| Error::io("read store", dir.path().join(&name), e))?))
}

fn copy(source: &Source, to: &dyn File) -> std::io::Result<()> {
    let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    match source {
        Source::Segment(segment, len) => {
            to.write_all_at(segment.bytes_at(0, *len).ok_or_else(cut)?, 0)
        }
        Source::Archive(archive) => {
            let len = archive.file_len();
            let mut at = 0;
            while at < len {
                let piece = archive.view().piece(at, COPY_LEN.min(len - at))?;
                to.write_all_at(&piece.ok_or_else(cut)?, at)?;
                at += COPY_LEN;
            }
            Ok(())
        }
        Source::File(file) => copy_bytes(&**file, to, file.len()?),
    }
}

/// Takes back what a failed checkpoint left; what stays is no store.
fn remove_all(target: &dyn Dir) {
    for entry in target.list().unwrap_or_default() {
        if let Err(error) = target.unlink(&entry.name) {
            tracing::warn!(file = entry.name, %error, "a part of a failed checkpoint stays");
        }
    }
}
