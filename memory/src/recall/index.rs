//! The keyword index: terms to sections, kept in a store, made again from the files at any time.
//! Knows sections and terms; how they are scored, `search` says.
//!
//! Rows: `f` and a file's name, what the file was when it was read and its sections; `t`, a term
//! and a file's name, where the term stands in it. A file's row is written before its terms, marked
//! as unfinished, and again after them: what was interrupted is done anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::Schema;
use crate::error::{Error, Result};
use crate::keys;
use crate::recall::files::Stamp;
use crate::recall::notes::Status;
use crate::recall::terms::{Word, words};
use crate::store::{Batch, Millis, Ns, Scan, Store, StoreExt, Ttl};

/// Which fields a term stands in: tags, heading and keywords, text.
pub(crate) const FIELD_COUNT: usize = 3;
/// Rows of one commit.
const BATCH_ROWS: usize = 4000;

/// How a term came from its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Exact,
    Stem,
    Pair,
}

impl Kind {
    fn term(self, text: &str) -> String {
        let mark = match self {
            Self::Exact => 'w',
            Self::Stem => 's',
            Self::Pair => 'p',
        };
        format!("{mark}{text}")
    }
}

/// A section of a file, with the texts that are searched.
#[derive(Debug, Clone, Default)]
pub(crate) struct Document {
    pub row: DocumentRow,
    /// Heading and keywords.
    pub head: String,
    pub body: String,
}

/// What the index keeps of a section.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct DocumentRow {
    pub line: usize,
    pub heading: String,
    pub tags: Vec<String>,
    pub status: Status,
    pub at: Option<Millis>,
    /// Words by field.
    #[serde(default)]
    pub lens: [u32; FIELD_COUNT],
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct FileRow {
    len: u64,
    modified_ns: u64,
    #[serde(default)]
    inode: u64,
    /// Whether all of its terms are written.
    done: bool,
    documents: Vec<DocumentRow>,
    terms: BTreeSet<String>,
}

/// Where a term stands in a section.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Posting {
    pub document: u32,
    pub counts: [u32; FIELD_COUNT],
    /// For pairs: in which words of the section.
    pub runs: Vec<u32>,
}

/// A file as the index has it, without its terms.
#[derive(Debug, Clone)]
pub(crate) struct Indexed {
    pub stamp: Stamp,
    pub documents: Vec<DocumentRow>,
}

/// The index of a project. `files` is what is kept in memory.
#[derive(Debug)]
pub(crate) struct Index {
    ns: Ns,
    pub files: BTreeMap<String, Indexed>,
    loaded: bool,
}

impl Index {
    pub(crate) fn new(ns: Ns) -> Self {
        Self { ns, files: BTreeMap::new(), loaded: false }
    }

    /// Reads what the store has of files, once.
    pub(crate) fn load(&mut self, store: &Arc<dyn Store>) -> Result<()> {
        if self.loaded {
            return Ok(());
        }
        let scan = Scan { limit: usize::MAX, ..Scan::prefix(b"f") };
        let files = &mut self.files;
        store.walk(&self.ns, scan, |key, entry| {
            // A row that cannot be read is that of a file that was never read.
            let row: FileRow = Schema::default().decode(&entry.value).unwrap_or_default();
            let name = String::from_utf8_lossy(key.get(1..).unwrap_or(&[])).into_owned();
            let stamp = if row.done {
                Stamp { len: row.len, modified_ns: row.modified_ns, inode: row.inode }
            } else {
                Stamp::default()
            };
            files.insert(name, Indexed { stamp, documents: row.documents });
            Ok(true)
        })?;
        self.loaded = true;
        Ok(())
    }

    /// Forgets everything, so that all files are read again.
    pub(crate) fn clear(&mut self, store: &Arc<dyn Store>) -> Result<()> {
        self.files.clear();
        self.loaded = true;
        loop {
            let rows = store.scan(&self.ns, Scan::all().limit(BATCH_ROWS))?;
            if rows.is_empty() {
                return Ok(());
            }
            let delete = |batch: Batch, (key, _): (Bytes, _)| batch.delete(key);
            store.commit(rows.into_iter().fold(Batch::new(&self.ns), delete))?;
        }
    }

    /// Replaces what the index has of a file; no documents take it out.
    pub(crate) fn put(
        &mut self,
        store: &Arc<dyn Store>,
        name: &str,
        stamp: Stamp,
        documents: Vec<Document>,
    ) -> Result<()> {
        let (postings, documents) = terms_of(documents);
        let stored = store.get(&self.ns, &file_key(name))?;
        let old: FileRow = stored
            .and_then(|entry| Schema::default().decode(&entry.value).ok())
            .unwrap_or_default();
        let mut row =
            FileRow { len: stamp.len, modified_ns: stamp.modified_ns, inode: stamp.inode, ..old };
        let gone: Vec<String> =
            row.terms.iter().filter(|term| !postings.contains_key(*term)).cloned().collect();
        row.done = false;
        row.terms.extend(postings.keys().cloned());
        self.put_row(store, name, &row)?;
        let mut batch = Batch::new(&self.ns);
        for term in gone {
            batch = self.flush(store, batch.delete(posting_key(&term, name)))?;
            row.terms.remove(&term);
        }
        for (term, postings) in postings {
            let value = encode(&postings);
            batch = self.flush(store, batch.put(posting_key(&term, name), value, Ttl::Never))?;
        }
        store.commit(batch)?;
        if documents.is_empty() && stamp == Stamp::default() {
            store.delete(&self.ns, file_key(name))?;
            self.files.remove(name);
            return Ok(());
        }
        (row.done, row.documents) = (true, documents);
        self.put_row(store, name, &row)?;
        self.files.insert(name.to_owned(), Indexed { stamp, documents: row.documents });
        Ok(())
    }

    fn put_row(&self, store: &Arc<dyn Store>, name: &str, row: &FileRow) -> Result<()> {
        let value = Schema::default().encode(row)?;
        store.put(&self.ns, file_key(name), value, Ttl::Never).map(|_| ())
    }

    fn flush(&self, store: &Arc<dyn Store>, batch: Batch) -> Result<Batch> {
        if batch.ops.len() < BATCH_ROWS {
            return Ok(batch);
        }
        store.commit(batch)?;
        Ok(Batch::new(&self.ns))
    }

    /// Where a term stands: by file.
    pub(crate) fn find(
        &self,
        store: &Arc<dyn Store>,
        kind: Kind,
        text: &str,
    ) -> Result<Vec<(String, Posting)>> {
        let mut prefix = vec![b't'];
        keys::push(&mut prefix, kind.term(text).as_bytes());
        let mut found = Vec::new();
        let scan = Scan { limit: usize::MAX, ..Scan::prefix(&prefix) };
        store.walk(&self.ns, scan, |key, entry| {
            let name = String::from_utf8_lossy(key.get(prefix.len()..).unwrap_or(&[])).into_owned();
            let known = self.files.get(&name).map_or(0, |file| file.documents.len());
            for posting in decode(&entry.value)? {
                if (posting.document as usize) < known {
                    found.push((name.clone(), posting));
                }
            }
            Ok(true)
        })?;
        Ok(found)
    }
}

fn file_key(name: &str) -> Vec<u8> {
    [b"f", name.as_bytes()].concat()
}

fn posting_key(term: &str, name: &str) -> Vec<u8> {
    let mut key = vec![b't'];
    keys::push(&mut key, term.as_bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

type Postings = BTreeMap<String, Vec<Posting>>;

/// All terms of a file's sections.
fn terms_of(documents: Vec<Document>) -> (Postings, Vec<DocumentRow>) {
    let (mut postings, mut rows) = (Postings::new(), Vec::new());
    for (i, Document { mut row, head, body }) in documents.into_iter().enumerate() {
        let document = u32::try_from(i).unwrap_or(u32::MAX);
        let tags = row.tags.join("\n");
        let mut run = 0;
        for (field, text) in [tags.as_str(), head.as_str(), body.as_str()].into_iter().enumerate() {
            let found = words(text);
            if let Some(len) = row.lens.get_mut(field) {
                *len = u32::try_from(found.len()).unwrap_or(u32::MAX);
            }
            for word in found {
                run += 1;
                each_term(&word, |kind, text| {
                    let list = postings.entry(kind.term(text)).or_default();
                    if list.last().is_none_or(|last| last.document != document) {
                        list.push(Posting { document, ..Posting::default() });
                    }
                    let Some(last) = list.last_mut() else { return };
                    if let Some(count) = last.counts.get_mut(field) {
                        *count += 1;
                    }
                    if kind == Kind::Pair && last.runs.last() != Some(&run) {
                        last.runs.push(run);
                    }
                });
            }
        }
        rows.push(row);
    }
    (postings, rows)
}

fn each_term(word: &Word, mut each: impl FnMut(Kind, &str)) {
    each(Kind::Exact, &word.whole);
    each(Kind::Stem, word.stem());
    for piece in &word.pieces {
        each(Kind::Exact, piece);
        each(Kind::Stem, crate::recall::terms::stem(word.script, piece));
    }
    let pairs: BTreeSet<String> = word.pairs().into_iter().collect();
    for pair in &pairs {
        each(Kind::Pair, pair);
    }
}

/// Postings as numbers of seven bits a byte, the least first.
fn encode(postings: &[Posting]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut last = 0;
    for posting in postings {
        push(&mut out, posting.document - last);
        last = posting.document;
        posting.counts.iter().for_each(|count| push(&mut out, *count));
        push(&mut out, u32::try_from(posting.runs.len()).unwrap_or(u32::MAX));
        let mut last_run = 0;
        for run in &posting.runs {
            push(&mut out, run - last_run);
            last_run = *run;
        }
    }
    out
}

fn push(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7F).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

fn decode(mut bytes: &[u8]) -> Result<Vec<Posting>> {
    let (mut found, mut document) = (Vec::new(), 0_u32);
    while !bytes.is_empty() {
        document = document.saturating_add(pull(&mut bytes)?);
        let mut posting = Posting { document, ..Posting::default() };
        for count in &mut posting.counts {
            *count = pull(&mut bytes)?;
        }
        let runs = pull(&mut bytes)?;
        let mut run = 0_u32;
        for _ in 0..runs {
            run = run.saturating_add(pull(&mut bytes)?);
            posting.runs.push(run);
        }
        found.push(posting);
    }
    Ok(found)
}

fn pull(bytes: &mut &[u8]) -> Result<u32> {
    let mut number = 0_u32;
    for shift in (0..35).step_by(7) {
        let (first, rest) = bytes
            .split_first()
            .ok_or_else(|| Error::corrupt("postings", "a number that does not end"))?;
        *bytes = rest;
        number |= u32::from(first & 0x7F).checked_shl(shift).unwrap_or(0);
        if first & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Error::corrupt("postings", "a number of more than 32 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemStore;
    use proptest::prelude::*;

    fn document(body: &str) -> Document {
        Document { body: body.to_owned(), ..Document::default() }
    }

    #[test]
    fn a_file_that_changed_leaves_no_term_behind() {
        let store: Arc<dyn Store> = Arc::new(MemStore::new());
        let ns = Ns::new("i").unwrap();
        let mut index = Index::new(ns.clone());
        let stamp = Stamp { len: 1, modified_ns: 1, inode: 1 };
        index.put(&store, "a", stamp, vec![document("old words"), document("hooks")]).unwrap();
        index.put(&store, "b", stamp, vec![document("words")]).unwrap();
        assert_eq!(index.find(&store, Kind::Exact, "words").unwrap().len(), 2);
        assert_eq!(index.find(&store, Kind::Stem, "hook").unwrap()[0].1.document, 1);
        index.put(&store, "a", stamp, vec![document("new words")]).unwrap();
        assert_eq!(index.find(&store, Kind::Exact, "old").unwrap(), []);
        index.put(&store, "a", Stamp::default(), Vec::new()).unwrap();
        index.put(&store, "b", Stamp::default(), Vec::new()).unwrap();
        assert_eq!(store.scan(&ns, Scan::all()).unwrap(), []);
        index.put(&store, "c", stamp, vec![document("x")]).unwrap();
        let mut other = Index::new(ns);
        other.load(&store).unwrap();
        assert_eq!(other.files["c"].stamp, stamp);
        other.clear(&store).unwrap();
        assert_eq!(other.find(&store, Kind::Exact, "x").unwrap(), []);
    }

    proptest! {
        #[test]
        fn postings_come_back_and_any_bytes_never_panic(
            numbers in proptest::collection::vec(any::<u32>(), 1..6),
            bytes in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut sorted = numbers.clone();
            sorted.sort_unstable();
            sorted.dedup();
            let posting = |document: &u32| {
                Posting { document: *document, counts: [1, 2, *document], runs: sorted.clone() }
            };
            let postings: Vec<Posting> = sorted.iter().map(posting).collect();
            prop_assert_eq!(decode(&encode(&postings)).unwrap(), postings);
            let _ = decode(&bytes);
        }
    }
}
