//! Rule: every constant of the format stands in `format-spec.md`, every magic there in the code.
//! A length is a line that holds its name in backticks and its number. Nothing is asked before the
//! document exists.

use crate::scan::{word_at, words};
use crate::tree::{Finding, Tree};

const SPEC: &str = "format-spec.md";

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(spec) = tree.text(SPEC) else { return Vec::new() };
    let constants = constants(tree);
    let mut findings = Vec::new();
    for constant in &constants {
        if let Some(text) = constant.missing(spec) {
            findings.push(Finding::new(&constant.path, constant.line, text));
        }
    }
    let known: Vec<&str> = constants.iter().filter_map(|one| one.magic.as_deref()).collect();
    for (line, magic) in magics_of(spec) {
        if !known.contains(&magic) {
            let text = format!("magic `{magic}` stands in no file of engine/src/format");
            findings.push(Finding::new(SPEC, line, text));
        }
    }
    findings
}

struct Constant {
    path: String,
    line: usize,
    name: String,
    /// The letters of a magic.
    magic: Option<String>,
    /// The number of a length, where it is a plain one.
    number: Option<String>,
}

impl Constant {
    fn missing(&self, spec: &str) -> Option<String> {
        if let Some(magic) = &self.magic {
            return (!spec.contains(magic)).then(|| format!("magic `{magic}` is not in {SPEC}"));
        }
        let name = format!("`{}`", self.name);
        let mut lines = spec.lines().filter(|line| line.contains(&name)).peekable();
        if lines.peek().is_none() {
            return Some(format!("{name} is not in {SPEC}"));
        }
        let number = self.number.as_deref()?;
        let found = lines.any(|line| words(line, number).next().is_some());
        (!found).then(|| format!("{SPEC} does not give {name} as {number}"))
    }
}

/// Magics and lengths that `engine/src/format` shows to the rest of the engine.
fn constants(tree: &Tree) -> Vec<Constant> {
    let mut found = Vec::new();
    for (file, source) in tree.sources().filter(|(file, _)| in_format(&file.path)) {
        for at in words(&source.code, "const") {
            let name = word_at(&source.code, at + "const ".len());
            let end = source.code[at..].find(" = ").map_or(at, |i| at + i + 3);
            let value_end = source.code[end..].find(';').map_or(end, |i| end + i);
            let value = source.strings[end..value_end].trim();
            let shown = source.code[..at].trim_end().ends_with("pub(crate)");
            let letters = value.trim_start_matches(['*', '&']).strip_prefix("b\"");
            let magic = letters.and_then(|text| text.strip_suffix('"')).map(str::to_owned);
            let is_magic = name.contains("MAGIC") && magic.is_some();
            let is_length = shown && name.ends_with("_LEN");
            if source.in_tests(at) || !(is_magic || is_length) {
                continue;
            }
            let plain = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            found.push(Constant {
                path: file.path.clone(),
                line: source.line(at),
                name: name.to_owned(),
                magic: magic.filter(|_| is_magic),
                number: plain.then(|| value.to_owned()),
            });
        }
    }
    found
}

fn in_format(path: &str) -> bool {
    path.starts_with("engine/src/format/") || path == "engine/src/format.rs"
}

/// On lines that speak of a magic: what stands in backticks as `b"..."`, or in capitals and digits.
fn magics_of(spec: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (i, line) in spec.lines().enumerate() {
        if !line.to_ascii_lowercase().contains("magic") {
            continue;
        }
        for quoted in line.split('`').skip(1).step_by(2) {
            let inner = quoted.trim_start_matches('b');
            let letters = inner.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
            let capitals = |text: &str| {
                let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
                let letter = text.bytes().any(|byte| byte.is_ascii_uppercase());
                letter && (4..=16).contains(&text.len()) && text.bytes().all(plain)
            };
            let bare = Some(quoted).filter(|text| capitals(text));
            found.extend(letters.or(bare).map(|text| (i + 1, text)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "pub(crate) const SEGMENT_MAGIC: &[u8; 8] = b\"TRCSEG01\";\n\
                        pub(crate) const SEGMENT_HEADER_LEN: usize = 64;\n\
                        const STEP_LEN: usize = 3;\n";

    fn found(spec: &str) -> Vec<String> {
        let tree = Tree::of(&[("engine/src/format/segment.rs", CODE), (SPEC, spec)]);
        check(&tree).into_iter().map(|finding| finding.text).collect()
    }

    #[test]
    fn what_code_and_document_say_alike_is_fine() {
        let spec = "The magic is `TRCSEG01`.\n`SEGMENT_HEADER_LEN` is 64 bytes.\n";
        assert_eq!(found(spec), Vec::<String>::new());
    }

    #[test]
    fn a_constant_that_the_document_does_not_know_is_caught() {
        assert_eq!(found("").len(), 2);
        let spec = "The magic is `b\"TRCSEG01\"`.\n`SEGMENT_HEADER_LEN` is 640 bytes.\n";
        assert_eq!(found(spec), ["format-spec.md does not give `SEGMENT_HEADER_LEN` as 64"]);
    }

    #[test]
    fn a_magic_that_no_code_knows_is_caught() {
        let spec = "| `magic` | `TRCSEG01` |\n`SEGMENT_HEADER_LEN` 64\nmagic `TRCARC09`\n";
        assert_eq!(found(spec), ["magic `TRCARC09` stands in no file of engine/src/format"]);
    }
}
