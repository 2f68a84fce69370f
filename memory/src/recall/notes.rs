//! `MEMORY.md`: decisions by section, a table of keywords in front, what replaced what.
//! Pure; knows headings and tables of Markdown, nothing of files.

use std::fmt::Write as _;
use std::ops::Range;

use crate::error::{Error, Result};

/// What a new file begins with.
pub(crate) const TEMPLATE: &str = include_str!("notes_template.md");
const SUPERSEDED: &str = "\u{274c} SUPERSEDED";
const CURRENT: &str = "\u{2705} CURRENT";
/// "Keyword index", and "reason of the change", as the template's language has them.
const INDEX_HEADING: &str = "\u{d0a4}\u{c6cc}\u{b4dc} \u{c778}\u{b371}\u{c2a4}";
const INDEX_TABLE: &str = "| \u{d0a4}\u{c6cc}\u{b4dc} | \u{c139}\u{c158} |\n|--------|------|\n";
const REASON: &str = "\u{bcc0}\u{acbd} \u{c774}\u{c720}";

/// Whether a decision holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum Status {
    /// Nothing is said of it.
    #[default]
    Plain,
    /// It replaced another one.
    Current,
    /// Another one replaced it.
    Superseded,
}

/// A decision as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Under which heading: `architecture`, `patterns`, `tools`, `gotchas`, or one of your own.
    pub section: String,
    /// One line.
    pub title: String,
    /// Markdown without headings.
    pub body: String,
    /// What it is found by.
    pub keywords: Vec<String>,
}

/// A heading outside of code fences, and what stands under it up to the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heading {
    /// The first line of a file is 1.
    pub line: usize,
    pub level: usize,
    /// Without marks of the status.
    pub title: String,
    pub status: Status,
    /// Slugs of the headings above it and its own, of level 2 and deeper.
    pub anchor: String,
    /// Where the heading's line lies.
    pub head: Range<usize>,
    /// From behind the heading to the next heading of any level.
    pub own: Range<usize>,
}

/// A title as it stands in a link.
pub(crate) fn slug(title: &str) -> String {
    let words: Vec<&str> = title.split_whitespace().collect();
    let kept = |letter: &char| !matches!(letter, '#' | '|' | '`' | '[' | ']' | '/');
    words.join("-").to_lowercase().chars().filter(kept).collect()
}

/// All headings, in order.
pub(crate) fn headings(text: &str) -> Vec<Heading> {
    let mut found: Vec<Heading> = Vec::new();
    let (mut at, mut fence, mut path) = (0, None::<&str>, Vec::<(usize, String)>::new());
    for (i, line) in text.split_inclusive('\n').enumerate() {
        let from = at;
        at += line.len();
        let trimmed = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| trimmed.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            _ => {}
        }
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        let rest = line.get(level..).unwrap_or("");
        if fence.is_some() || mark.is_some() || !(1..=6).contains(&level) || !rest.starts_with(' ')
        {
            continue;
        }
        if let Some(last) = found.last_mut() {
            last.own.end = from;
        }
        let (title, status) = status_of(rest.trim());
        path.retain(|(above, _)| *above < level);
        if level > 1 {
            path.push((level, slug(&title)));
        }
        let anchor = path.iter().map(|(_, slug)| slug.as_str()).collect::<Vec<_>>().join("/");
        let (head, own) = (from..at, at..text.len());
        found.push(Heading { line: i + 1, level, title, status, anchor, head, own });
    }
    found
}

fn status_of(title: &str) -> (String, Status) {
    for (word, status) in [("SUPERSEDED", Status::Superseded), ("CURRENT", Status::Current)] {
        if let Some(rest) = title.strip_suffix(word) {
            let rest = rest.trim_end_matches(['\u{274c}', '\u{2705}', '\u{fe0f}', ' ']);
            return (rest.to_owned(), status);
        }
    }
    (title.to_owned(), Status::Plain)
}

/// The rows of the table of keywords: line, keywords, the anchor without `#`.
pub(crate) fn index_rows(text: &str) -> Vec<(usize, Vec<String>, String)> {
    let mut found = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let Some(inner) = line.trim().strip_prefix('|') else { continue };
        let cells: Vec<&str> = inner.trim_end_matches('|').split('|').map(str::trim).collect();
        let [words, anchor] = cells.as_slice() else { continue };
        let Some(anchor) = anchor.trim_matches('`').strip_prefix('#') else { continue };
        let words = words.split(',').map(|word| word.trim().to_lowercase());
        let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
        found.push((i + 1, words, anchor.to_lowercase()));
    }
    found
}

/// Whether a link such as `#auth` or `#architecture/auth` means this heading.
pub(crate) fn is_meant(anchor: &str, heading: &Heading) -> bool {
    let wanted = anchor.trim_start_matches('#').trim_end_matches('/').to_lowercase();
    heading.anchor == wanted || heading.anchor.rsplit('/').next() == Some(wanted.as_str())
}

fn find<'h>(all: &'h [Heading], title: &str) -> Option<&'h Heading> {
    let wanted = title.trim().trim_start_matches('#');
    let deep = |heading: &&Heading| heading.level > 2;
    all.iter()
        .filter(deep)
        .find(|heading| heading.title == wanted)
        .or_else(|| all.iter().filter(deep).find(|heading| is_meant(&slug_path(wanted), heading)))
}

fn slug_path(path: &str) -> String {
    path.split('/').map(slug).collect::<Vec<_>>().join("/")
}

impl Decision {
    fn check(&self) -> Result<()> {
        for line in [&self.section, &self.title] {
            if slug(line).is_empty() || line.contains('\n') {
                return Err(Error::Invalid("a title is one line with at least one letter"));
            }
            Error::check_limit("bytes of a title", line.len(), 200)?;
        }
        if status_of(self.title.trim()).1 != Status::Plain {
            return Err(Error::Invalid("a title does not end with its status"));
        }
        Error::check_limit("bytes of a decision", self.body.len(), 64 << 10)
    }

    fn anchor(&self) -> String {
        format!("{}/{}", slug(&self.section), slug(&self.title))
    }

    fn render(&self, status: &str, first: &str, last: &str) -> String {
        let title = self.title.trim();
        let gap = if status.is_empty() { "" } else { " " };
        let body = plain_body(&self.body);
        format!("### {title}{gap}{status}\n{first}{body}{last}\n")
    }
}

/// A body in which no line is a heading and no fence stays open; ends with a line end.
fn plain_body(body: &str) -> String {
    let (mut out, mut fence) = (String::new(), false);
    for line in body.trim().lines() {
        fence ^= line.trim_start().starts_with("```");
        if !fence && line.starts_with('#') {
            out.push('\\');
        }
        out.push_str(line);
        out.push('\n');
    }
    if fence {
        out.push_str("```\n");
    }
    out
}

/// The file with one more decision; `None` when it stands there already, word for word.
pub(crate) fn remember(text: &str, new: &Decision) -> Result<Option<String>> {
    new.check()?;
    let all = headings(text);
    if let Some(old) = all.iter().find(|heading| heading.anchor == new.anchor()) {
        let own = text.get(old.own.clone()).unwrap_or("");
        let same = own.trim() == plain_body(&new.body).trim();
        return if same { Ok(None) } else { Err(Error::Invalid("it stands there; supersede it")) };
    }
    let out = insert(text, &new.section, &new.render("", "", ""));
    Ok(Some(with_index_row(&out, new)))
}

/// The file with `old` marked as replaced by `new`, links both ways, and its keywords on the new.
pub(crate) fn supersede(text: &str, old: &str, new: &Decision, reason: &str) -> Result<String> {
    new.check()?;
    let all = headings(text);
    let Some(found) = find(&all, old) else {
        return Err(Error::Invalid("no decision of this title"));
    };
    if found.status == Status::Superseded {
        return Err(Error::Invalid("it is superseded already"));
    }
    if all.iter().any(|heading| heading.anchor == new.anchor()) {
        return Err(Error::Invalid("there is a decision of the new title"));
    }
    let first = format!("`supersedes: #{}`\n", slug(&found.title));
    let reason = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    let entry = new.render(CURRENT, &first, &format!("- **{REASON}**: {reason}\n"));
    let link = slug(&new.title);
    let marks = "#".repeat(found.level);
    let head = format!("{marks} {} {SUPERSEDED}\n`superseded-by: #{link}`\n", found.title);
    let mut out = text.to_owned();
    out.replace_range(found.head.clone(), &head);
    let out = repointed(&out, found, new);
    Ok(with_index_row(&insert(&out, &new.section, &entry), new))
}

/// Lets the keywords of the old decision lead to the new one: what is looked up is what holds.
fn repointed(text: &str, old: &Heading, new: &Decision) -> String {
    let rows = index_rows(text);
    let own: Vec<String> = new.keywords.iter().filter_map(plain_word).collect();
    let taken = |word: &String| own.contains(word);
    let mut out = String::with_capacity(text.len());
    for (i, line) in text.split_inclusive('\n').enumerate() {
        let row = rows.iter().find(|(at, _, anchor)| *at == i + 1 && is_meant(anchor, old));
        let Some((_, words, _)) = row else {
            out.push_str(line);
            continue;
        };
        let kept: Vec<&str> =
            words.iter().filter(|word| !taken(word)).map(String::as_str).collect();
        if !kept.is_empty() {
            let _ = writeln!(out, "| {} | #{} |", kept.join(", "), new.anchor());
        }
    }
    out
}

/// Puts an entry at the end of a section; the section at the end of the file when there is none.
fn insert(text: &str, section: &str, entry: &str) -> String {
    let all = headings(text);
    let wanted = slug(section);
    let mut out = text.trim_end().to_owned();
    out.push('\n');
    let Some(at) = all.iter().position(|one| one.level == 2 && one.anchor == wanted) else {
        let _ = write!(out, "\n## {}/\n\n{entry}", section.trim().trim_end_matches('/'));
        return out;
    };
    let next = all.iter().skip(at + 1).find(|heading| heading.level <= 2);
    let end = next.map_or(out.len(), |next| next.head.start);
    let (before, after) = out.split_at(end.min(out.len()));
    format!("{}\n\n{entry}\n{after}", before.trim_end()).trim_end().to_owned() + "\n"
}

/// A keyword as it stands in the table.
fn plain_word(word: impl AsRef<str>) -> Option<String> {
    let word = word.as_ref().replace(['|', ',', '\n', '`'], " ").trim().to_lowercase();
    (!word.is_empty()).then_some(word)
}

/// Adds the keywords to the table; makes the table when there is none.
fn with_index_row(text: &str, new: &Decision) -> String {
    let words: Vec<String> = new.keywords.iter().filter_map(plain_word).collect();
    if words.is_empty() {
        return text.to_owned();
    }
    let row = format!("| {} | #{} |\n", words.join(", "), new.anchor());
    let all = headings(text);
    let is_index = |one: &&Heading| {
        one.title.contains(INDEX_HEADING) || one.title.to_lowercase() == "keyword index"
    };
    let Some(index) = all.iter().find(is_index) else {
        let at = all.first().filter(|first| first.level == 1).map_or(0, |first| first.head.end);
        let (before, after) = text.split_at(at);
        let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
        return format!("{before}{gap}\n## {INDEX_HEADING}\n{INDEX_TABLE}{row}\n{after}");
    };
    let own = text.get(index.own.clone()).unwrap_or("");
    let mut end = None;
    let mut at = index.own.start;
    for line in own.split_inclusive('\n') {
        at += line.len();
        if line.trim_start().starts_with('|') {
            end = Some(at);
        }
    }
    let row = if end.is_some() { row } else { format!("{INDEX_TABLE}{row}") };
    let (before, after) = text.split_at(end.unwrap_or(index.own.start));
    let gap = if before.ends_with('\n') { "" } else { "\n" };
    format!("{before}{gap}{row}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decision(title: &str, body: &str) -> Decision {
        let (section, title, body) = ("architecture".into(), title.into(), body.into());
        Decision { section, title, body, keywords: vec!["Auth".into(), "a|b".into()] }
    }

    #[test]
    fn what_is_remembered_stands_in_its_section_and_in_the_table() {
        let new = decision("Sessions by JWT", "- 15 minutes\n# not a heading\n```\n# code");
        let text = remember(TEMPLATE, &new).unwrap().unwrap();
        let all = headings(&text);
        let found = all.iter().find(|one| one.title == "Sessions by JWT").unwrap();
        assert_eq!(found.anchor, "architecture/sessions-by-jwt");
        assert_eq!(all.iter().filter(|one| one.level == 3).count(), 1);
        let rows = index_rows(&text);
        assert_eq!(rows[0].1, ["auth", "a b"]);
        assert!(is_meant(&rows[0].2, found));
        assert_eq!(remember(&text, &new).unwrap(), None);
        let other = decision("Sessions by JWT", "other");
        assert!(matches!(remember(&text, &other), Err(Error::Invalid(_))));
        let place = text.find("## patterns").unwrap();
        assert!(text.find("### Sessions").unwrap() < place, "{text}");
    }

    #[test]
    fn a_superseded_decision_stays_and_both_are_linked() {
        let text = remember(TEMPLATE, &decision("Cookies", "- old")).unwrap().unwrap();
        let text = supersede(&text, "cookies", &decision("Tokens", "- new"), "two\nhosts").unwrap();
        let all = headings(&text);
        let of = |title: &str| all.iter().find(|one| one.title == title).unwrap();
        assert_eq!(
            (of("Cookies").status, of("Tokens").status),
            (Status::Superseded, Status::Current)
        );
        assert!(text.contains("`superseded-by: #tokens`\n- old"), "{text}");
        assert!(text.contains("`supersedes: #cookies`\n- new\n- **"), "{text}");
        assert!(text.contains("**: two hosts\n"), "{text}");
        let rows = index_rows(&text);
        assert_eq!((rows.len(), rows[0].2.as_str()), (1, "architecture/tokens"));
        let again = supersede(&text, "Cookies", &decision("Other", ""), "x");
        assert!(matches!(again, Err(Error::Invalid(_))));
        assert!(matches!(supersede(&text, "?", &decision("O", ""), ""), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_heading_in_a_fence_is_none() {
        let all = headings("# a\n```\n# b\n~~~\n```\n#c\n## d\n");
        let titles: Vec<_> = all.iter().map(|one| (one.line, one.title.as_str())).collect();
        assert_eq!(titles, [(1, "a"), (7, "d")]);
    }

    proptest! {
        #[test]
        fn any_file_takes_a_decision(text in "(#{1,3} |```|\\||\n|a|.){0,60}", title in "[a-c ]*") {
            let new = decision(&title, "body");
            if let Ok(Some(out)) = remember(&text, &new) {
                // In a fence that the file leaves open it cannot be seen; nor can anything.
                let open = text.contains("```");
                prop_assert!(open || headings(&out).iter().any(|h| h.anchor == new.anchor()));
                prop_assert!(open || matches!(remember(&out, &new), Ok(None)));
            }
            let _ = supersede(&text, &title, &decision("new", "body"), "r");
            let _ = index_rows(&text);
        }
    }
}
