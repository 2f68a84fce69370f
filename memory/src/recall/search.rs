//! A question to sections: exact words, then stems and syllables, then synonyms, then once more the
//! tags that the best ones share.
//! Knows terms and figures; reads no file.
//!
//! Scores are BM25F (Robertson, Zaragoza and Taylor, "Simple BM25 extension to multiple weighted
//! fields", 2004): counts of a term are weighted by field and length before they saturate. A word
//! of the question counts once, by the best of its variants.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::Result;
use crate::recall::index::{FIELD_COUNT, Index, Kind, Posting};
use crate::recall::notes::Status;
use crate::recall::synonyms::Synonyms;
use crate::recall::terms::{Word, pairs, words};
use crate::store::{Millis, Store};

/// Weights of tags, heading, text; how much length counts in each; where counts saturate.
const WEIGHTS: [f64; FIELD_COUNT] = [4.0, 2.5, 1.0];
const LENGTH: [f64; FIELD_COUNT] = [0.2, 0.3, 0.75];
const SATURATION: f64 = 1.2;

const EXACT: f64 = 1.0;
const STEM: f64 = 0.9;
const SYNONYM: f64 = 0.6;
const PIECE: f64 = 0.5;
const PAIRS: f64 = 0.5;
const SHARED_TAG: f64 = 0.2;
const SUPERSEDED: f64 = 0.3;
/// What is new counts so much more; half of it after this time.
const RECENT: f64 = 0.2;
const RECENT_HALF_DAYS: f64 = 30.0;

/// Words of a question, synonyms in all, tags that a follow-up takes: what is more is left out.
const WORDS_MAX: usize = 32;
const SYNONYMS_MAX: usize = 12;
const FOLLOW_TAGS: usize = 4;
const FOLLOW_HITS: usize = 3;

/// How a search goes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchOptions {
    /// At most so many sections.
    pub limit: usize,
    /// 1: exact words; 2: stems and syllables too; 3: synonyms too.
    pub rounds: u8,
    /// Whether places that are left are filled by the tags that the best sections share.
    pub follow_up: bool,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self { limit: 10, rounds: 3, follow_up: true }
    }
}

/// A section that was found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hit {
    pub file: String,
    pub document: u32,
    pub score: f64,
    pub matched: Vec<String>,
}

type Place = (String, u32);
type Best = BTreeMap<Place, (f64, String)>;

/// A search over one state of the index.
struct Search<'s> {
    index: &'s Index,
    store: &'s Arc<dyn Store>,
    documents: f64,
    average: [f64; FIELD_COUNT],
}

#[expect(clippy::cast_precision_loss, reason = "figures of a ranking")]
fn float(number: u64) -> f64 {
    number as f64
}

/// The best sections, the best first.
pub(crate) fn search(
    index: &Index,
    store: &Arc<dyn Store>,
    synonyms: &Synonyms,
    query: &str,
    options: SearchOptions,
    now: Millis,
) -> Result<Vec<Hit>> {
    let this = Search::new(index, store);
    let mut asked = words(query);
    if !asked.iter().all(Word::is_stopword) {
        asked.retain(|word| !word.is_stopword());
    }
    asked.truncate(WORDS_MAX);
    let mut found: BTreeMap<Place, (f64, Vec<String>)> = BTreeMap::new();
    let mut left = SYNONYMS_MAX;
    let mut seen = BTreeSet::new();
    for word in asked.iter().filter(|word| seen.insert(word.whole.clone())) {
        let best = this.word(word, synonyms, options.rounds, &mut left)?;
        for (place, (score, label)) in best {
            let entry = found.entry(place).or_default();
            entry.0 += score;
            entry.1.push(label);
        }
    }
    let mut hits = this.ranked(found, now);
    if options.follow_up && hits.len() < options.limit {
        let more = this.follow_up(&hits, &asked, now)?;
        hits.extend(more);
    }
    hits.truncate(options.limit);
    Ok(hits)
}

impl<'s> Search<'s> {
    fn new(index: &'s Index, store: &'s Arc<dyn Store>) -> Self {
        let rows = || index.files.values().flat_map(|file| &file.documents);
        let documents = float(rows().count() as u64);
        let mut average = [0.0; FIELD_COUNT];
        for row in rows() {
            for (sum, len) in average.iter_mut().zip(row.lens) {
                *sum += f64::from(len);
            }
        }
        for sum in &mut average {
            *sum = (*sum / documents.max(1.0)).max(1.0);
        }
        Self { index, store, documents, average }
    }

    /// Sections with a word, by the best of its variants.
    fn word(&self, word: &Word, synonyms: &Synonyms, rounds: u8, left: &mut usize) -> Result<Best> {
        let mut best = Best::new();
        let whole = word.whole.as_str();
        self.term(&mut best, Kind::Exact, whole, EXACT, whole)?;
        if rounds >= 2 {
            self.term(&mut best, Kind::Stem, word.stem(), STEM, word.stem())?;
            for piece in &word.pieces {
                self.term(&mut best, Kind::Exact, piece, PIECE, piece)?;
            }
            if !word.pairs().is_empty() {
                self.pairs(&mut best, word.stem())?;
            }
        }
        if rounds >= 3 {
            for other in synonyms.of(word) {
                let Some(rest) = left.checked_sub(1) else { break };
                *left = rest;
                let label = format!("{whole} -> {other}");
                let split = words(other);
                let [one] = split.as_slice() else { continue };
                self.term(&mut best, Kind::Exact, &one.whole, SYNONYM, &label)?;
                self.term(&mut best, Kind::Stem, one.stem(), SYNONYM, &label)?;
            }
        }
        Ok(best)
    }

    fn term(
        &self,
        best: &mut Best,
        kind: Kind,
        text: &str,
        factor: f64,
        label: &str,
    ) -> Result<()> {
        let found = self.index.find(self.store, kind, text)?;
        self.note(best, found, factor, label);
        Ok(())
    }

    /// Sections in which all pairs of syllables stand in one word.
    fn pairs(&self, best: &mut Best, text: &str) -> Result<()> {
        let mut all: Option<BTreeMap<Place, Posting>> = None;
        for pair in pairs(text) {
            let found = self.index.find(self.store, Kind::Pair, &pair)?;
            let found = found.into_iter().map(|(file, one)| ((file, one.document), one));
            let next: BTreeMap<Place, Posting> = match all.take() {
                None => found.collect(),
                Some(before) => found
                    .filter_map(|(place, mut one)| {
                        let old = before.get(&place)?;
                        one.runs.retain(|run| old.runs.binary_search(run).is_ok());
                        (!one.runs.is_empty()).then_some((place, one))
                    })
                    .collect(),
            };
            all = Some(next);
        }
        let found = all.unwrap_or_default().into_iter();
        let found = found.map(|((file, _), posting)| (file, posting)).collect();
        self.note(best, found, PAIRS, &format!("{text}*"));
        Ok(())
    }

    fn note(&self, best: &mut Best, found: Vec<(String, Posting)>, factor: f64, label: &str) {
        let df = float(found.len() as u64);
        let rarity = (1.0 + (self.documents - df + 0.5).max(0.0) / (df + 0.5)).ln();
        for (file, posting) in found {
            let score = factor * rarity * self.weight(&file, &posting);
            let entry = best.entry((file, posting.document)).or_default();
            if score > entry.0 {
                *entry = (score, label.to_owned());
            }
        }
    }

    /// Counts of a term, weighted by field, saturated.
    fn weight(&self, file: &str, posting: &Posting) -> f64 {
        let file = self.index.files.get(file);
        let row = file.and_then(|file| file.documents.get(posting.document as usize));
        let Some(row) = row else { return 0.0 };
        let mut sum = 0.0;
        let figures = WEIGHTS.iter().zip(LENGTH).zip(self.average).zip(row.lens);
        for (count, (((weight, length), average), len)) in posting.counts.iter().zip(figures) {
            let norm = 1.0 - length + length * f64::from(len) / average;
            sum += weight * f64::from(*count) / norm;
        }
        sum * (SATURATION + 1.0) / (SATURATION + sum)
    }

    fn ranked(&self, found: BTreeMap<Place, (f64, Vec<String>)>, now: Millis) -> Vec<Hit> {
        let mut hits = Vec::with_capacity(found.len());
        for ((file, document), (score, matched)) in found {
            let row = self.index.files.get(&file);
            let Some(row) = row.and_then(|row| row.documents.get(document as usize)) else {
                continue;
            };
            let age = row.at.map(|at| float(now.since(at).as_secs()) / 86_400.0);
            let recent = age.map_or(0.0, |age| RECENT * (-age / RECENT_HALF_DAYS).exp2());
            let held = if row.status == Status::Superseded { SUPERSEDED } else { 1.0 };
            hits.push(Hit { file, document, score: score * held * (1.0 + recent), matched });
        }
        // The newest of equals first; then by place, so that the same question gives the same.
        hits.sort_by(|a, b| {
            b.score
                .total_cmp(&a.score)
                .then_with(|| b.file.cmp(&a.file))
                .then(a.document.cmp(&b.document))
        });
        hits
    }

    /// Sections that share tags with the best ones, and were not found themselves.
    fn follow_up(&self, hits: &[Hit], asked: &[Word], now: Millis) -> Result<Vec<Hit>> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for hit in hits.iter().take(FOLLOW_HITS) {
            let file = self.index.files.get(&hit.file);
            let row = file.and_then(|file| file.documents.get(hit.document as usize));
            for tag in row.into_iter().flat_map(|row| &row.tags) {
                *counts.entry(tag).or_default() += 1;
            }
        }
        counts.retain(|tag, _| !asked.iter().any(|word| word.whole == *tag));
        let mut tags: Vec<(&str, usize)> = counts.into_iter().collect();
        tags.sort_by_key(|(tag, count)| (std::cmp::Reverse(*count), *tag));
        let mut found: BTreeMap<Place, (f64, Vec<String>)> = BTreeMap::new();
        for (tag, _) in tags.into_iter().take(FOLLOW_TAGS) {
            let split = words(tag);
            let [one] = split.as_slice() else { continue };
            let mut best = Best::new();
            self.term(&mut best, Kind::Exact, &one.whole, SHARED_TAG, &format!("#{tag}"))?;
            for (place, (score, label)) in best {
                let entry = found.entry(place).or_default();
                entry.0 += score;
                entry.1.push(label);
            }
        }
        found.retain(|(file, document), _| {
            !hits.iter().any(|hit| hit.file == *file && hit.document == *document)
        });
        // What was found only so stands behind what was asked for.
        let least = hits.last().map_or(0.0, |hit| hit.score);
        let mut more = self.ranked(found, now);
        for hit in &mut more {
            hit.score = hit.score.min(least);
        }
        Ok(more)
    }
}
