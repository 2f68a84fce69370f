//! Long-term memory of a project: Markdown files that people read, and an index made from them.
//!
//! `MEMORY.md` holds decisions, `.claude/conversations/` one file a day of what was said. The files
//! are the truth: they can be edited by hand, tracked by git, and copied. The index is made from
//! them and can be thrown away. Nothing here asks a model.

mod audit;
mod day;
mod documents;
pub(crate) mod files;
mod index;
mod notes;
mod redact;
mod search;
mod synonyms;
mod terms;
mod text;
mod wrap_up;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use jiff::civil::Date;
pub use jiff::tz::TimeZone;
use parking_lot::Mutex;

use crate::clock::{Clock, Millis};
use crate::conversation::Role;
use crate::error::{Error, Result};
pub use crate::recall::audit::{Audit, Finding, FindingKind};
pub(crate) use crate::recall::day::NOT_CAPTURED;
use crate::recall::day::{Mark, Section};
use crate::recall::files::{Locked, Stamp};
use crate::recall::index::{Document, Index};
pub use crate::recall::notes::{Decision, Status};
pub use crate::recall::search::SearchOptions;
pub use crate::recall::synonyms::Synonyms;
pub(crate) use crate::recall::text::fingerprint;
pub use crate::recall::wrap_up::WrapUp;
use crate::store::{MemStore, Ns, Store};

const NOTES: &str = "MEMORY.md";
const FOLDER: &str = ".claude/conversations";
const LOCK: &str = ".claude/conversations/.lock";
const SYNONYMS: &str = ".claude/synonyms.md";
/// How coarse the time of a file may be.
const TICK_MS: u64 = 20;

/// Something that was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The user or the assistant; others are [`Error::Invalid`].
    pub role: Role,
    /// All of it.
    pub text: String,
    /// When. An answer goes to the day of its prompt.
    pub at: Millis,
    /// The session; empty when it is not known.
    pub session: String,
    /// The prompt that this is, or answers; empty when it is not known.
    pub prompt: String,
    /// What the frontmatter of a new day says.
    pub project: String,
}

/// What became of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It stands at the end of its day.
    Appended,
    /// It took the place of an earlier text of the same answer.
    Replaced,
    /// It stood there already.
    Duplicate,
}

/// A section that a search found.
#[derive(Debug, Clone, PartialEq)]
pub struct Recall {
    /// The file, relative to the project.
    pub file: String,
    /// The line of its heading; the first is 1.
    pub line: usize,
    /// Its heading.
    pub heading: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// How well it fits; comparable within one search.
    pub score: f64,
    /// What of the question was found: a word, `word*` by syllables, `word -> other` by synonym,
    /// `#tag` by a tag that the best ones share.
    pub matched: Vec<String>,
    /// Whether what it says still holds.
    pub status: Status,
    /// What it says.
    pub text: String,
}

/// What the index holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IndexStats {
    /// Files.
    pub files: u64,
    /// Sections of all files.
    pub sections: u64,
    /// Files that were read for this.
    pub read: u64,
}

/// The long-term memory of one project. Clones share the index.
#[derive(Clone)]
pub struct LongTerm {
    root: Arc<Path>,
    store: Arc<dyn Store>,
    index: Arc<Mutex<Index>>,
    synonyms: Arc<Synonyms>,
    clock: Clock,
    zone: TimeZone,
    chars: usize,
}

impl fmt::Debug for LongTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LongTerm({})", self.root.display())
    }
}

impl LongTerm {
    /// The memory of the project in this folder. The index is kept in `index`, or in memory when
    /// there is none; then the first search reads all files.
    pub fn open(project: impl AsRef<Path>, index: Option<Arc<dyn Store>>) -> Result<Self> {
        let root: Arc<Path> = project.as_ref().into();
        let name = format!("{:016x}", fingerprint(&root.to_string_lossy()));
        let ns = Ns::within("recall", &name)?.without_log();
        let mut synonyms = Synonyms::default();
        if let Some(own) = files::read(&root.join(SYNONYMS))? {
            synonyms.add(&own);
        }
        Ok(Self {
            root,
            store: index.unwrap_or_else(|| Arc::new(MemStore::new())),
            index: Arc::new(Mutex::new(Index::new(ns))),
            synonyms: Arc::new(synonyms),
            clock: Clock::system(),
            zone: TimeZone::system(),
            chars: text::TEXT_CHARS,
        })
    }

    /// In this time zone, instead of the system's.
    #[must_use]
    pub fn zone(mut self, zone: TimeZone) -> Self {
        self.zone = zone;
        self
    }

    /// Keeps so many characters of a turn, instead of 500; its tags are kept whatever their place.
    #[must_use]
    pub fn chars(mut self, chars: usize) -> Self {
        self.chars = chars;
        self
    }

    fn lock(&self) -> Result<Locked> {
        files::lock(&self.root.join(LOCK))
    }

    fn day_path(&self, date: Date) -> PathBuf {
        self.root.join(FOLDER).join(format!("{date}.md"))
    }

    /// Writes down what was said, at the end of its day's file. Secrets that have a known shape are
    /// replaced first; the same text of one prompt is written once; a later text of one answer
    /// takes the place of the earlier one that it goes on with.
    ///
    /// Errors: [`Error::Timeout`] when another process holds the lock for three seconds.
    pub fn record(&self, turn: &Turn) -> Result<Recorded> {
        if !matches!(turn.role, Role::User | Role::Assistant) {
            return Err(Error::Invalid("a turn is the user's or the assistant's"));
        }
        let body = text::shape(&turn.text, self.chars);
        let (session, prompt) = (day::plain_id(&turn.session), day::plain_id(&turn.prompt));
        let text = fingerprint(&turn.text);
        let mark = Mark { at: Some(turn.at), session, prompt, text };
        let section = day::render(turn.role, &mark, &self.zone, &body);
        let lock = self.lock()?;
        let (date, found) = self.day_of(turn.role, &mark)?;
        let path = self.day_path(date);
        let Some(found) = found else {
            let begin = day::frontmatter(date, &turn.project);
            files::append(&lock, &path, &(begin + &section))?;
            return Ok(Recorded::Appended);
        };
        let mine = sections_of(&found, turn.role, &mark);
        let has_text = |one: &Section| one.mark.as_ref().is_some_and(|old| old.text == text);
        if mine.iter().any(has_text) {
            return Ok(Recorded::Duplicate);
        }
        let begins = |one: &&Section| one.body == day::NOT_CAPTURED || goes_on(&one.body, &body);
        let old = mine.iter().rev().find(begins).filter(|_| turn.role == Role::Assistant);
        if let Some(old) = old {
            let mut whole = found.clone();
            whole.replace_range(old.bytes.clone(), &section);
            files::replace(&lock, &path, &whole)?;
            return Ok(Recorded::Replaced);
        }

        files::append(&lock, &path, &section)?;
        Ok(Recorded::Appended)
    }

    /// The day that a turn belongs to, and its file. An answer belongs to the day of its prompt,
    /// also when midnight came between.
    fn day_of(&self, role: Role, mark: &Mark) -> Result<(Date, Option<String>)> {
        let today = day::date_of(mark.at.unwrap_or_default(), &self.zone);
        let found = files::read(&self.day_path(today))?;
        let asked = |text: &String| {
            day::sections(text).iter().any(|one| {
                let of = one.mark.as_ref();
                of.is_some_and(|old| old.session == mark.session && old.prompt == mark.prompt)
                    && one.role == Some(Role::User)
            })
        };
        if role == Role::User || found.as_ref().is_some_and(asked) {
            return Ok((today, found));
        }
        let Ok(before) = today.yesterday() else { return Ok((today, found)) };
        match files::read(&self.day_path(before))?.filter(asked) {
            Some(text) => Ok((before, Some(text))),
            None => Ok((today, found)),
        }
    }

    /// The last prompt of this session today or yesterday: its id and the fingerprint of its text,
    /// and whether its answer is missing.
    pub(crate) fn last_prompt(&self, session: &str, now: Millis) -> Result<Option<LastPrompt>> {
        let session = day::plain_id(session);
        let today = day::date_of(now, &self.zone);
        for date in [Some(today), today.yesterday().ok()].into_iter().flatten() {
            let Some(text) = files::read(&self.day_path(date))? else { continue };
            let all = day::sections(&text);
            let of = |one: &&Section| one.mark.as_ref().is_some_and(|mark| mark.session == session);
            let Some(asked) = all.iter().filter(of).rfind(|one| one.role == Some(Role::User))
            else {
                continue;
            };
            let Some(mark) = asked.mark.clone() else { continue };
            let answer = all
                .iter()
                .filter(of)
                .find(|one| one.role == Some(Role::Assistant) && one.line > asked.line);
            let missing = answer.is_some_and(|one| one.body == day::NOT_CAPTURED);
            return Ok(Some(LastPrompt { mark, missing }));
        }
        Ok(None)
    }

    /// The sections that answer a question best, in Korean or English, by the words of either.
    ///
    /// Cost: files that changed since the last search are read; then the rows of the words asked
    /// for and of at most 12 synonyms.
    pub fn search(&self, query: &str, options: SearchOptions) -> Result<Vec<Recall>> {
        let now = self.clock.now();
        let hits = {
            let mut index = self.index.lock();
            self.refresh(&mut index)?;
            search::search(&index, &self.store, &self.synonyms, query, options, now)?
        };
        let mut read: BTreeMap<String, Vec<Document>> = BTreeMap::new();
        let mut found = Vec::with_capacity(hits.len());
        for hit in hits {
            if !read.contains_key(&hit.file) {
                let documents = self.documents(&hit.file)?.unwrap_or_default();
                read.insert(hit.file.clone(), documents);
            }
            // Gone since: somebody rewrites the file just now.
            let documents = read.get(&hit.file);
            let document = documents.and_then(|all| all.get(hit.document as usize));
            let Some(Document { row, body, .. }) = document else {
                continue;
            };
            found.push(Recall {
                file: hit.file,
                line: row.line,
                heading: row.heading.clone(),
                tags: row.tags.clone(),
                score: hit.score,
                matched: hit.matched,
                status: row.status,
                text: body.trim().to_owned(),
            });
        }
        Ok(found)
    }

    /// The files of the memory, relative to the project.
    fn names(&self) -> Result<Vec<String>> {
        let days = files::markdown_in(&self.root.join(FOLDER))?;
        let mut names: Vec<String> = days.iter().map(|name| format!("{FOLDER}/{name}")).collect();
        if files::stamp(&self.root.join(NOTES))?.is_some() {
            names.push(NOTES.to_owned());
        }
        Ok(names)
    }

    /// Reads what changed; answers how many files that were.
    fn refresh(&self, index: &mut Index) -> Result<u64> {
        index.load(&self.store)?;
        let names = self.names()?;
        let mut read = 0;
        let gone = index.files.keys().filter(|name| !names.contains(name));
        for name in gone.cloned().collect::<Vec<_>>() {
            index.put(&self.store, &name, Stamp::default(), Vec::new())?;
        }
        for name in names {
            let Some(stamp) = files::stamp(&self.root.join(&name))? else { continue };
            if index.files.get(&name).is_some_and(|known| known.stamp == stamp) {
                continue;
            }
            let Some(documents) = self.documents(&name)? else { continue };
            // A file that was changed just now may change again within the same tick of its clock.
            let settled = stamp.modified_ns / 1_000_000 + TICK_MS < self.clock.now().0;
            let modified_ns = if settled { stamp.modified_ns } else { 0 };
            index.put(&self.store, &name, Stamp { modified_ns, ..stamp }, documents)?;
            read += 1;
        }
        Ok(read)
    }

    fn documents(&self, name: &str) -> Result<Option<Vec<Document>>> {
        let Some(text) = files::read(&self.root.join(name))? else { return Ok(None) };
        Ok(Some(if name == NOTES {
            documents::of_notes(&text)
        } else {
            documents::of_day(name, &text, &self.zone)
        }))
    }

    /// Adds a decision to `MEMORY.md`, and what it is found by to the table in front. The same one
    /// twice is one.
    ///
    /// Errors: [`Error::Invalid`] when the section has a decision of this title that says something
    /// else; supersede it.
    pub fn remember(
        &self,
        section: &str,
        title: &str,
        body: &str,
        keywords: &[&str],
    ) -> Result<()> {
        let keywords = keywords.iter().map(|&word| word.to_owned()).collect();
        let (section, title, body) = (section.to_owned(), title.to_owned(), body.to_owned());
        self.remember_decision(&Decision { section, title, body, keywords })
    }

    pub(crate) fn remember_decision(&self, new: &Decision) -> Result<()> {
        let new = clean(new);
        self.change_notes(|text| notes::remember(text, &new))
    }

    /// Marks a decision as replaced by a new one, and links both. Nothing is deleted; the keywords
    /// of the old one lead to the new one.
    ///
    /// Errors: [`Error::Invalid`] when there is no decision of the old title, when it was replaced
    /// already, or when there is one of the new title.
    #[expect(clippy::needless_pass_by_value, reason = "the signature is the contract")]
    pub fn supersede(&self, old: &str, new: Decision, reason: &str) -> Result<()> {
        let (new, (reason, _)) = (clean(&new), redact::redact(reason));
        self.change_notes(|text| notes::supersede(text, old, &new, &reason).map(Some))
    }

    fn change_notes(&self, change: impl FnOnce(&str) -> Result<Option<String>>) -> Result<()> {
        let path = self.root.join(NOTES);
        let lock = self.lock()?;
        let text = files::read(&path)?.filter(|text| !text.trim().is_empty());
        let text = text.unwrap_or_else(|| notes::TEMPLATE.to_owned());
        match change(&text)? {
            Some(new) => files::replace(&lock, &path, &new),
            None => Ok(()),
        }
    }

    /// Ends a day: its keywords go into the frontmatter, and with `notes` what was done, decided
    /// and is next into a section of its own; decisions are remembered. Without `notes` the files
    /// say what was done: the first line of every prompt. Done twice, the second counts.
    pub fn wrap_up(&self, day: Date, notes: Option<WrapUp>) -> Result<WrapUp> {
        for decision in notes.iter().flat_map(|notes| &notes.decisions) {
            self.remember_decision(decision)?;
        }
        let path = self.day_path(day);
        let lock = self.lock()?;
        let text = files::read(&path)?.unwrap_or_default();
        if text.is_empty() && notes.is_none() {
            return Ok(WrapUp::default());
        }
        let (result, new) = wrap_up::wrap_up(&text, day, notes, self.clock.now());
        if new != text {
            files::replace(&lock, &path, &new)?;
        }
        Ok(result)
    }

    /// What the search takes for the same word.
    pub fn synonyms(&self) -> &Synonyms {
        &self.synonyms
    }

    /// Throws the index away and makes it from the files.
    pub fn reindex(&self) -> Result<IndexStats> {
        let mut index = self.index.lock();
        index.clear(&self.store)?;
        let read = self.refresh(&mut index)?;
        let sections = index.files.values().map(|file| file.documents.len() as u64).sum();
        Ok(IndexStats { files: index.files.len() as u64, sections, read })
    }

    /// Looks for repeats, secrets, dead links, and what costs every session. Changes nothing.
    pub fn audit(&self) -> Result<Audit> {
        let mut auditor = audit::Auditor::default();
        for name in self.names()? {
            let Some(text) = files::read(&self.root.join(&name))? else { continue };
            if name == NOTES {
                auditor.notes(&name, &text);
            } else {
                auditor.day(&name, &text);
            }
        }
        Ok(auditor.end())
    }
}

/// The last thing that a user asked in a session.
#[derive(Debug, Clone)]
pub(crate) struct LastPrompt {
    pub mark: Mark,
    /// Whether a mark stands where its answer should.
    pub missing: bool,
}

/// The sections of the same prompt and role; without an id of the prompt, those behind the last
/// prompt of the session.
fn sections_of(text: &str, role: Role, mark: &Mark) -> Vec<Section> {
    let mut mine = Vec::new();
    for section in day::sections(text) {
        let Some(old) = section.mark.as_ref().filter(|old| old.session == mark.session) else {
            continue;
        };
        if mark.prompt.is_empty() && section.role == Some(Role::User) {
            // A prompt without an id is a new one: nothing before it is its repeat.
            mine.clear();
            continue;
        }
        if section.role == Some(role) && old.prompt == mark.prompt {
            mine.push(section);
        }
    }
    mine
}

/// Whether a text goes on where an earlier one ended.
fn goes_on(old: &str, new: &str) -> bool {
    let old = old.split("\n\n`#tags:").next().unwrap_or(old).trim_end_matches('\u{2026}').trim();
    !old.is_empty() && new.starts_with(old)
}

fn clean(decision: &Decision) -> Decision {
    let plain = |text: &String| redact::redact(text).0;
    Decision {
        section: plain(&decision.section),
        title: plain(&decision.title),
        body: plain(&decision.body),
        keywords: decision.keywords.iter().map(plain).collect(),
    }
}

#[cfg(test)]
#[path = "recall_tests.rs"]
mod tests;
