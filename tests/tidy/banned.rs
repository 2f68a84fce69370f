//! Rule: words that are never left behind, each with what to write instead.
//! In code they are looked for outside of comments and strings; in texts everywhere.

use crate::scan::is_word;
use crate::tree::{Finding, Tree};

/// In the code of every crate.
const IN_CODE: &[(&str, &str)] = &[
    ("todo!", "write it, or return an error that says what is missing"),
    ("unimplemented!", "write it, or return an error that says what is missing"),
    ("dbg!", "`tracing`, or a test"),
    ("#[allow(", "`#[expect(lint, reason = \"...\")]`: it breaks when it is no longer needed"),
    ("#![allow(", "`#![expect(lint, reason = \"...\")]`: it breaks when it is no longer needed"),
];

/// In the code of the engine and of the abstractions, tests not counted.
const IN_LIBRARIES: &[(&str, &str)] = &[
    ("println!", "`tracing`: a library does not own the terminal"),
    ("eprintln!", "`tracing`: a library does not own the terminal"),
    ("print!", "`tracing`: a library does not own the terminal"),
    ("eprint!", "`tracing`: a library does not own the terminal"),
];

/// In every text that is tracked. In halves, so that this file may be tracked as well.
const IN_TEXTS: &[(&str, &str)] = &[
    (concat!("FIX", "ME"), "fix it, or write an issue"),
    (concat!("TO", "DO"), "do it, or write an issue"),
    (concat!("/ro", "ot/"), "a path relative to the repository"),
    (concat!("/wo", "rk/"), "a path relative to the repository"),
    (concat!("/ho", "me/"), "a path relative to the repository"),
];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, source) in tree.sources() {
        let library = file.path.starts_with("engine/src/") || file.path.starts_with("memory/src/");
        for (at, word, instead) in find(&source.code, IN_CODE) {
            findings.push(finding(&file.path, source.line(at), word, instead));
        }
        for (at, word, instead) in find(&source.code, IN_LIBRARIES) {
            if library && !source.in_tests(at) && !file.is_test() {
                findings.push(finding(&file.path, source.line(at), word, instead));
            }
        }
    }
    for file in &tree.files {
        for (i, line) in file.text.iter().flat_map(|text| text.lines()).enumerate() {
            for (_, word, instead) in find(line, IN_TEXTS) {
                findings.push(finding(&file.path, i + 1, word, instead));
            }
        }
    }
    findings
}

fn finding(path: &str, line: usize, word: &str, instead: &str) -> Finding {
    Finding::new(path, line, format!("`{word}`; instead: {instead}"))
}

type Word = (&'static str, &'static str);

/// Every place of every word, where no letter, digit or dot continues it to the left.
fn find<'a>(text: &'a str, list: &'a [Word]) -> impl Iterator<Item = (usize, &'a str, &'a str)> {
    list.iter().flat_map(move |(word, instead)| {
        let starts = text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
            let bytes = text.as_bytes();
            let before = at.checked_sub(1).map_or(b' ', |i| bytes[i]);
            let last = word.as_bytes()[word.len() - 1];
            let after = bytes.get(at + word.len()).copied().unwrap_or(b' ');
            let continued = is_word(last) && is_word(after);
            !(continued || is_word(before) || b".-}$".contains(&before))
        });
        starts.map(move |at| (at, *word, *instead))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&Tree::of(&[(path, text)])).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn leftovers_in_code_are_caught_and_their_names_in_strings_are_not() {
        assert_eq!(lines("a.rs", "fn f() {\n    todo!()\n}\n"), [2]);
        assert_eq!(lines("a.rs", "#[allow(dead_code)]\nfn f() { dbg!(1) }\n"), [2, 1]);
        assert_eq!(lines("a.rs", "// dbg! is banned\nconst A: &str = \"todo!\";\n"), []);
    }

    #[test]
    fn a_library_does_not_print_and_its_tests_may() {
        let text = "fn f() { println!() }\n#[cfg(test)]\nmod tests { fn g() { println!() } }\n";
        assert_eq!(lines("engine/src/a.rs", text), [1]);
        assert_eq!(lines("cli/src/a.rs", text), []);
    }

    #[test]
    fn leftovers_and_paths_of_one_machine_are_caught_in_every_text() {
        assert_eq!(lines("docs/a.md", concat!("FIX", "ME later\n")), [1]);
        assert_eq!(lines("a.toml", concat!("\n# see /ro", "ot/notes\n")), [2]);
        assert_eq!(lines("a.md", concat!("target/wo", "rk/ and MASTO", "DONS\n")), []);
    }
}
