//! What of a file is searched: its sections, with the words that lead to them.
//! Pure; knows both kinds of files, nothing of the index.

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::recall::index::{Document, DocumentRow};
use crate::recall::text::all_tags;
use crate::recall::{day, notes};
use crate::store::Millis;

/// Characters of a heading that the index keeps.
const HEADING_CHARS_MAX: usize = 200;

/// The sections of a day, and its keywords. `name` ends with the date.
pub(crate) fn of_day(name: &str, text: &str, zone: &TimeZone) -> Vec<Document> {
    let date = name.rsplit('/').next().and_then(|name| name.strip_suffix(".md"));
    let date = date.and_then(|date| date.parse::<Date>().ok());
    let noon = date.and_then(|date| date.at(12, 0, 0, 0).to_zoned(zone.clone()).ok());
    let noon = noon.and_then(|at| u64::try_from(at.timestamp().as_millisecond()).ok());
    let keywords = day::keywords(text);
    let mut found = Vec::new();
    if !keywords.is_empty() {
        let heading = "keywords".to_owned();
        let row = DocumentRow { line: 1, heading, at: noon.map(Millis), ..Default::default() };
        found.push(Document { row, head: keywords.join("\n"), body: String::new() });
    }
    for section in day::sections(text) {
        let at = section.mark.and_then(|mark| mark.at).or(noon.map(Millis));
        let heading: String = section.heading.chars().take(HEADING_CHARS_MAX).collect();
        let row = DocumentRow {
            line: section.line,
            heading,
            tags: section.tags,
            at,
            ..Default::default()
        };
        found.push(Document { row, head: String::new(), body: section.body });
    }
    found
}

/// The decisions, each found by its title, its place and its keywords.
pub(crate) fn of_notes(text: &str) -> Vec<Document> {
    let rows = notes::index_rows(text);
    let mut found = Vec::new();
    for heading in notes::headings(text) {
        let own = text.get(heading.own.clone()).unwrap_or("");
        let is_table = !notes::index_rows(own).is_empty();
        if heading.level < 2 || is_table || own.trim().is_empty() {
            continue;
        }
        let mut head = vec![heading.title.clone(), heading.anchor.replace('/', " ")];
        for (_, words, anchor) in &rows {
            if notes::is_meant(anchor, &heading) {
                head.extend(words.iter().cloned());
            }
        }
        let heading_text: String = heading.title.chars().take(HEADING_CHARS_MAX).collect();
        let row = DocumentRow {
            line: heading.line,
            heading: heading_text,
            tags: all_tags(own),
            status: heading.status,
            ..Default::default()
        };
        found.push(Document { row, head: head.join("\n"), body: own.to_owned() });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_lead_to_their_section_and_the_table_is_none() {
        let text =
            "# M\n## index\n| w | s |\n|--|--|\n| jwt | #tokens |\n\n## a/\n### Tokens\nbody\n";
        let found = of_notes(text);
        let heads: Vec<_> = found.iter().map(|one| (one.row.line, one.head.as_str())).collect();
        assert_eq!(heads, [(8, "Tokens\na tokens\njwt")]);
        let day = "---\nkeywords: [\"k\"]\n---\n## [10:00] User\nhello\n`#tags: t`\n";
        let found = of_day("x/2026-02-04.md", day, &TimeZone::UTC);
        assert_eq!((found.len(), found[0].head.as_str()), (2, "k"));
        assert_eq!(found[1].row.tags, ["t"]);
        assert_eq!(found[1].row.at, Some(Millis(1_770_206_400_000)));
    }
}
