//! Secrets that must not be written down: found by their shape, replaced by a mark.
//! Pure; knows a closed list of shapes. What has no shape, it cannot find.

/// A shape of secret: its name, what it begins with, and how it goes on.
struct Shape {
    name: &'static str,
    prefix: &'static str,
    /// The least and the most characters behind the prefix.
    len: (usize, usize),
    accepts: fn(u8) -> bool,
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn is_dotted(byte: u8) -> bool {
    is_token(byte) || byte == b'.'
}

fn is_upper(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

const fn shape(name: &'static str, prefix: &'static str, least: usize) -> Shape {
    Shape { name, prefix, len: (least, usize::MAX), accepts: is_token }
}

const SHAPES: &[Shape] = &[
    Shape { name: "aws key", prefix: "AKIA", len: (16, 16), accepts: is_upper },
    Shape { name: "aws key", prefix: "ASIA", len: (16, 16), accepts: is_upper },
    shape("api key", "sk-", 16),
    shape("github token", "ghp_", 20),
    shape("github token", "gho_", 20),
    shape("github token", "ghu_", 20),
    shape("github token", "ghs_", 20),
    shape("github token", "ghr_", 20),
    shape("github token", "github_pat_", 20),
    shape("gitlab token", "glpat-", 16),
    shape("slack token", "xoxb-", 10),
    shape("slack token", "xoxp-", 10),
    shape("slack token", "xoxa-", 10),
    shape("google key", "AIza", 30),
];

/// Names whose value behind `=` is a secret; behind a colon too for the first two.
const NAMES: &[&str] =
    &["password", "passwd", "secret", "api_key", "apikey", "access_token", "auth_token"];

const KEY_BEGIN: &str = "-----BEGIN ";
const KEY_KIND: &str = "PRIVATE KEY";
const KEY_END: &str = "-----END ";

/// The text without secrets, and how many there were.
pub(crate) fn redact(text: &str) -> (String, usize) {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut count, mut inside_word) = (text, 0, false);
    while !rest.is_empty() {
        let found = if inside_word { None } else { secret_at(rest) };
        if let Some((kept, len, name)) = found {
            let value = rest.get(kept..kept + len).unwrap_or("");
            if !value.starts_with("[redacted") {
                out.push_str(rest.get(..kept).unwrap_or(""));
                out.push_str("[redacted: ");
                out.push_str(name);
                out.push(']');
                count += 1;
                rest = rest.get(kept + len..).unwrap_or("");
                continue;
            }
        }
        let Some(letter) = rest.chars().next() else { break };
        out.push(letter);
        inside_word = letter.is_alphanumeric();
        rest = rest.get(letter.len_utf8()..).unwrap_or("");
    }
    (out, count)
}

/// A secret at the beginning of this text: what stays in front, its length, its name.
fn secret_at(text: &str) -> Option<(usize, usize, &'static str)> {
    if text.starts_with(KEY_BEGIN) {
        let line = text.lines().next().unwrap_or("");
        return line.contains(KEY_KIND).then(|| (0, key_block_len(text), "private key"));
    }
    if text.starts_with("eyJ") {
        let len = text.bytes().take_while(|byte| is_dotted(*byte)).count();
        let token = text.get(..len)?.trim_end_matches('.');
        let parts: Vec<&str> = token.split('.').collect();
        let long = parts.len() == 3 && parts.iter().all(|part| part.len() >= 4);
        return (long && token.len() >= 30).then_some((0, token.len(), "jwt"));
    }
    for shape in SHAPES {
        let Some(rest) = text.strip_prefix(shape.prefix) else { continue };
        let len = rest.bytes().take_while(|byte| (shape.accepts)(*byte)).count();
        if (shape.len.0..=shape.len.1).contains(&len) {
            return Some((0, shape.prefix.len() + len, shape.name));
        }
    }
    named_at(text)
}

/// To the end of the block; all of the rest when it has none.
fn key_block_len(text: &str) -> usize {
    let Some(end) = text.find(KEY_END) else { return text.len() };
    let tail = text.get(end..).unwrap_or("");
    let marks = tail.get(KEY_END.len()..).and_then(|rest| rest.find("-----"));
    let line = tail.find('\n').unwrap_or(tail.len());
    end + marks.map_or(line, |at| line.min(KEY_END.len() + at + 5))
}

/// `password=...`: the value.
fn named_at(text: &str) -> Option<(usize, usize, &'static str)> {
    let head = text.as_bytes();
    let (i, name) = NAMES.iter().enumerate().find(|(_, name)| {
        head.get(..name.len()).is_some_and(|head| head.eq_ignore_ascii_case(name.as_bytes()))
    })?;
    let mut at = name.len();
    let skip = |at: usize, wanted: &[u8]| {
        at + head.get(at..).unwrap_or(&[]).iter().take_while(|byte| wanted.contains(byte)).count()
    };
    at = skip(at, b"\"' ");
    match head.get(at) {
        Some(b'=') => {}
        Some(b':') if i < 2 => {}
        _ => return None,
    }
    at = skip(at + 1, b"\"' ");
    let value = text.get(at..)?;
    let end = value.find(|letter: char| letter.is_whitespace() || "\"'`,;&)}".contains(letter));
    let len = end.unwrap_or(value.len());
    (value.get(..len)?.chars().count() >= 4).then_some((at, len, "value"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn secrets_of_every_shape_go_and_what_is_around_them_stays() {
        let aws = concat!("AK", "IAIOSFODNN7EXAMPLE");
        let jwt = concat!("ey", "JhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlMTIzNDU2");
        let github = format!("gh{}_{}", "p", "a1B2".repeat(9));
        let key = concat!("-----BEGIN RSA ", "PRIVATE KEY-----\nabc\n-----END RSA KEY-----");
        for secret in [aws, jwt, &github, key, &format!("sk-{}", "ant-abc123".repeat(3))] {
            let (out, count) = redact(&format!("use {secret} now"));
            assert_eq!(count, 1, "{secret}");
            assert!(out.starts_with("use [redacted: ") && out.ends_with("] now"), "{out}");
            assert!(!out.contains(secret));
        }
        let (out, count) = redact("PASSWORD=\"hunter22\" and api_key = abcdef, done");
        assert_eq!(
            (out.as_str(), count),
            ("PASSWORD=\"[redacted: value]\" and api_key = [redacted: value], done", 2)
        );
    }

    #[test]
    fn a_key_that_was_cut_off_goes_to_the_end() {
        let text = concat!("-----BEGIN ", "PRIVATE KEY-----\nMIIE");
        assert_eq!(redact(text).0, "[redacted: private key]");
    }

    #[test]
    fn words_that_only_look_alike_stay() {
        for text in ["task-force", "a password manager", "secret: x", "AKIAshort", "eyJust"] {
            assert_eq!(redact(text), (text.to_owned(), 0));
        }
    }

    proptest! {
        #[test]
        fn what_was_redacted_once_does_not_change(text in any::<String>(), value in "[a-z]{0,9}") {
            let (once, _) = redact(&format!("{text} password={value}\u{ac00} {text}"));
            prop_assert_eq!(redact(&once), (once, 0));
        }
    }
}
