//! A scanner of Rust text: where comments and strings are, where functions and tests begin and end.
//! Knows tokens, braces and attributes; knows nothing of types, macros or any rule.

use std::ops::Range;

/// One `*.rs` text with its parts marked. All texts have the same length and the same lines.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The code alone: comments and the insides of strings are spaces.
    pub code: String,
    /// The code with its strings: comments are spaces.
    pub strings: String,
    /// Items that stand under `#[cfg(test)]`.
    pub tests: Vec<Range<usize>>,
    /// Every function with a body, nested ones too.
    pub functions: Vec<Function>,
}

/// One function with a body.
#[derive(Debug, Clone)]
pub(crate) struct Function {
    pub name: String,
    /// From the word `fn` to the closing brace.
    pub span: Range<usize>,
    /// The braces and what lies between.
    pub body: Range<usize>,
    /// The attributes that stand directly before it.
    pub attributes: String,
}

impl Source {
    pub(crate) fn new(text: &str) -> Self {
        let (code, strings) = blank(text);
        let tests = test_items(&code);
        let functions = functions(&code);
        Self { code, strings, tests, functions }
    }

    pub(crate) fn in_tests(&self, at: usize) -> bool {
        self.tests.iter().any(|range| range.contains(&at))
    }

    /// The line of a byte, from 1.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.code[..at].bytes().filter(|&byte| byte == b'\n').count() + 1
    }

    /// How many lines a range of bytes touches.
    pub(crate) fn line_count(&self, range: &Range<usize>) -> usize {
        self.line(range.end.saturating_sub(1).max(range.start)) - self.line(range.start) + 1
    }
}

pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The word that begins at `at`, or an empty string.
pub(crate) fn word_at(code: &str, at: usize) -> &str {
    let rest = code.get(at..).unwrap_or("");
    &rest[..rest.bytes().position(|byte| !is_word(byte)).unwrap_or(rest.len())]
}

/// Where `word` stands as a whole word.
pub(crate) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = at.checked_sub(1).is_some_and(|i| is_word(code.as_bytes()[i]));
        let after = code.as_bytes().get(at + word.len()).is_some_and(|&byte| is_word(byte));
        !before && !after
    })
}

pub(crate) fn skip_space(code: &str, mut at: usize) -> usize {
    while code.as_bytes().get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// The end (one past) of the bracketed group that opens at `open`.
pub(crate) fn group_end(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (i, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// The end of the item that begins at `at`: its body's brace, or its semicolon.
fn item_end(code: &str, mut at: usize) -> usize {
    while let Some(&byte) = code.as_bytes().get(at) {
        match byte {
            b';' => return at + 1,
            b'{' => return group_end(code, at),
            b'(' | b'[' => at = group_end(code, at),
            _ => at += 1,
        }
    }
    code.len()
}

fn test_items(code: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for head in ["#[cfg(test)]", "#[cfg(all(test,"] {
        for (start, _) in code.match_indices(head) {
            let mut at = start;
            while code.as_bytes().get(at) == Some(&b'#') {
                at = skip_space(code, group_end(code, at + 1));
            }
            found.push(start..item_end(code, at));
        }
    }
    found
}

fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for at in words(code, "fn") {
        let name_at = skip_space(code, at + 2);
        let name = word_at(code, name_at);
        if name.is_empty() {
            continue;
        }
        let mut open = name_at + name.len();
        while let Some(&byte) = code.as_bytes().get(open) {
            match byte {
                b'{' | b';' => break,
                b'(' | b'[' => open = group_end(code, open),
                _ => open += 1,
            }
        }
        if code.as_bytes().get(open) != Some(&b'{') {
            continue;
        }
        let end = group_end(code, open);
        let attributes = attributes_before(code, at).to_owned();
        found.push(Function { name: name.to_owned(), span: at..end, body: open..end, attributes });
    }
    found
}

/// The text between the end of the previous item or statement and `at`.
fn attributes_before(code: &str, at: usize) -> &str {
    let mut start = at;
    let bytes = code.as_bytes();
    let mut depth = 0_usize;
    while start > 0 {
        match bytes[start - 1] {
            b']' | b')' => depth += 1,
            b'[' | b'(' => depth = depth.saturating_sub(1),
            b';' | b'}' | b'{' if depth == 0 => break,
            _ => {}
        }
        start -= 1;
    }
    &code[start..at]
}

/// Blanks comments (both results) and the insides of strings (the first result).
fn blank(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let (mut code, mut strings) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < bytes.len() {
        let (end, kind) = token(bytes, at);
        for (i, &byte) in bytes.iter().enumerate().take(end).skip(at) {
            let space = if byte == b'\n' { b'\n' } else { b' ' };
            let quote = i == at || i + 1 == end;
            code.push(if kind == Kind::Code || kind == Kind::String && quote {
                byte
            } else {
                space
            });
            strings.push(if kind == Kind::Comment { space } else { byte });
        }
        at = end;
    }
    (lossy(code), lossy(strings))
}

/// What was cut inside a letter of several bytes cannot be: tokens end at ASCII bytes.
fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_default()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    String,
}

/// The token at `at` as far as blanking cares: its end and what it is.
fn token(bytes: &[u8], at: usize) -> (usize, Kind) {
    let rest = &bytes[at..];
    let prefixed = at.checked_sub(1).is_some_and(|i| is_word(bytes[i]));
    if rest.starts_with(b"//") {
        let len = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        return (at + len, Kind::Comment);
    }
    if rest.starts_with(b"/*") {
        return (at + block_comment_len(rest), Kind::Comment);
    }
    match rest[0] {
        b'"' => (at + string_len(rest), Kind::String),
        b'r' if !prefixed || matches!(bytes[at - 1], b'b' | b'c') => {
            raw_string_len(rest).map_or((at + 1, Kind::Code), |len| (at + len, Kind::String))
        }
        b'\'' => char_len(rest).map_or((at + 1, Kind::Code), |len| (at + len, Kind::String)),
        _ => (at + 1, Kind::Code),
    }
}

fn block_comment_len(rest: &[u8]) -> usize {
    let (mut depth, mut i) = (0_usize, 0);
    while i < rest.len() {
        if rest[i..].starts_with(b"/*") {
            (depth, i) = (depth + 1, i + 2);
        } else if rest[i..].starts_with(b"*/") {
            (depth, i) = (depth - 1, i + 2);
            if depth == 0 {
                return i;
            }
        } else {
            i += 1;
        }
    }
    rest.len()
}

fn string_len(rest: &[u8]) -> usize {
    let mut i = 1;
    while i < rest.len() {
        match rest[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    rest.len()
}

fn raw_string_len(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|&&byte| byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let start = 2 + hashes;
    let end = rest[start..].windows(close.len()).position(|window| window == close);
    Some(end.map_or(rest.len(), |end| start + end + close.len()))
}

/// The length of a character literal, or `None` for a lifetime.
fn char_len(rest: &[u8]) -> Option<usize> {
    match rest.get(1)? {
        b'\\' => rest.iter().skip(3).position(|&byte| byte == b'\'').map(|i| i + 4),
        first if *first < 0x80 => (rest.get(2) == Some(&b'\'')).then_some(3),
        _ => rest.iter().take(6).skip(1).position(|&byte| byte == b'\'').map(|i| i + 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_not_code() {
        let text = "a /* x /* y */ z */ \"dbg!(\\\"\" r#\"q\"q\"# 'b' '\\'' &'c d // e\nf b\"g\"";
        let source = Source::new(text);
        let words: Vec<&str> = source.code.split_whitespace().collect();
        assert_eq!(source.code.len(), text.len());
        assert!(!source.code.contains("dbg") && !source.code.contains('z'));
        assert!(words.contains(&"&'c") && words.contains(&"d") && words.contains(&"f"));
        assert!(source.strings.contains("b\"g\"") && !source.strings.contains('e'));
    }

    #[test]
    fn a_function_ends_at_its_brace_and_a_test_module_is_marked() {
        let text = "fn a<F: Fn(u8) -> u8>(f: F) {\n    let x = '{';\n}\n\
                    #[cfg(test)]\nmod tests {\n    #[test]\n    fn b() {}\n}\nfn c();\n";
        let source = Source::new(text);
        let names: Vec<_> = source.functions.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(source.line_count(&source.functions[0].span), 3);
        assert!(source.functions[1].attributes.contains("#[test]"));
        assert!(source.in_tests(source.functions[1].span.start));
        assert!(!source.in_tests(source.functions[0].span.start));
    }
}
