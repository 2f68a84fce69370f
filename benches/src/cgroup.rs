//! A memory cgroup for the rows that limit memory: made by the parent, joined by the child.
//! Both versions of the kernel's interface; where neither may be used the rows are left out.

use std::path::{Path, PathBuf};

use crate::engine::Outcome;

/// Less memory than this and the process itself does not fit.
const LIMIT_MIN: u64 = 24 << 20;

/// A cgroup that is removed when dropped.
#[derive(Debug)]
pub(crate) struct Cgroup {
    pub dir: PathBuf,
    limit_bytes: u64,
}

impl Cgroup {
    /// One whose processes may have a quarter of the bytes of their data, or why there is none.
    pub(crate) fn of_a_quarter(data_bytes: u64) -> Outcome<Self> {
        if data_bytes / 4 < LIMIT_MIN {
            return Err(format!("a quarter of the data is less than {LIMIT_MIN} bytes").into());
        }
        Self::new(data_bytes / 4)
    }

    /// Bytes of cache for its processes: a third of what they may have. The rest is their own and
    /// the page cache.
    pub(crate) fn cache_bytes(&self) -> u64 {
        self.limit_bytes / 3
    }

    /// Makes one of this process's own below the one it is in, or says why that cannot be.
    fn new(limit_bytes: u64) -> Outcome<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let unified = root.join("cgroup.controllers").exists();
        let (parent, file) = if unified {
            (root.to_path_buf(), "memory.max")
        } else {
            (root.join("memory"), "memory.limit_in_bytes")
        };
        let dir = parent.join(format!("terrace-benches-{}", std::process::id()));
        std::fs::create_dir(&dir)?;
        let group = Self { dir, limit_bytes };
        std::fs::write(group.dir.join(file), limit_bytes.to_string())?;
        Ok(group)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Only an empty directory of this process's own goes; a failure leaves it empty.
        let _left = std::fs::remove_dir(&self.dir);
    }
}

/// Moves this process into a cgroup.
pub(crate) fn join(dir: &Path) -> Outcome<()> {
    std::fs::write(dir.join("cgroup.procs"), std::process::id().to_string())?;
    Ok(())
}
