//! What is wrong with the files of a long-term memory, without changing them.
//! Pure over texts; reads no file.

use std::collections::BTreeMap;

use crate::recall::day;
use crate::recall::notes::{self, Status};
use crate::recall::redact::redact;
use crate::recall::text::fingerprint;

/// What the agent reads in full with every session: more lines or bytes of it cost every answer.
const NOTES_LINES_MAX: usize = 200;
const NOTES_LEN_MAX: usize = 25 << 10;
/// Shorter texts are alike without being repeats.
const REPEAT_LEN_MIN: usize = 40;

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// The same text stands elsewhere.
    Repeat,
    /// A secret by its shape.
    Secret,
    /// A link to a decision that was superseded.
    CitesSuperseded,
    /// A link to nothing.
    DeadLink,
    /// `MEMORY.md` is longer than what an agent should read every time.
    TooLong,
    /// A frontmatter that does not end.
    Frontmatter,
    /// An answer that was never captured.
    NotCaptured,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind.
    pub kind: FindingKind,
    /// The file, relative to the project.
    pub file: String,
    /// The line; the first is 1.
    pub line: usize,
    /// What stands there; never a secret.
    pub detail: String,
}

/// What an audit found, by file and line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audit {
    /// Files that were read.
    pub files: usize,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Collects findings file by file.
#[derive(Default)]
pub(crate) struct Auditor {
    audit: Audit,
    texts: BTreeMap<u64, (String, usize)>,
}

impl Auditor {
    fn find(&mut self, kind: FindingKind, file: &str, line: usize, detail: impl Into<String>) {
        let detail = detail.into();
        self.audit.findings.push(Finding { kind, file: file.to_owned(), line, detail });
    }

    fn begin(&mut self, file: &str, text: &str) {
        self.audit.files += 1;
        for (i, line) in text.lines().enumerate() {
            let (shown, count) = redact(line);
            if count > 0 {
                let shown: String = shown.chars().take(80).collect();
                self.find(FindingKind::Secret, file, i + 1, shown);
            }
        }
    }

    fn repeat(&mut self, file: &str, line: usize, text: &str) {
        if text.trim().len() < REPEAT_LEN_MIN {
            return;
        }
        let first = self.texts.entry(fingerprint(text)).or_insert((file.to_owned(), line));
        if (first.0.as_str(), first.1) != (file, line) {
            let detail = format!("the same as {} line {}", first.0, first.1);
            self.find(FindingKind::Repeat, file, line, detail);
        }
    }

    pub(crate) fn day(&mut self, file: &str, text: &str) {
        self.begin(file, text);
        let begins = text.lines().next().is_some_and(|line| line.trim_end() == "---");
        if begins && day::split_frontmatter(text).is_none() {
            self.find(FindingKind::Frontmatter, file, 1, "the frontmatter does not end");
        }
        for section in day::sections(text) {
            self.repeat(file, section.line, &section.body);
            if section.body.trim() == day::NOT_CAPTURED {
                self.find(FindingKind::NotCaptured, file, section.line, section.heading);
            }
        }
    }

    pub(crate) fn notes(&mut self, file: &str, text: &str) {
        self.begin(file, text);
        let lines = text.lines().count();
        if lines > NOTES_LINES_MAX || text.len() > NOTES_LEN_MAX {
            let detail = format!("{lines} lines and {} bytes are read every time", text.len());
            self.find(FindingKind::TooLong, file, 1, detail);
        }
        let headings = notes::headings(text);
        for heading in &headings {
            self.repeat(file, heading.line, text.get(heading.own.clone()).unwrap_or(""));
        }
        for (line, words, anchor) in notes::index_rows(text) {
            let meant = headings.iter().find(|heading| notes::is_meant(&anchor, heading));
            let detail = format!("#{anchor} for {}", words.join(", "));
            match meant.map(|heading| heading.status) {
                None => self.find(FindingKind::DeadLink, file, line, detail),
                Some(Status::Superseded) => {
                    self.find(FindingKind::CitesSuperseded, file, line, detail);
                }
                Some(_) => {}
            }
        }
        for (i, line) in text.lines().enumerate() {
            let inner = line.trim().trim_matches('`');
            let mut link = ["supersedes:", "superseded-by:"].into_iter();
            let link = link.find_map(|name| inner.strip_prefix(name));
            let Some(link) = link.map(str::trim) else { continue };
            if !headings.iter().any(|heading| notes::is_meant(link, heading)) {
                self.find(FindingKind::DeadLink, file, i + 1, link);
            }
        }
    }

    pub(crate) fn end(mut self) -> Audit {
        self.audit.findings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        self.audit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_fault_is_found_where_it_is() {
        let mut auditor = Auditor::default();
        let repeated = "this text is long enough to be called a repeat of another";
        let secret = format!("password={}", "hunter22");
        let notes = format!(
            "# M\n| a | #gone |\n| b | #old |\n## s\n### old \u{274c} SUPERSEDED\n\
             `superseded-by: #nowhere`\n{repeated}\n{secret}\n{}",
            "x\n".repeat(200)
        );
        auditor.notes("MEMORY.md", &notes);
        let day = format!("---\nnever\n## [10:00] User\n{repeated}\n## [10:01] User\n{repeated}\n");
        auditor.day("d.md", &(day + "## [10:02] Assistant\n" + day::NOT_CAPTURED + "\n"));
        let audit = auditor.end();
        let found: Vec<_> = audit.findings.iter().map(|one| (one.kind, one.line)).collect();
        use FindingKind::*;
        assert_eq!(
            found,
            [
                (TooLong, 1),
                (DeadLink, 2),
                (CitesSuperseded, 3),
                (DeadLink, 6),
                (Secret, 8),
                (Frontmatter, 1),
                (Repeat, 5),
                (NotCaptured, 7),
            ]
        );
        assert!(!audit.findings.iter().any(|one| one.detail.contains("hunter")));
    }
}
