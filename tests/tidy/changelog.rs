//! Rule: the changelog has an unreleased section above every released one.
//! What changes for a user is written down in the commit that changes it.

use crate::tree::{Finding, Tree};

const PATH: &str = "CHANGELOG.md";

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let text = tree.text(PATH).unwrap_or("");
    let first = text.lines().find(|line| line.starts_with("## ")).unwrap_or("");
    if first == "## [Unreleased]" {
        return Vec::new();
    }
    vec![Finding::new(PATH, 0, "the first section is not `## [Unreleased]`")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changelog_without_an_unreleased_section_is_caught() {
        let found = |text| check(&Tree::of(&[(PATH, text)])).len();
        assert_eq!(found("# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2027-01-01\n"), 0);
        assert_eq!(found("# Changelog\n\n## [0.1.0] - 2027-01-01\n\n## [Unreleased]\n"), 1);
        assert_eq!(check(&Tree::default()).len(), 1);
    }
}
