//! Rule: a function fits a screen of 60 lines, from the word `fn` to its closing brace.
//! Longer ones stand in the list below with their length; the list may only shrink.

use crate::ratchet::{Known, Measured, compare};
use crate::tree::{Finding, Tree};

const LIMIT: usize = 60;

/// `path: name` and lines.
const KNOWN: &[Known] = &[];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    check_with(tree, KNOWN)
}

fn check_with(tree: &Tree, known: &[Known]) -> Vec<Finding> {
    let mut all = Vec::new();
    for (file, source) in tree.sources() {
        for function in &source.functions {
            let path = file.path.clone();
            let name = format!("{path}: {}", function.name);
            let (line, count) =
                (source.line(function.span.start), source.line_count(&function.span));
            all.push(Measured { path, line, name, count });
        }
    }
    compare(&all, LIMIT, known, "tests/tidy/function_length.rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_of_61_lines_is_caught_and_one_of_60_is_not() {
        let text = |lines: usize| format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
        let found = |lines: usize| check_with(&Tree::of(&[("a.rs", &text(lines))]), &[]).len();
        assert_eq!((found(60), found(61)), (0, 1));
        let listed = check_with(&Tree::of(&[("a.rs", &text(61))]), &[("a.rs: f", 61)]);
        assert_eq!(listed, []);
    }
}
