//! Rule: no line of Rust is wider than 100 characters, not even in a comment or a string.
//! `rustfmt` leaves those two alone; this does not.

use crate::tree::{Finding, Tree};

const LIMIT: usize = 100;

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, _) in tree.sources() {
        for (i, line) in file.text.iter().flat_map(|text| text.lines()).enumerate() {
            let width = line.chars().count();
            if width > LIMIT {
                let text = format!("{width} characters, at most {LIMIT}");
                findings.push(Finding::new(&file.path, i + 1, text));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_101st_character_is_caught() {
        let text = format!("{}\n{}\n", "/".repeat(100), "/".repeat(101));
        let found = check(&Tree::of(&[("a.rs", &text)]));
        assert_eq!(found.iter().map(|finding| finding.line).collect::<Vec<_>>(), [2]);
    }
}
