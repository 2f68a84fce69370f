//! The end of a day: keywords by counting, and a section of what was done, decided and is next.
//! Pure; asks nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::conversation::Role;
use crate::recall::day::{self, Section, WRAP_UP};
use crate::recall::notes::{Decision, slug};
use crate::recall::redact::redact;
use crate::recall::terms::words;
use crate::store::Millis;

const KEYWORDS_MAX: usize = 20;
/// Prompts that are listed, and characters of each.
const DONE_MAX: usize = 50;
const LINE_CHARS_MAX: usize = 120;
/// A tag counts as much as so many words.
const TAG_WEIGHT: u64 = 5;
/// Words that stand once in a day say little of it.
const COUNT_MIN: u64 = 3;

/// What a day was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WrapUp {
    /// What the day is found by.
    pub keywords: Vec<String>,
    /// What was done.
    pub done: Vec<String>,
    /// What was decided; remembered in `MEMORY.md`.
    pub decisions: Vec<Decision>,
    /// What is next.
    pub next: Vec<String>,
}

/// What the day was, and its file with it.
pub(crate) fn wrap_up(
    text: &str,
    date: Date,
    notes: Option<WrapUp>,
    now: Millis,
) -> (WrapUp, String) {
    let sections = day::sections(text);
    let mut keywords = day::keywords(text);
    let given = notes.iter().flat_map(|notes| notes.keywords.clone());
    for word in given.chain(counted(&sections)) {
        let word = redact(word.trim()).0.to_lowercase();
        if !word.is_empty() && !keywords.contains(&word) && keywords.len() < KEYWORDS_MAX {
            keywords.push(word);
        }
    }
    let Some(notes) = notes else {
        let new = day::with_keywords(text, &keywords, date);
        let result = WrapUp { keywords, done: requests(&sections), ..WrapUp::default() };
        return (result, new);
    };
    let mut new = text.to_owned();
    for old in sections.iter().rev().filter(|one| one.heading.starts_with(&heading_of(""))) {
        new.replace_range(old.bytes.clone(), "");
    }
    if !new.is_empty() && !new.ends_with('\n') {
        new.push('\n');
    }
    new.push_str(&render(&notes, date, now));
    let new = day::with_keywords(&new, &keywords, date);
    (WrapUp { keywords, ..notes }, new)
}

fn heading_of(date: &str) -> String {
    format!("[{WRAP_UP}] {date}")
}

fn render(notes: &WrapUp, date: Date, now: Millis) -> String {
    let ms = i64::try_from(now.0).unwrap_or(0);
    let at = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
    let at = at.to_zoned(TimeZone::UTC).timestamp();
    let mut out = format!("## {}\n<!-- at={at} -->\n", heading_of(&date.to_string()));
    let link = |one: &Decision| format!("{} (#{})", one.title, slug(&one.title));
    let decided: Vec<String> = notes.decisions.iter().map(link).collect();
    for (name, lines) in [("Done", &notes.done), ("Decisions", &decided), ("Next", &notes.next)] {
        if lines.is_empty() {
            continue;
        }
        let _ = writeln!(out, "### {name}");
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            let _ = writeln!(out, "- {}", redact(&words.join(" ")).0);
        }
    }
    out.push('\n');
    out
}

/// The first line of every prompt.
fn requests(sections: &[Section]) -> Vec<String> {
    let asked = sections.iter().filter(|one| one.role == Some(Role::User));
    let first = asked.filter_map(|one| one.body.lines().find(|line| !line.trim().is_empty()));
    first.map(|line| line.trim().chars().take(LINE_CHARS_MAX).collect()).take(DONE_MAX).collect()
}

/// Tags and words by how often they stand there; equal ones in the order of the alphabet.
fn counted(sections: &[Section]) -> Vec<String> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for section in sections.iter().filter(|one| one.role.is_some()) {
        let tags: BTreeSet<&String> = section.tags.iter().collect();
        for tag in &tags {
            *counts.entry((*tag).clone()).or_default() += TAG_WEIGHT;
        }
        let text = section.body.lines().filter(|line| !line.contains("#tags:"));
        for word in text.flat_map(words).filter(|word| !word.is_stopword()) {
            let is_number = word.whole.chars().all(|letter| !letter.is_alphabetic());
            let stem = if word.pairs().is_empty() { &word.whole } else { word.stem() };
            if !is_number && stem.chars().nth(1).is_some() {
                *counts.entry(stem.to_owned()).or_default() += 1;
            }
        }
    }
    counts.retain(|_, count| *count >= COUNT_MIN);
    let mut found: Vec<(String, u64)> = counts.into_iter().collect();
    found.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    found.into_iter().map(|(word, _)| word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: &str = "---\ndate: 2026-02-04\nkeywords: [\"mine\"]\n---\n\n\
        ## [10:30] User\nWrite the parser\n\n\
        ## [10:35] Assistant\nThe parser is a parser of jsonl; parser.\n\n`#tags: stop-hook`\n\n";

    #[test]
    fn keywords_are_counted_and_the_same_day_gives_the_same() {
        let date = jiff::civil::date(2026, 2, 4);
        let (result, new) = wrap_up(DAY, date, None, Millis(0));
        assert_eq!(result.keywords, ["mine", "stop-hook", "parser"]);
        assert_eq!(result.done, ["Write the parser"]);
        assert_eq!(wrap_up(&new, date, None, Millis(0)), (result, new));
    }

    #[test]
    fn a_second_wrap_up_takes_the_place_of_the_first() {
        let date = jiff::civil::date(2026, 2, 4);
        let notes = |next: &str| {
            let next = vec![next.to_owned()];
            Some(WrapUp { next, done: vec!["a\n## [x".into()], ..WrapUp::default() })
        };
        let (_, once) = wrap_up(DAY, date, notes("one"), Millis(0));
        let (_, twice) = wrap_up(&once, date, notes("two"), Millis(0));
        assert!(twice.ends_with("### Done\n- a ## [x\n### Next\n- two\n\n"), "{twice}");
        assert_eq!(twice.matches("[Wrap-up]").count(), 1);
        assert_eq!(day::sections(&twice).len(), 3);
    }
}
