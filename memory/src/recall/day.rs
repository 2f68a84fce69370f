//! The file of a day: frontmatter, then one section a turn.
//! Pure; knows Markdown, nothing of files or of what is searched.
//!
//! ```text
//! ---
//! date: 2026-02-04
//! project: my-project
//! keywords: ["hooks"]
//! ---
//!
//! ## [10:30] User
//! <!-- at=2026-02-04T01:30:00.000Z session=s1 prompt=p1 text=0123456789abcdef -->
//! the text
//! ```

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::conversation::Role;
use crate::recall::text::{all_tags, unescape};
use crate::store::Millis;

/// What the heading of a wrap-up says instead of a time.
pub(crate) const WRAP_UP: &str = "Wrap-up";
/// What stands where an answer could not be read.
pub(crate) const NOT_CAPTURED: &str = "(response not captured)";
const ID_CHARS_MAX: usize = 64;

/// What the comment under a heading says: exact, for programs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    pub at: Option<Millis>,
    pub session: String,
    pub prompt: String,
    /// Fingerprint of the whole text, before it was cut.
    pub text: u64,
}

/// One section of a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    /// Its heading's line; the first of a file is 1.
    pub line: usize,
    pub heading: String,
    /// `None` for a wrap-up, or what a person wrote.
    pub role: Option<Role>,
    pub mark: Option<Mark>,
    /// Without heading and comment.
    pub body: String,
    pub tags: Vec<String>,
    /// Where it lies in the file, heading included.
    pub bytes: std::ops::Range<usize>,
}

/// The moment as the local date of that time zone.
pub(crate) fn date_of(at: Millis, zone: &TimeZone) -> Date {
    zoned(at, zone).date()
}

fn zoned(at: Millis, zone: &TimeZone) -> jiff::Zoned {
    let ms = i64::try_from(at.0).unwrap_or(i64::MAX);
    let moment = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
    moment.to_zoned(zone.clone())
}

/// An id as it stands in the comment: nothing that could end it.
pub(crate) fn plain_id(id: &str) -> String {
    let kept = |letter: char| {
        let plain = letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
        if plain { letter } else { '_' }
    };
    // Two hyphens would end a comment.
    id.chars().take(ID_CHARS_MAX).map(kept).collect::<String>().replace("--", "-_")
}

/// The beginning of a new file.
pub(crate) fn frontmatter(date: Date, project: &str) -> String {
    let project: String = project.chars().filter(|letter| !letter.is_control()).collect();
    format!("---\ndate: {date}\nproject: {}\nkeywords: []\n---\n\n", project.trim())
}

/// A section as text.
pub(crate) fn render(role: Role, mark: &Mark, zone: &TimeZone, body: &str) -> String {
    let at = mark.at.unwrap_or_default();
    let (local, utc) = (zoned(at, zone), zoned(at, &TimeZone::UTC));
    let who = if role == Role::User { "User" } else { "Assistant" };
    let mut out = format!("## [{}] {who}\n<!-- at={}", local.strftime("%H:%M"), utc.timestamp());
    for (name, value) in [("session", &mark.session), ("prompt", &mark.prompt)] {
        if !value.is_empty() {
            let _ = write!(out, " {name}={}", plain_id(value));
        }
    }
    let _ = write!(out, " text={:016x} -->\n{body}\n\n", mark.text);
    out
}

/// The lines between the two marks at the beginning of a file, and the bytes of all of it; `None`
/// when there is none, or it does not end.
pub(crate) fn split_frontmatter(text: &str) -> Option<(Vec<&str>, usize)> {
    let mut lines = text.split_inclusive('\n');
    let first = lines.next().filter(|line| line.trim_end() == "---")?;
    let (mut at, mut inner) = (first.len(), Vec::new());
    for line in lines {
        at += line.len();
        if line.trim_end() == "---" {
            return Some((inner, at));
        }
        inner.push(line.trim_end());
    }
    None
}

/// The keywords of the frontmatter.
pub(crate) fn keywords(text: &str) -> Vec<String> {
    let Some((lines, _)) = split_frontmatter(text) else { return Vec::new() };
    let Some(list) = lines.iter().find_map(|line| line.strip_prefix("keywords:")) else {
        return Vec::new();
    };
    serde_json::from_str(list.trim()).unwrap_or_else(|_| {
        let inner = list.trim().trim_matches(['[', ']']);
        let words = inner.split(',').map(|word| word.trim().trim_matches(['"', '\'']));
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    })
}

/// The same file with these keywords; everything else stays as it is.
pub(crate) fn with_keywords(text: &str, keywords: &[String], date: Date) -> String {
    let list = serde_json::to_string(keywords).unwrap_or_else(|_| "[]".to_owned());
    let line = format!("keywords: {list}");
    let Some((lines, len)) = split_frontmatter(text) else {
        return format!("---\ndate: {date}\n{line}\n---\n\n{text}");
    };
    let mut out = String::from("---\n");
    let mut written = false;
    for old in lines {
        let is_list = old.starts_with("keywords:");
        out.push_str(if is_list { &line } else { old });
        out.push('\n');
        written |= is_list;
    }
    if !written {
        out.push_str(&line);
        out.push('\n');
    }
    out.push_str("---\n");
    out.push_str(text.get(len..).unwrap_or(""));
    out
}

/// The sections of a file, in order. What stands before the first belongs to none.
pub(crate) fn sections(text: &str) -> Vec<Section> {
    let mut found: Vec<Section> = Vec::new();
    let (mut at, mut begin) = (0, None);
    for (i, line) in text.split_inclusive('\n').enumerate() {
        if line.starts_with("## [") {
            found.extend(begin.map(|begin| section(text, begin, at)));
            begin = Some((i + 1, at));
        }
        at += line.len();
    }
    found.extend(begin.map(|begin| section(text, begin, at)));
    found
}

fn section(text: &str, (line, from): (usize, usize), to: usize) -> Section {
    let all = text.get(from..to).unwrap_or("");
    let (heading, rest) = all.split_once('\n').unwrap_or((all, ""));
    let (first, after) = rest.split_once('\n').unwrap_or((rest, ""));
    let mark = parse_mark(first);
    let body = unescape(if mark.is_some() { after } else { rest }.trim_matches('\n'));
    let heading = heading.trim_end().trim_start_matches("## ").to_owned();
    let role = match heading.split_once("] ").map(|(_, who)| who.trim()) {
        Some("User") => Some(Role::User),
        Some("Assistant") => Some(Role::Assistant),
        _ => None,
    };
    Section { line, heading, role, mark, tags: all_tags(&body), body, bytes: from..to }
}

fn parse_mark(line: &str) -> Option<Mark> {
    let inner = line.trim().strip_prefix("<!--")?.strip_suffix("-->")?;
    let mut mark = Mark::default();
    let mut known = false;
    for field in inner.split_whitespace() {
        let Some((name, value)) = field.split_once('=') else { continue };
        match name {
            "at" => {
                let moment: Option<Timestamp> = value.parse().ok();
                let ms = moment.and_then(|at| u64::try_from(at.as_millisecond()).ok());
                mark.at = ms.map(Millis);
            }
            "session" => value.clone_into(&mut mark.session),
            "prompt" => value.clone_into(&mut mark.prompt),
            "text" => mark.text = u64::from_str_radix(value, 16).unwrap_or(0),
            _ => continue,
        }
        known = true;
    }
    known.then_some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recall::text::shape;
    use proptest::prelude::*;

    #[test]
    fn a_section_comes_back_as_it_went() {
        let zone = TimeZone::get("Asia/Seoul").unwrap();
        let at = Some(Millis(1_770_168_600_000));
        let mark = Mark { at, session: "s 1".into(), prompt: "p-->x".into(), text: 0xAB };
        let date = date_of(mark.at.unwrap(), &zone);
        let mut text = frontmatter(date, "my\nproject");
        text.push_str(&render(Role::User, &mark, &zone, &shape("one\n## [x\n`#tags: B`", 99)));
        text.push_str(&render(Role::Assistant, &mark, &zone, "two"));
        assert!(text.contains("\n## [10:30] User\n<!-- at=2026-02-04T01:30:00Z "), "{text}");
        let found = sections(&text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].line, found[0].role), (7, Some(Role::User)));
        assert_eq!((found[0].body.as_str(), found[0].tags.len()), ("one\n## [x\n\n`#tags: b`", 1));
        let back = found[0].mark.clone().unwrap();
        assert_eq!((back.session.as_str(), back.prompt.as_str()), ("s_1", "p-__x"));
        assert_eq!((back.at, back.text), (at, 0xAB));
        assert_eq!(found[1].body, "two");
    }

    #[test]
    fn keywords_are_rewritten_and_the_rest_stays() {
        let text = "---\ndate: 2026-02-04\nmine: kept\nkeywords: [\"a\", b]\n---\nbody\n---\n";
        assert_eq!(keywords(text), ["a", "b"]);
        let date = jiff::civil::date(2026, 2, 4);
        let new = with_keywords(text, &["c".to_owned()], date);
        assert_eq!(new, text.replace("[\"a\", b]", "[\"c\"]"));
        let bare = with_keywords("body\n", &["c".to_owned()], date);
        assert_eq!((keywords(&bare), bare.ends_with("---\n\nbody\n")), (vec!["c".into()], true));
        assert_eq!(keywords("---\nkeywords: [\"a\"]\nnever closed"), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_a_person_wrote_is_read() {
        let text = "---\ndate: 2026-02-04\n---\n\n## [10:30] User\nhello\n\n## [x]\nnote\n";
        let found = sections(text);
        assert_eq!((found[0].role, &found[0].mark), (Some(Role::User), &None));
        assert_eq!((found[0].body.as_str(), found[1].role), ("hello", None));
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_ranges_cover_it(text in "(## \\[|<!-- at=|-->|---|\n|a|.){0,60}") {
            let found = sections(&text);
            for pair in found.windows(2) {
                prop_assert_eq!(pair[0].bytes.end, pair[1].bytes.start);
            }
            let _ = keywords(&text);
            let date = jiff::civil::date(2026, 2, 4);
            let new = with_keywords(&text, &["k".to_owned()], date);
            prop_assert_eq!(keywords(&new), ["k"]);
        }
    }
}
