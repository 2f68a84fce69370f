//! The files of the long-term memory: a locked append, a locked rewrite that is whole or not there.
//! The one place of the memory layer that touches the file system; knows nothing of Markdown.
//!
//! All writers of a project take one lock, a file of its own: so a rewrite by rename never takes
//! the file away under somebody who waits to append to it.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "files of the project, that people and other programs read; no part of the engine"
)]

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::clock::Stopwatch;
use crate::error::{Error, Result};

/// The longest file that is read: what is longer was not written by this program.
pub(crate) const FILE_LEN_MAX: u64 = 64 << 20;
/// How long somebody waits for the lock. Hooks have five seconds in all.
const LOCK_WAIT: Duration = Duration::from_secs(3);
const LOCK_STEP: Duration = Duration::from_millis(2);

/// Length and time of change: whether a file is the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stamp {
    pub len: u64,
    pub modified_ns: u64,
    /// Which file it is: one that was renamed over another is not the same.
    pub inode: u64,
}

/// The lock of all writers of a project; released when dropped.
#[derive(Debug)]
pub(crate) struct Locked {
    _file: File,
}

/// Waits for the lock.
///
/// Errors: [`Error::Timeout`] after three seconds.
pub(crate) fn lock(path: &Path) -> Result<Locked> {
    create_parent(path)?;
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let watch = Stopwatch::start(LOCK_WAIT);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Locked { _file: file }),
            Err(TryLockError::WouldBlock) if watch.left().is_some() => {
                std::thread::park_timeout(LOCK_STEP);
            }
            Err(TryLockError::WouldBlock) => return Err(Error::Timeout),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
}

/// Adds to the end of a file in one write. A last line that somebody left open is closed first.
pub(crate) fn append(_lock: &Locked, path: &Path, text: &str) -> Result<()> {
    create_parent(path)?;
    let mut file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    let open = if last == *b"\n" { "" } else { "\n" };
    file.write_all(format!("{open}{text}").as_bytes())?;
    Ok(())
}

/// Replaces a file: beside it first, synced, then renamed over it.
pub(crate) fn replace(_lock: &Locked, path: &Path, text: &str) -> Result<()> {
    write_whole(path, text)
}

/// [`replace`] without the lock of a project, for a file that is not the project's. Follows links.
pub(crate) fn write_whole(path: &Path, text: &str) -> Result<()> {
    create_parent(path)?;
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = target.with_file_name(name);
    let written = (|| {
        let mut file = File::create(&beside)?;
        if let Ok(old) = fs::metadata(&target) {
            file.set_permissions(old.permissions())?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &target)
    })();
    if written.is_err() {
        drop(fs::remove_file(&beside));
    }
    written.map_err(Error::from)
}

/// The text of a file; `None` when there is none. What is no UTF-8 in it is replaced.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    let Some(bytes) = read_bytes(path)? else { return Ok(None) };
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    Ok(Some(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)))
}

fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes)?;
    Error::check_limit("bytes of a file", bytes.len(), FILE_LEN_MAX)?;
    Ok(Some(bytes))
}

/// The last `len` bytes of a file, and whether that is all of it; `None` when there is none.
pub(crate) fn read_tail(path: &Path, len: u64) -> Result<Option<(Vec<u8>, bool)>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let total = file.metadata()?.len();
    let from = total.saturating_sub(len);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(len).read_to_end(&mut bytes)?;
    Ok(Some((bytes, from == 0)))
}

/// Length and time of change; `None` when there is no such file.
pub(crate) fn stamp(path: &Path) -> Result<Option<Stamp>> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() => {
            let modified = found.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let ns = modified.map_or(0, |at| u64::try_from(at.as_nanos()).unwrap_or(u64::MAX));
            Ok(Some(Stamp { len: found.len(), modified_ns: ns, inode: found.ino() }))
        }
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The names of the Markdown files of a folder, in order; none when there is no folder.
pub(crate) fn markdown_in(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        found.extend(
            name.to_str().filter(|name| name.strip_suffix(".md").is_some()).map(str::to_owned),
        );
    }
    found.sort();
    Ok(found)
}

/// A copy beside a file, named `NAME.bak`; `None` when there is no file.
pub(crate) fn back_up(path: &Path) -> Result<Option<PathBuf>> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".bak");
    let beside = path.with_file_name(name);
    match fs::copy(path, &beside) {
        Ok(_) => Ok(Some(beside)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn create_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => Ok(fs::create_dir_all(parent)?),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_before_and_after_and_an_open_line_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, lock_path) = (directory.path().join("a/b.md"), directory.path().join("l"));
        let held = lock(&lock_path).unwrap();
        append(&held, &path, "one").unwrap();
        append(&held, &path, "two\n").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("one\ntwo\n"));
        let before = stamp(&path).unwrap().unwrap();
        replace(&held, &path, "\u{feff}three").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("three"));
        assert_ne!(stamp(&path).unwrap().unwrap(), before);
        assert_eq!(markdown_in(path.parent().unwrap()).unwrap(), ["b.md"]);
        assert_eq!(read_tail(&path, 3).unwrap(), Some((b"ree".to_vec(), false)));
        assert_eq!(read(&directory.path().join("none")).unwrap(), None);
        assert!(matches!(lock(&lock_path), Err(Error::Timeout)));
        drop(held);
        assert!(lock(&lock_path).is_ok());
    }
}
