//! The one error type of the engine, and what damage looks like.
//! Plain data only: ids, numbers, paths. Never a handle, never a value's bytes.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of every call of the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, and what was found where.
///
/// Each text finishes the sentence "while doing X to file F at offset O: found A, expected B".
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// A budget or the disk is full. Reads and deletes go on; puts work again when space returns.
    Full {
        /// What was being done.
        doing: &'static str,
        /// Which bound was reached.
        what: &'static str,
        /// Bytes that are in use, where known.
        used: u64,
        /// Bytes that may be in use, where known.
        limit: u64,
    },
    /// An argument is larger than the format allows. Nothing was written.
    Limit {
        /// Which argument.
        what: &'static str,
        /// The largest that is accepted.
        max: u64,
        /// What was given.
        found: u64,
    },
    /// An argument or option makes no sense, or differs from what the store was created with.
    Invalid {
        /// Which argument or option.
        what: &'static str,
        /// What was given.
        found: String,
        /// What would be accepted.
        expected: String,
    },
    /// Another process, or another handle of this one, holds the store.
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// The process that holds it, where the lock file says so.
        holder_pid: Option<u32>,
        /// Since when, in milliseconds since 1970, where the lock file says so.
        since_ms: Option<u64>,
    },
    /// The newest version of what was asked for is damaged. It is never answered as absent.
    Corrupt(Box<Damage>),
    /// Opening found damage that a crash does not explain. The list is whole.
    Damaged {
        /// The store's directory.
        path: PathBuf,
        /// Everything that was found.
        damage: Vec<Damage>,
    },
    /// A consumer of changes fell behind: those before `first_available` are no longer kept. The
    /// next call goes on there.
    Lagged {
        /// The first change that can still be had.
        first_available: u64,
    },
    /// A snapshot was ended, for its age or because what it kept took more than its share.
    SnapshotExpired {
        /// The moment that the snapshot held.
        seq: u64,
    },
    /// An optimistic change lost the race against other writers too often.
    Conflict {
        /// What was being done.
        doing: &'static str,
        /// How often it was tried.
        attempts: u32,
    },
    /// A flush failed earlier. Nothing more is written until the store is opened again.
    Poisoned {
        /// What was being done.
        doing: &'static str,
        /// What failed at the time.
        cause: String,
    },
    /// The store was opened for reading only.
    ReadOnly {
        /// What was being done.
        doing: &'static str,
    },
    /// The store was closed, or this is the child of a fork.
    Closed,
    /// The files have a version that this build does not know.
    Version {
        /// Which file.
        file: PathBuf,
        /// The version in the file.
        found: u32,
        /// The newest version that this build reads.
        supported: u32,
    },
    /// The directory or a file in it is not what this store wrote.
    Foreign {
        /// Which file or directory.
        path: PathBuf,
        /// Why it is not ours.
        reason: String,
    },
    /// The operating system refused.
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

/// One damaged place of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// What was being done.
    pub doing: &'static str,
    /// The file's name inside the store.
    pub file: String,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Which field did not hold.
    pub field: &'static str,
    /// What stood there.
    pub found: String,
    /// What should have stood there.
    pub expected: String,
}

impl Damage {
    /// Describes one damaged place.
    pub fn new(
        doing: &'static str,
        file: impl Into<String>,
        offset: u64,
        field: &'static str,
        found: impl fmt::Display,
        expected: impl fmt::Display,
    ) -> Self {
        let (found, expected) = (found.to_string(), expected.to_string());
        Self { doing, file: file.into(), offset, field, found, expected }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { doing, file, offset, field, found, expected } = self;
        write!(f, "{doing}: {file} at {offset}: {field} {found}, expected {expected}")
    }
}

impl From<Damage> for Error {
    fn from(damage: Damage) -> Self {
        Self::Corrupt(Box::new(damage))
    }
}

impl Error {
    /// Wraps what the operating system said; a full disk becomes [`Error::Full`].
    pub(crate) fn io(doing: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        ) {
            return Self::Full { doing, what: "disk", used: 0, limit: 0 };
        }
        Self::Io { doing, path: path.as_ref().to_path_buf(), source: Arc::new(source) }
    }

    /// An option or argument that cannot be accepted.
    pub(crate) fn invalid(
        what: &'static str,
        found: impl fmt::Display,
        expected: impl fmt::Display,
    ) -> Self {
        Self::Invalid { what, found: found.to_string(), expected: expected.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { doing, what, used, limit: 0 } if *used == 0 => {
                write!(f, "{doing}: {what} is full")
            }
            Self::Full { doing, what, used, limit } => {
                write!(f, "{doing}: {what} is full: {used} bytes used, {limit} allowed")
            }
            Self::Limit { what, max, found } => write!(f, "{what}: found {found}, at most {max}"),
            Self::Invalid { what, found, expected } => {
                write!(f, "{what}: found {found}, expected {expected}")
            }
            Self::Locked { path, holder_pid, since_ms } => {
                write!(f, "open {}: locked", path.display())?;
                if let Some(pid) = holder_pid {
                    write!(f, " by process {pid}")?;
                }
                since_ms.map_or(Ok(()), |ms| write!(f, " since {ms} ms after 1970"))
            }
            Self::Corrupt(damage) => damage.fmt(f),
            Self::Damaged { path, damage } => {
                write!(f, "open {}: {} damaged places", path.display(), damage.len())?;
                damage.iter().try_for_each(|one| write!(f, "; {one}"))
            }
            Self::Conflict { doing, attempts } => {
                write!(f, "{doing}: other writers won {attempts} times")
            }
            Self::Lagged { first_available } => {
                write!(f, "watch: changes before seq {first_available} are no longer kept")
            }
            Self::SnapshotExpired { seq } => {
                write!(f, "read snapshot: the one of seq {seq} was ended")
            }
            Self::Poisoned { doing, cause } => {
                write!(f, "{doing}: a flush failed earlier ({cause}); open the store again")
            }
            Self::ReadOnly { doing } => write!(f, "{doing}: the store is open for reading only"),
            Self::Closed => write!(f, "the store is closed"),
            Self::Version { file, found, supported } => {
                write!(f, "{}: format version {found}, at most {supported}", file.display())
            }
            Self::Foreign { path, reason } => write!(f, "{}: {reason}", path.display()),
            Self::Io { doing, path, source } => write!(f, "{doing}: {}: {source}", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source.as_ref()),
            _ => None,
        }
    }
}
