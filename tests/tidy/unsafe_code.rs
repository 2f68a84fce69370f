//! Rule: `unsafe` lives in `engine/src/vfs/map.rs` and its part, and in the one module of the
//! memory layer that calls what was compiled for more than the target promises; every other crate
//! forbids it at its root.
//! A crate that lifts it for a foreign library says `deny` at the root and `expect` at the place.

use crate::scan::words;
use crate::tree::{Finding, Tree};

const HOMES: [&str; 3] =
    ["engine/src/vfs/map.rs", "engine/src/vfs/map/anon.rs", "memory/src/vector/simd.rs"];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, source) in tree.sources() {
        let library = file.path.starts_with("engine/src/") || file.path.starts_with("memory/src/");
        if library && !HOMES.contains(&file.path.as_str()) {
            let text = "`unsafe`; it lives in vfs::map and vector::simd, behind safe calls";
            let places = words(&source.code, "unsafe");
            findings.extend(places.map(|at| Finding::new(&file.path, source.line(at), text)));
        }
        if is_root(&file.path) && !file.path.starts_with("engine/src/") {
            let forbids = ["#![forbid(unsafe_code)]", "#![deny(unsafe_code)]"];
            if !forbids.iter().any(|attribute| source.code.contains(attribute)) {
                findings.push(Finding::new(&file.path, 1, "lacks `#![forbid(unsafe_code)]`"));
            }
        }
    }
    findings
}

/// Roots of libraries and programs, and of test programs that fill a folder; not of fuzz targets,
/// whose entry point is a macro with `unsafe` in it.
fn is_root(path: &str) -> bool {
    let program = path.ends_with("/main.rs") || path.contains("/src/bin/");
    (path.ends_with("/src/lib.rs") || program) && !path.starts_with("fuzz/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn unsafe_outside_the_map_is_caught() {
        assert_eq!(found("engine/src/hot/shard.rs", "fn f() { unsafe { g() } }"), 1);
        assert_eq!(found("engine/src/hot/shard.rs", "// unsafe\n#![deny(unsafe_code)]"), 0);
        assert_eq!(found("memory/src/cache.rs", "fn f() { unsafe { g() } }"), 1);
        assert_eq!(found(HOMES[1], "fn f() { unsafe { g() } }"), 0);
        assert_eq!(found(HOMES[2], "fn f() { unsafe { g() } }"), 0);
    }

    #[test]
    fn a_crate_that_does_not_forbid_unsafe_is_caught() {
        assert_eq!(found("cli/src/main.rs", "fn main() {}"), 1);
        assert_eq!(found("cli/src/main.rs", "#![forbid(unsafe_code)]\nfn main() {}"), 0);
        assert_eq!(found("cli/src/args.rs", "fn f() {}"), 0);
    }
}
