//! Rule: some test produces every variant of the public error.
//! The list holds those that nothing can produce yet; it may only shrink.

use crate::scan::{Source, skip_space, word_at, words};
use crate::tree::{Finding, Tree};

const PATH: &str = "engine/src/error.rs";

/// Variants that no test produces yet.
const KNOWN: &[&str] = &[];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    check_with(tree, KNOWN)
}

fn check_with(tree: &Tree, known: &[&str]) -> Vec<Finding> {
    let Some(source) = tree.get(PATH).and_then(|file| file.source.as_ref()) else {
        return vec![Finding::new(PATH, 0, "is not there")];
    };
    let mut findings = Vec::new();
    let variants = variants(source);
    for (line, name) in &variants {
        match (tested(tree, name), known.contains(name)) {
            (false, false) => {
                let text = format!("no test names `Error::{name}`: produce it in one");
                findings.push(Finding::new(PATH, *line, text));
            }
            (true, true) => {
                let text = format!("`{name}` is tested now: remove it from the list");
                findings.push(Finding::new("tests/tidy/error_variants.rs", 0, text));
            }
            _ => {}
        }
    }
    for name in known.iter().filter(|name| !variants.iter().any(|(_, other)| other == *name)) {
        let text = format!("`{name}` is no variant: remove it from the list");
        findings.push(Finding::new("tests/tidy/error_variants.rs", 0, text));
    }
    findings
}

/// The variants of `enum Error`, with their lines.
fn variants(source: &Source) -> Vec<(usize, &str)> {
    let code = source.code.as_str();
    let Some(at) = code.find("pub enum Error {") else { return Vec::new() };
    let mut found = Vec::new();
    let (mut depth, mut fresh, mut i) = (0_usize, true, at + "pub enum Error ".len());
    while let Some(&byte) = code.as_bytes().get(i) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => depth -= 1,
            b',' if depth == 1 => fresh = true,
            byte if depth == 1 && fresh && byte.is_ascii_uppercase() => {
                found.push((source.line(i), word_at(code, i)));
                fresh = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
        i += 1;
    }
    found
}

/// Whether the code of some test names `Error::name`.
fn tested(tree: &Tree, name: &str) -> bool {
    tree.sources().filter(|(file, _)| !file.path.starts_with("tests/tidy/")).any(
        |(file, source)| {
            words(&source.code, "Error").any(|at| {
                let after = at + "Error".len();
                (file.is_test() || source.in_tests(at))
                    && source.code[after..].starts_with("::")
                    && word_at(&source.code, skip_space(&source.code, after + 2)) == name
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ERROR: &str = "pub enum Error {\n    Full { used: u64 },\n    #[x(Y)]\n\
                         Io(Inner, B),\n    Closed,\n}\n";

    fn found(test: &str, known: &[&str]) -> Vec<usize> {
        let tree = Tree::of(&[(PATH, ERROR), ("tests/full.rs", test)]);
        check_with(&tree, known).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_variant_that_no_test_names_is_caught() {
        assert_eq!(found("Error::Full { .. } Error::Io(_) Error::Closed", &[]), []);
        assert_eq!(found("Error::Full { .. } // Error::Io(_)\n Error::ClosedDoor", &[]), [4, 5]);
    }

    #[test]
    fn the_list_may_only_shrink() {
        assert_eq!(found("Error::Full Error::Io", &["Closed"]), []);
        assert_eq!(found("Error::Full Error::Io Error::Closed", &["Closed"]), [0]);
        assert_eq!(found("Error::Full Error::Io Error::Closed", &["Gone"]), [0]);
    }
}
