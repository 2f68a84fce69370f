//! A memory cgroup for the rows that limit memory: made by the parent, joined by the child.
//! Both versions of the kernel's interface; where neither may be used the rows are left out.

use std::path::{Path, PathBuf};

use crate::engine::Outcome;

/// A cgroup that is removed when dropped.
#[derive(Debug)]
pub(crate) struct Cgroup {
    pub dir: PathBuf,
}

impl Cgroup {
    /// Makes one of this process's own below the one it is in, or says why that cannot be.
    pub(crate) fn new(limit_bytes: u64) -> Outcome<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let unified = root.join("cgroup.controllers").exists();
        let (parent, file) = if unified {
            (root.to_path_buf(), "memory.max")
        } else {
            (root.join("memory"), "memory.limit_in_bytes")
        };
        let dir = parent.join(format!("terrace-benches-{}", std::process::id()));
        std::fs::create_dir(&dir)?;
        let group = Self { dir };
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
