//! Rule: a test can fail: it asserts something, or calls what asserts in its own crate's tests.
//! A bare `matches!(...);` asserts nothing, however much it looks as if. A test whose name promises
//! that nothing panics asserts by running.

use std::collections::BTreeSet;

use crate::scan::{Function, Source, group_end, is_word, words};
use crate::tree::{Finding, Tree, TreeFile};

/// Words that stop a test.
const MARKS: &[&str] = &["panic", "unreachable", "unwrap_err", "expect_err", "validate"];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let packages = tree.packages();
    let package_of = |path: &str| {
        let inside = |package: &&&str| path.starts_with(&format!("{package}/"));
        packages.iter().find(inside).copied().unwrap_or("")
    };
    let mut findings = Vec::new();
    for package in packages.iter().copied().chain([""]) {
        let files: Vec<(&TreeFile, &Source)> =
            tree.sources().filter(|(file, _)| package_of(&file.path) == package).collect();
        let asserting = asserting_helpers(&files);
        for (file, source) in files {
            findings.extend(check_file(file, source, &asserting));
        }
    }
    findings
}

fn check_file(file: &TreeFile, source: &Source, asserting: &BTreeSet<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for function in &source.functions {
        let body = &source.code[function.body.clone()];
        let line = source.line(function.span.start);
        if is_test(function)
            && !function.attributes.contains("#[should_panic")
            && !function.name.contains("panic")
            && !asserts(body, asserting)
        {
            let text = format!("test `{}` asserts nothing and cannot fail", function.name);
            findings.push(Finding::new(&file.path, line, text));
        }
    }
    for at in words(&source.code, "matches") {
        let open = at + "matches!".len();
        let before = source.code[..at].trim_end().chars().next_back();
        let after = || source.code[group_end(&source.code, open)..].trim_start().starts_with(';');
        let call = source.code[at..].starts_with("matches!(");
        if call && matches!(before, Some(';' | '{' | '}')) && after() {
            let text = "a bare `matches!` checks nothing; put `assert!` around it";
            findings.push(Finding::new(&file.path, source.line(at), text));
        }
    }
    findings
}

fn is_test(function: &Function) -> bool {
    function.attributes.contains("#[test]")
}

/// Functions of the tests that assert, or call one that does.
fn asserting_helpers<'a>(files: &[(&'a TreeFile, &'a Source)]) -> BTreeSet<&'a str> {
    let mut helpers: Vec<(&str, &str)> = Vec::new();
    for (file, source) in files {
        for function in &source.functions {
            let of_tests = file.is_test() || source.in_tests(function.span.start);
            if of_tests && !is_test(function) {
                helpers.push((&function.name, &source.code[function.body.clone()]));
            }
        }
    }
    let mut asserting = BTreeSet::new();
    loop {
        let before = asserting.len();
        for (name, body) in &helpers {
            if !asserting.contains(name) && asserts(body, &asserting) {
                asserting.insert(*name);
            }
        }
        if asserting.len() == before {
            return asserting;
        }
    }
}

/// Whether a body holds a word that can stop a test.
fn asserts(body: &str, helpers: &BTreeSet<&str>) -> bool {
    let tokens = body.split(|letter: char| !letter.is_ascii() || !is_word(letter as u8));
    let stops =
        |word: &str| word.contains("assert") || MARKS.contains(&word) || helpers.contains(word);
    tokens.into_iter().any(stops)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> usize {
        let text = format!("#[cfg(test)]\nmod tests {{\n{text}\n}}\n");
        check(&Tree::of(&[("engine/src/a.rs", &text)])).len()
    }

    #[test]
    fn a_test_that_cannot_fail_is_caught() {
        assert_eq!(found("#[test] fn a() { go(); }"), 1);
        assert_eq!(found("#[test] fn a() { let _ = \"assert\"; /* assert!(x) */ }"), 1);
        assert_eq!(found("#[test] fn a() { assert_eq!(1, 1); }"), 0);
        assert_eq!(found("#[test] fn any_bytes_never_panic() { go(); }"), 0);
        assert_eq!(found("#[test]\n#[should_panic(expected = \"x\")] fn a() { go(); }"), 0);
    }

    #[test]
    fn a_helper_that_asserts_counts_and_one_that_does_not_does_not() {
        assert_eq!(found("fn holds() { assert!(x) } fn b() { holds() } #[test] fn a() { b() }"), 0);
        assert_eq!(found("fn helper() { go() } #[test] fn a() { helper() }"), 1);
    }

    #[test]
    fn a_bare_matches_is_caught() {
        assert_eq!(found("#[test] fn a() { assert!(x); matches!(y, Err(_)); }"), 1);
        assert_eq!(found("#[test] fn a() { assert!(matches!(y, Err(_))); }"), 0);
        assert_eq!(found("fn a() -> bool { matches!(y, Err(_)) }"), 0);
    }
}
