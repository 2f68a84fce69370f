//! Rule: Rust files are ASCII, so that no letter looks like another.
//! Other letters in a test are written as escapes.

use crate::tree::{Finding, Tree};

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, _) in tree.sources() {
        for (i, line) in file.text.iter().flat_map(|text| text.lines()).enumerate() {
            if let Some(letter) = line.chars().find(|letter| !letter.is_ascii()) {
                let text = format!("`{}` is not ASCII", letter.escape_unicode());
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
    fn a_dash_that_is_not_a_hyphen_is_caught() {
        let found = check(&Tree::of(&[("a.rs", "// a - b\n// a \u{2013} b\n")]));
        assert_eq!(found, [Finding::new("a.rs", 2, "`\\u{2013}` is not ASCII")]);
    }
}
