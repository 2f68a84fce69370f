//! Rule: every Rust file begins with its head, `//!`: what it is, then what it does not know.
//! The first line says something; the compiler checks the rest of the docs.

use crate::tree::{Finding, Tree};

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, _) in tree.sources() {
        let first = file.text.as_deref().and_then(|text| text.lines().next()).unwrap_or("");
        if !first.starts_with("//! ") || first.trim_end().len() < 12 {
            findings.push(Finding::new(&file.path, 1, "does not begin with `//! ` and what it is"));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_head_is_caught() {
        let good = ("a.rs", "//! The tail of the log.\nuse std::fmt;\n");
        assert_eq!(check(&Tree::of(&[good])), []);
        for text in ["use std::fmt;\n", "", "// A comment is no head.\n", "//!\nfn f() {}\n"] {
            assert_eq!(check(&Tree::of(&[("a.rs", text)])).len(), 1, "{text}");
        }
    }
}
