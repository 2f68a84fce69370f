//! A directory for one test, gone when the test ends, also after a panic.
//! Knows names and files; knows nothing of what a store keeps in them.

use std::io;
use std::path::{Path, PathBuf};

/// The variable that keeps the directories for a look at what a failing test left.
pub const KEEP_VARIABLE: &str = "TERRACE_KEEP";

/// One directory. Stores of a test are folders in it.
#[derive(Debug)]
pub struct Scratch {
    folder: tempfile::TempDir,
}

impl Scratch {
    /// A new empty directory; `TERRACE_KEEP` set to anything leaves it there and prints its name.
    ///
    /// # Errors
    ///
    /// What the system says about creating it.
    pub fn new() -> io::Result<Self> {
        let mut folder = tempfile::Builder::new().prefix("terrace-").tempdir()?;
        if std::env::var_os(KEEP_VARIABLE).is_some() {
            folder.disable_cleanup(true);
            println!("kept: {}", folder.path().display());
        }
        Ok(Self { folder })
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The path of a store, or of any file, in it. Nothing is created.
    pub fn join(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests of a directory")]

    use super::*;

    #[test]
    fn a_scratch_directory_is_there_and_is_gone_when_it_ends() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        std::fs::write(scratch.join("a"), "b").unwrap();
        assert!(path.is_dir());
        drop(scratch);
        assert!(!path.exists() || std::env::var_os(KEEP_VARIABLE).is_some());
    }
}
