//! Which module of the engine names which: every path that begins with `crate`, `self` or `super`.
//! Knows files and paths; knows nothing of floors or of what is refused.

use crate::scan::{group_end, skip_space, word_at, words};
use crate::tree::{Tree, TreeFile};

/// The folder whose modules have floors.
pub(crate) const ENGINE: &str = "engine/src/";

/// One path that one file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    pub line: usize,
    /// From the root of the crate, down to the name that is used.
    pub target: Vec<String>,
}

/// `engine/src/warm/index/mod.rs` is `["warm", "index"]`; the root is empty.
pub(crate) fn module_path(path: &str) -> Option<Vec<String>> {
    let inner = path.strip_prefix(ENGINE)?.strip_suffix(".rs")?;
    let inner = inner.strip_suffix("/mod").unwrap_or(inner);
    let root = inner == "lib" || inner.is_empty();
    Some(if root { Vec::new() } else { inner.split('/').map(str::to_owned).collect() })
}

/// The modules of the engine that are not tests, with what they import outside of tests.
pub(crate) fn modules(tree: &Tree) -> Vec<(&TreeFile, Vec<String>, Vec<Import>)> {
    let mut found = Vec::new();
    for (file, _) in tree.sources() {
        let Some(module) = module_path(&file.path) else { continue };
        if !file.is_test() {
            let imports = imports(file, &module);
            found.push((file, module, imports));
        }
    }
    found
}

fn imports(file: &TreeFile, module: &[String]) -> Vec<Import> {
    let Some(source) = &file.source else { return Vec::new() };
    let code = source.code.as_str();
    let mut found = Vec::new();
    for start in ["crate", "self", "super"] {
        for at in words(code, start) {
            let head = code[..at].trim_end();
            let continued = head.ends_with("::") || head.ends_with("(in");
            if continued || source.in_tests(at) || !code[at + start.len()..].starts_with("::") {
                continue;
            }
            let mut targets = Vec::new();
            let prefix = if start == "crate" { Vec::new() } else { module.to_vec() };
            read_tree(code, at, &prefix, &mut targets);
            let line = source.line(at);
            found.extend(targets.into_iter().map(|target| Import { line, target }));
        }
    }
    found
}

/// Reads one path or a tree of them; the end of what was read is returned.
fn read_tree(code: &str, mut at: usize, prefix: &[String], out: &mut Vec<Vec<String>>) -> usize {
    let mut path = prefix.to_vec();
    loop {
        at = skip_space(code, at);
        if code.as_bytes().get(at) == Some(&b'{') {
            let end = group_end(code, at);
            at = skip_space(code, at + 1);
            while at < end - 1 {
                at = skip_space(code, read_tree(code, at, &path, out));
                at = skip_space(code, at + usize::from(at < end - 1));
            }
            return end;
        }
        let word = word_at(code, at);
        at += word.len();
        match word {
            "crate" => path.clear(),
            "self" | "" => {}
            "super" => drop(path.pop()),
            name => path.push(name.to_owned()),
        }
        if word.is_empty() {
            at += usize::from(code.as_bytes().get(at) == Some(&b'*'));
        }
        if !code[at..].starts_with("::") {
            break;
        }
        at += 2;
    }
    out.push(path);
    // `as name` ends at the comma, the brace or the semicolon of whoever called.
    let alias = code[at..].starts_with(" as ");
    if alias { at + 4 + word_at(code, at + 4).len() } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(path: &str, text: &str) -> Vec<String> {
        let tree = Tree::of(&[(path, text)]);
        let found = modules(&tree);
        found[0].2.iter().map(|import| import.target.join("::")).collect()
    }

    #[test]
    fn every_way_to_name_a_module_is_read() {
        let text = "use crate::ids::{Seq, self};\nuse crate::{error::Error, hash::{A as B, C}};\n\
                    pub(in crate::warm) fn f(x: crate::value::Value) {}\n\
                    fn g() { super::index::go(self::y::Z) }\n\
                    #[cfg(test)]\nmod tests { use crate::tiers::Tiers; }\n";
        let mut found = targets("engine/src/warm/active.rs", text);
        found.sort();
        let expected = [
            "error::Error",
            "hash::A",
            "hash::C",
            "ids",
            "ids::Seq",
            "value::Value",
            "warm::active::y::Z",
            "warm::index::go",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_file_is_its_module() {
        assert_eq!(module_path("engine/src/lib.rs"), Some(vec![]));
        assert_eq!(module_path("engine/src/warm/mod.rs"), Some(vec!["warm".to_owned()]));
        assert_eq!(module_path("cli/src/main.rs"), None);
    }
}
