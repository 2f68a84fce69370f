//! Rule: every Rust file belongs to a crate: some `mod` names it, or Cargo does.
//! A file that nobody compiles is a file that nobody checks.

use std::collections::BTreeSet;

use crate::scan::{Source, skip_space, word_at, words};
use crate::tree::{Finding, Tree};

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut open: Vec<String> = Vec::new();
    for package in tree.packages() {
        let manifest = tree.text(&format!("{package}/Cargo.toml")).unwrap_or("");
        open.extend(named_by_cargo(manifest).map(|path| format!("{package}/{path}")));
        let root = |path: &&str| is_root(path.strip_prefix(package).unwrap_or(""));
        open.extend(
            tree.sources().map(|(file, _)| file.path.as_str()).filter(root).map(String::from),
        );
    }
    let roots: BTreeSet<String> = open.iter().cloned().collect();
    let mut alive = BTreeSet::new();
    while let Some(path) = open.pop() {
        let Some(source) = tree.get(&path).and_then(|file| file.source.as_ref()) else { continue };
        if alive.insert(path.clone()) {
            open.extend(children(&path, source, roots.contains(&path)));
        }
    }
    let dead = tree.sources().filter(|(file, _)| !alive.contains(&file.path));
    dead.map(|(file, _)| Finding::new(&file.path, 0, "no `mod` names it: delete it")).collect()
}

/// What Cargo finds by itself, relative to the package.
fn is_root(path: &str) -> bool {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["build.rs"] | ["src", "lib.rs" | "main.rs"] => true,
        ["src", "bin", ..] | ["examples" | "benches" | "tests", ..] => {
            let inner = if parts[0] == "src" { &parts[2..] } else { &parts[1..] };
            inner.len() == 1 || inner.len() == 2 && inner[1] == "main.rs"
        }
        _ => false,
    }
}

/// The values of `path = "....rs"`.
fn named_by_cargo(manifest: &str) -> impl Iterator<Item = &str> {
    let paths = manifest.lines().filter_map(|line| line.trim().strip_prefix("path = \""));
    paths.filter_map(|rest| rest.strip_suffix('"')).filter(|path| path.contains(".rs"))
}

/// The files that the `mod name;` of one file may mean.
fn children(path: &str, source: &Source, root: bool) -> Vec<String> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let stem = name.trim_end_matches(".rs");
    let inner = if root || stem == "mod" { folder.to_owned() } else { format!("{folder}/{stem}") };
    let mut found = Vec::new();
    for at in words(&source.code, "mod") {
        let name_at = skip_space(&source.code, at + 3);
        let name = word_at(&source.code, name_at);
        if name.is_empty() || !source.code[name_at + name.len()..].trim_start().starts_with(';') {
            continue;
        }
        let line_start = source.code[..at].rfind([';', '}', '{']).map_or(0, |i| i + 1);
        if let Some((_, rest)) = source.strings[line_start..at].split_once("path = \"") {
            let given = rest.split('"').next().unwrap_or("");
            found.push(joined(folder, given));
        }
        found.push(format!("{inner}/{name}.rs"));
        found.push(format!("{inner}/{name}/mod.rs"));
    }
    found
}

/// `folder/given` with `..` taken out.
fn joined(folder: &str, given: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').collect();
    for part in given.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_no_mod_names_is_caught() {
        let tree = Tree::of(&[
            ("engine/Cargo.toml", "[package]\nname = \"terrace\"\n"),
            ("engine/src/lib.rs", "mod warm;\n// mod ghost;\n"),
            ("engine/src/warm/mod.rs", "pub(crate) mod active;\n#[path = \"../odd.rs\"] mod odd;"),
            ("engine/src/warm/active.rs", "mod deep;"),
            ("engine/src/warm/active/deep.rs", "mod here { }"),
            ("engine/src/odd.rs", ""),
            ("engine/src/ghost.rs", ""),
            ("engine/src/bin/tool.rs", ""),
            ("tests/Cargo.toml", "[package]\n[[test]]\nname = \"tidy\"\npath = \"tidy/main.rs\"\n"),
            ("tests/tidy/main.rs", "mod scan;"),
            ("tests/tidy/scan.rs", ""),
            ("tests/tidy/lost.rs", ""),
        ]);
        let found: Vec<String> = check(&tree).into_iter().map(|finding| finding.path).collect();
        assert_eq!(found, ["engine/src/ghost.rs", "tests/tidy/lost.rs"]);
    }
}
