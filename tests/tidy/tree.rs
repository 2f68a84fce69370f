//! The files of the repository as text, and what a rule reports about them.
//! Knows names, lengths and texts; knows nothing of any rule.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::scan::Source;

/// Files longer than this are not read as text.
const TEXT_LEN_MAX: u64 = 4 << 20;

/// All files that are tracked, or would be if everything were added.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub files: Vec<TreeFile>,
}

/// One file.
#[derive(Debug)]
pub(crate) struct TreeFile {
    /// From the root of the repository, with `/`.
    pub path: String,
    pub len_bytes: u64,
    /// `None` when it is not text.
    pub text: Option<String>,
    /// Of `*.rs` files.
    pub source: Option<Source>,
}

/// One broken rule at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub path: String,
    /// From 1; 0 for the whole file.
    pub line: usize,
    pub text: String,
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, text } = self;
        if *line == 0 { write!(f, "{path}: {text}") } else { write!(f, "{path}:{line}: {text}") }
    }
}

impl TreeFile {
    fn new(path: &str, len_bytes: u64, text: Option<String>) -> Self {
        let rust = Path::new(path).extension().is_some_and(|extension| extension == "rs");
        let source = text.as_deref().filter(|_| rust).map(Source::new);
        Self { path: path.to_owned(), len_bytes, text, source }
    }

    /// Whether the whole file is test code.
    pub(crate) fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.ends_with("_tests.rs")
    }
}

impl Tree {
    /// Reads the repository that holds this crate.
    pub(crate) fn read() -> Self {
        let root = repository();
        let mut paths = tracked(&root).unwrap_or_else(|| walked(&root));
        paths.sort();
        let mut files = Vec::new();
        for path in paths {
            let full = root.join(&path);
            let Ok(metadata) = full.symlink_metadata() else { continue };
            if !metadata.is_file() {
                continue;
            }
            let short = metadata.len() <= TEXT_LEN_MAX;
            let text = if short { std::fs::read_to_string(&full).ok() } else { None };
            files.push(TreeFile::new(&path, metadata.len(), text));
        }
        assert!(
            files.iter().any(|file| file.path == "engine/src/lib.rs"),
            "this is the repository"
        );
        Self { files }
    }

    /// A tree for the test of a rule.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let file = |(path, text): &(&str, &str)| {
            TreeFile::new(path, text.len() as u64, Some((*text).to_owned()))
        };
        Self { files: files.iter().map(file).collect() }
    }

    pub(crate) fn get(&self, path: &str) -> Option<&TreeFile> {
        self.files.iter().find(|file| file.path == path)
    }

    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.get(path)?.text.as_deref()
    }

    /// All Rust files.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (&TreeFile, &Source)> {
        self.files.iter().filter_map(|file| Some((file, file.source.as_ref()?)))
    }

    /// Folders that hold a package, deepest first.
    pub(crate) fn packages(&self) -> Vec<&str> {
        let mut found: Vec<&str> = self
            .files
            .iter()
            .filter(|file| file.text.as_deref().is_some_and(|text| text.contains("[package]")))
            .filter_map(|file| file.path.strip_suffix("/Cargo.toml"))
            .collect();
        found.sort_by_key(|path| std::cmp::Reverse(path.len()));
        found
    }
}

/// The folder above this crate, as Cargo names it at the run: a build that several checkouts share
/// must not look at the one that compiled it.
fn repository() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    package.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR"))).join("..")
}

/// What git tracks or would track; `None` without git.
fn tracked(root: &Path) -> Option<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let paths: Vec<String> = text.split_terminator('\0').map(str::to_owned).collect();
    (output.status.success() && !paths.is_empty()).then_some(paths)
}

/// All files but those of builds: what an unpacked archive of the repository has.
fn walked(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let Ok(entries) = root.join(&folder).read_dir() else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let path = folder.join(&name);
            let skipped = [".git", "target", "__pycache__"].iter().any(|skip| name == *skip);
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !skipped => open.push(path),
                Ok(kind) if kind.is_file() => found.extend(path.to_str().map(str::to_owned)),
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_finds_what_git_tracks() {
        let root = repository();
        let walked = walked(&root);
        for path in ["engine/src/lib.rs", "tests/tidy/main.rs", "CHANGELOG.md"] {
            assert!(walked.iter().any(|found| found == path), "{path}");
        }
    }
}
