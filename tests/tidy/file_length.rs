//! Rule: a file has at most 500 lines, tests inside it not counted; past that, name the second
//! concept. Longer ones stand in the list below with their length; 800 is the end, listed or not.

use crate::ratchet::{Known, Measured, compare};
use crate::tree::{Finding, Tree};

const LIMIT: usize = 500;
const HARD_LIMIT: usize = 800;

/// Path and lines.
const KNOWN: &[Known] = &[];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    check_with(tree, KNOWN)
}

fn check_with(tree: &Tree, known: &[Known]) -> Vec<Finding> {
    let mut all = Vec::new();
    for (file, source) in tree.sources() {
        let tests: usize = source.tests.iter().map(|range| source.line_count(range)).sum();
        let count = source.code.lines().count().saturating_sub(tests);
        let path = file.path.clone();
        all.push(Measured { name: path.clone(), path, line: 0, count });
    }
    let mut findings = compare(&all, LIMIT, known, "tests/tidy/file_length.rs");
    for one in all.iter().filter(|one| one.count > HARD_LIMIT) {
        let text = format!("{} lines: no list excuses more than {HARD_LIMIT}", one.count);
        findings.push(Finding::new(&one.path, 0, text));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_501_is_caught_unless_listed_and_line_801_always() {
        let tree = |lines: usize| Tree::of(&[("a.rs", &"//\n".repeat(lines))]);
        assert_eq!(check_with(&tree(500), &[]), []);
        assert_eq!(check_with(&tree(501), &[]).len(), 1);
        assert_eq!(check_with(&tree(501), &[("a.rs", 501)]), []);
        assert_eq!(check_with(&tree(801), &[("a.rs", 801)]).len(), 1);
    }

    #[test]
    fn tests_beside_the_code_do_not_count() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "// t\n".repeat(100));
        let text = format!("{}{tests}", "//\n".repeat(450));
        assert_eq!(check_with(&Tree::of(&[("a.rs", &text)]), &[]), []);
    }
}
