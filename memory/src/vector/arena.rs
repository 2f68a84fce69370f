//! The vectors in memory: one byte a component, with a bound of what the rounding hides.
//! Knows slots, codes and bounds; knows no store and no graph.
//!
//! A row x is kept as codes c of -127 to 127 and a scale s, so that x is near s * c. A query q
//! becomes codes d of 16 bits and a scale t. Then, by the inequality of Cauchy and Schwarz,
//!
//! ```text
//! |q.x - st(d.c)| = |q.(x - sc) + (q - td).sc| <= |q| |x - sc| + |q - td| |sc|
//! ```
//!
//! and all four lengths are known when the row and the query are made. So a scan over the codes
//! says of each row which scores it can have, and only rows that can be among the best are read.
//!
//! Codes lie in chunks whose rows begin at lines of the cache.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "slots are below 2^31, codes fit by their scale, and bounds count the rounding"
)]

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use crate::error::{Error, Result};
use crate::store::Version;
use crate::vector::row;
use crate::vector::simd;

/// Bytes of a line of the cache. Rows are as long as a whole number of halves of it.
const LINE: usize = 64;
const ROW_PARTS: usize = 32;
/// Rows of a chunk.
const CHUNK_ROWS: usize = 4096;
/// The code of a component that is as large as the largest of its row.
const CODE_MAX: f64 = 127.0;
/// What is added to a bound for the rounding of the `f32`s that it and the scores are made of, as a
/// part of the product of the lengths: eight roundings of 2^-24 are less than half of it.
const ROUNDING: f32 = 1e-6;
/// Below this a row is not scaled: its codes are zero, and its bound is its length.
const SCALED_MIN: f64 = 1e-30;

/// The place of a vector in memory.
pub(super) type Slot = u32;

/// A query, rounded, with what the rounding hides.
#[derive(Debug, Default)]
pub(super) struct Query {
    codes: Vec<i16>,
    scale: f32,
    norm: f32,
    error: f32,
}

/// What is known of a row without its codes.
#[derive(Debug, Clone, Copy, Default)]
struct Bound {
    scale: f32,
    /// At least |x - sc|.
    error: f32,
    /// At least |x| and |sc|.
    norm: f32,
}

/// A row that may be among the best.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub(super) slot: Slot,
    /// Its score is not below this.
    pub(super) lower: f32,
    /// Its score is not above this.
    pub(super) upper: f32,
}

/// One vector's place, and whose it is.
#[derive(Debug)]
struct Place {
    id: Box<str>,
    version: Version,
}

/// The vectors of a memory.
#[derive(Debug)]
pub(super) struct Arena {
    /// Codes of a row, those that fill it up included.
    row_len: usize,
    chunks: Vec<Chunk>,
    bounds: Vec<Bound>,
    signatures: Vec<u64>,
    places: Vec<Option<Place>>,
    free: Vec<Slot>,
    by_id: HashTable<Slot>,
    hasher: RandomState,
}

/// Codes of some rows. The first row begins at a line of the cache.
#[derive(Debug, Default)]
struct Chunk {
    codes: Vec<i8>,
    begin: usize,
    rows: usize,
}

impl Chunk {
    fn rows(&self, row_len: usize, rows: std::ops::Range<usize>) -> &[i8] {
        let (from, to) = (self.begin + rows.start * row_len, self.begin + rows.end * row_len);
        self.codes.get(from..to).unwrap_or(&[])
    }

    fn row_mut(&mut self, row_len: usize, row: usize) -> &mut [i8] {
        let from = self.begin + row * row_len;
        self.codes.get_mut(from..from + row_len).unwrap_or(&mut [])
    }

    /// Makes room for so many rows.
    fn grow(&mut self, row_len: usize, rows: usize) {
        if rows <= self.rows {
            return;
        }
        let rows = rows.next_power_of_two().clamp(16, CHUNK_ROWS);
        let mut codes = vec![0; rows * row_len + LINE];
        let begin = codes.as_ptr().align_offset(LINE).min(LINE);
        let old = self.rows(row_len, 0..self.rows);
        if let Some(new) = codes.get_mut(begin..begin + old.len()) {
            new.copy_from_slice(old);
        }
        *self = Self { codes, begin, rows };
    }
}

impl Query {
    /// The query of these components, for rows of an arena.
    pub(super) fn new(vector: &[f32], arena: &Arena) -> Self {
        let (sum, largest) = vector.iter().fold((0.0, 0.0_f64), |(sum, largest), part| {
            let part = f64::from(part.abs());
            (sum + part, largest.max(part))
        });
        // The sum of |d| times 127 stays below 2^31, so that no sum of products overflows.
        let parts = vector.len() as f64;
        let room = (f64::from(i32::MAX) / CODE_MAX - parts).max(1.0);
        let factor = (f64::from(i16::MAX) / largest).min(room / sum);
        let usable = factor.is_finite() && largest > SCALED_MIN;
        let (factor, scale) = if usable { (factor, 1.0 / factor) } else { (0.0, 0.0) };
        let mut codes = vec![0; arena.row_len];
        let mut error = 0.0;
        for (code, part) in codes.iter_mut().zip(vector) {
            let rounded = (f64::from(*part) * factor).round();
            *code = rounded as i16;
            error += (f64::from(*part) - rounded * scale).powi(2);
        }
        let (norm, error) = (row::norm(vector), error.sqrt());
        Self { codes, scale: scale as f32, norm: up(norm), error: up(error) }
    }
}

/// At least this, as an `f32`.
fn up(value: f64) -> f32 {
    ((value * (1.0 + 1e-6)) as f32).next_up()
}

impl Arena {
    pub(super) fn new(dim: usize) -> Self {
        Self {
            row_len: dim.next_multiple_of(ROW_PARTS),
            chunks: Vec::new(),
            bounds: Vec::new(),
            signatures: Vec::new(),
            places: Vec::new(),
            free: Vec::new(),
            by_id: HashTable::new(),
            hasher: RandomState::new(),
        }
    }

    /// Vectors that are there.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// One past the last slot that was ever used.
    pub(super) fn end(&self) -> Slot {
        self.places.len() as Slot
    }

    pub(super) fn find(&self, id: &str) -> Option<Slot> {
        let same = |slot: &Slot| self.id(*slot) == Some(id);
        self.by_id.find(self.hasher.hash_one(id), same).copied()
    }

    /// Whose slot it is; `None` when it holds nothing, or what was removed.
    pub(super) fn id(&self, slot: Slot) -> Option<&str> {
        self.places.get(slot as usize)?.as_ref().map(|place| &*place.id)
    }

    pub(super) fn version(&self, slot: Slot) -> Option<Version> {
        self.places.get(slot as usize)?.as_ref().map(|place| place.version)
    }

    /// Whether what is stored there may satisfy a filter of this signature.
    pub(super) fn may_match(&self, slot: Slot, signature: u64) -> bool {
        self.signatures.get(slot as usize).is_some_and(|own| own & signature == signature)
    }

    /// Enters a vector of a new id.
    ///
    /// Errors: [`Error::Limit`] when there are 2^31 of them.
    pub(super) fn insert(
        &mut self,
        id: &str,
        version: Version,
        signature: u64,
        vector: impl Iterator<Item = f32> + Clone,
    ) -> Result<Slot> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => self.append()?,
        };
        let index = slot as usize;
        let row_len = self.row_len;
        let (bound, codes) = (self.bounds.get_mut(index), self.chunks.get_mut(index / CHUNK_ROWS));
        if let (Some(bound), Some(chunk)) = (bound, codes) {
            *bound = quantise(vector, chunk.row_mut(row_len, index % CHUNK_ROWS));
        }
        if let Some(own) = self.signatures.get_mut(index) {
            *own = signature;
        }
        if let Some(place) = self.places.get_mut(index) {
            *place = Some(Place { id: id.into(), version });
        }
        let (places, hasher) = (&self.places, &self.hasher);
        let hash_of = |slot: &Slot| {
            let place = places.get(*slot as usize).and_then(Option::as_ref);
            hasher.hash_one(place.map_or("", |place| &place.id))
        };
        self.by_id.insert_unique(hasher.hash_one(id), slot, hash_of);
        Ok(slot)
    }

    fn append(&mut self) -> Result<Slot> {
        let index = self.places.len();
        Error::check_limit("vectors of a memory", index, (1 << 31) - 1)?;
        if index.is_multiple_of(CHUNK_ROWS) {
            self.chunks.push(Chunk::default());
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.grow(self.row_len, index % CHUNK_ROWS + 1);
        }
        self.bounds.push(Bound::default());
        self.signatures.push(0);
        self.places.push(None);
        Ok(index as Slot)
    }

    /// Takes a vector out. Its codes stay until the slot is given back with [`Arena::release`].
    pub(super) fn remove(&mut self, slot: Slot) {
        let Some(id) = self.id(slot) else { return };
        let hash = self.hasher.hash_one(id);
        if let Ok(found) = self.by_id.find_entry(hash, |other| *other == slot) {
            found.remove();
        }
        if let Some(place) = self.places.get_mut(slot as usize) {
            *place = None;
        }
    }

    /// Lets a slot be used again that was removed.
    pub(super) fn release(&mut self, slot: Slot) {
        self.free.push(slot);
    }

    /// The codes of a row as a query: how near other rows are to it.
    pub(super) fn codes_as_query(&self, slot: Slot, query: &mut Query) {
        let codes = self.codes(slot);
        query.codes.clear();
        query.codes.extend(codes.iter().map(|code| i16::from(*code)));
        query.scale = self.bounds.get(slot as usize).map_or(0.0, |bound| bound.scale);
    }

    fn codes(&self, slot: Slot) -> &[i8] {
        let (index, row_len) = (slot as usize, self.row_len);
        let row = index % CHUNK_ROWS;
        self.chunks.get(index / CHUNK_ROWS).map_or(&[], |chunk| chunk.rows(row_len, row..row + 1))
    }

    /// How near these rows are, about; one for each, in their order. `sums` is for its work.
    pub(super) fn near(
        &self,
        query: &Query,
        slots: &[Slot],
        sums: &mut Vec<i32>,
        near: &mut Vec<f32>,
    ) {
        sums.clear();
        simd::gather(&query.codes, slots.iter().map(|slot| self.codes(*slot)), sums);
        near.clear();
        near.extend(slots.iter().zip(sums.iter()).map(|(slot, sum)| {
            let scale = self.bounds.get(*slot as usize).map_or(0.0, |bound| bound.scale);
            *sum as f32 * query.scale * scale
        }));
    }

    /// Says of each row that is there, and may match, which scores it can have.
    pub(super) fn scan(&self, query: &Query, signature: u64, mut seen: impl FnMut(Candidate)) {
        const BLOCK: usize = 256;
        let mut sums = [0_i32; BLOCK];
        let mut block = 0;
        while block < self.places.len() {
            let end = (block + BLOCK).min(self.places.len());
            let rows = block % CHUNK_ROWS..block % CHUNK_ROWS + (end - block);
            let Some(chunk) = self.chunks.get(block / CHUNK_ROWS) else { return };
            let Some(sums) = sums.get_mut(..end - block) else { return };
            simd::scan(&query.codes, chunk.rows(self.row_len, rows), sums);
            for (index, sum) in (block..end).zip(sums) {
                if let Some(candidate) = self.candidate(query, index as Slot, *sum, signature) {
                    seen(candidate);
                }
            }
            block = end;
        }
    }

    /// As [`Arena::scan`], of these rows alone.
    pub(super) fn scan_some(
        &self,
        query: &Query,
        signature: u64,
        slots: &[Slot],
        mut seen: impl FnMut(Candidate),
    ) {
        const BLOCK: usize = 64;
        let mut sums = Vec::with_capacity(BLOCK);
        for block in slots.chunks(BLOCK) {
            sums.clear();
            simd::gather(&query.codes, block.iter().map(|slot| self.codes(*slot)), &mut sums);
            for (slot, sum) in block.iter().zip(&sums) {
                if let Some(candidate) = self.candidate(query, *slot, *sum, signature) {
                    seen(candidate);
                }
            }
        }
    }

    fn candidate(&self, query: &Query, slot: Slot, sum: i32, signature: u64) -> Option<Candidate> {
        let bound = self.bounds.get(slot as usize)?;
        if !self.may_match(slot, signature) || self.places.get(slot as usize)?.is_none() {
            return None;
        }
        let score = sum as f32 * query.scale * bound.scale;
        let slack = query.norm * bound.error
            + query.error * bound.norm
            + query.norm * bound.norm * ROUNDING
            + f32::MIN_POSITIVE;
        Some(Candidate { slot, lower: score - slack, upper: score + slack })
    }

    /// Bytes in memory, about.
    pub(super) fn heap_size(&self) -> usize {
        let ids = self.places.iter().flatten().map(|place| place.id.len()).sum::<usize>();
        let chunks = self.chunks.iter().map(|chunk| chunk.codes.capacity()).sum::<usize>();
        let places = self.places.capacity() * size_of::<Option<Place>>();
        let bounds = self.bounds.capacity() * size_of::<Bound>();
        let words = self.signatures.capacity() * size_of::<u64>();
        let slots = (self.free.capacity() + self.by_id.capacity()) * size_of::<Slot>();
        ids + chunks + places + bounds + words + slots
    }
}

/// Fills the codes of a row.
fn quantise(vector: impl Iterator<Item = f32> + Clone, codes: &mut [i8]) -> Bound {
    let largest = vector.clone().fold(0.0_f64, |largest, part| largest.max(f64::from(part.abs())));
    let usable = largest > SCALED_MIN;
    // The scale is rounded first: the error is that of the codes with the scale that is kept.
    let scale = if usable { (largest / CODE_MAX) as f32 } else { 0.0 };
    let (mut error, mut norm, mut rounded_norm) = (0.0, 0.0, 0.0);
    codes.fill(0);
    for (code, part) in codes.iter_mut().zip(vector) {
        let part = f64::from(part);
        let rounded = if usable { (part / f64::from(scale)).round() } else { 0.0 };
        let rounded = rounded.clamp(-CODE_MAX, CODE_MAX);
        *code = rounded as i8;
        let value = rounded * f64::from(scale);
        error += (part - value).powi(2);
        norm += part * part;
        rounded_norm += value * value;
    }
    let norm = norm.max(rounded_norm).sqrt();
    Bound { scale, error: up(error.sqrt()), norm: up(norm) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exact(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    proptest! {
        /// The bound that exact search rests on, for vectors of any shape and length.
        #[test]
        fn no_score_is_outside_of_its_bounds(
            rows in proptest::collection::vec(
                (proptest::collection::vec(-1.0_f32..1.0, 37), -20_i32..17),
                1..40,
            ),
            query in proptest::collection::vec(-1.0_f32..1.0, 37),
            power in -20_i32..13,
            spike in 0_usize..37,
        ) {
            let scaled = |vector: &[f32], power: i32| -> Vec<f32> {
                vector.iter().map(|part| part * 10.0_f32.powi(power)).collect()
            };
            let mut query = scaled(&query, power);
            query[spike] *= 1000.0;
            let mut arena = Arena::new(37);
            for (i, (row, power)) in rows.iter().enumerate() {
                let row = scaled(row, *power);
                arena.insert(&i.to_string(), Version(1), 0, row.iter().copied()).unwrap();
            }
            let quantised = Query::new(&query, &arena);
            let mut seen = 0;
            arena.scan(&quantised, 0, |candidate| {
                let (row, power) = &rows[candidate.slot as usize];
                let score = exact(&scaled(row, *power), &query) as f32;
                let inside = candidate.lower <= score && score <= candidate.upper;
                assert!(inside, "{score} in {candidate:?}");
                seen += 1;
            });
            prop_assert_eq!(seen, rows.len());
        }
    }

    #[test]
    fn the_bounds_of_a_usual_vector_are_narrow() {
        let mut arena = Arena::new(256);
        let vector: Vec<f32> = (0..256).map(|i| ((i * 37 % 101) as f32 - 50.0) / 470.0).collect();
        arena.insert("a", Version(1), 0, vector.iter().copied()).unwrap();
        let query = Query::new(&vector, &arena);
        arena.scan(&query, 0, |found| assert!(found.upper - found.lower < 0.02, "{found:?}"));
    }

    #[test]
    fn the_largest_sums_do_not_overflow() {
        let mut arena = Arena::new(16_384);
        let vector = vec![1.0_f32; 16_384];
        arena.insert("a", Version(1), 0, vector.iter().copied()).unwrap();
        let query = Query::new(&vector, &arena);
        let mut seen = 0;
        arena.scan(&query, 0, |found| {
            assert!(found.lower <= 16_384.0 && found.upper >= 16_384.0, "{found:?}");
            seen += 1;
        });
        assert_eq!(seen, 1);
    }

    #[test]
    fn slots_are_found_by_id_and_used_again_once_released() {
        let mut arena = Arena::new(3);
        for i in 0..10_000_u32 {
            let vector = [i as f32, 1.0, 2.0];
            arena.insert(&i.to_string(), Version(1), 0, vector.into_iter()).unwrap();
        }
        assert_eq!(arena.find("77"), Some(77));
        arena.remove(77);
        assert_eq!((arena.find("77"), arena.id(77), arena.len()), (None, None, 9999));
        let mut seen = 0;
        arena.scan(&Query::new(&[1.0, 0.0, 0.0], &arena), 0, |found| {
            assert_ne!(found.slot, 77);
            seen += 1;
        });
        assert_eq!(seen, 9999);
        let new = arena.insert("new", Version(2), 0, [1.0, 1.0, 1.0].into_iter()).unwrap();
        assert_eq!(new, 10_000, "not released yet");
        arena.release(77);
        let new = arena.insert("newer", Version(2), 0, [1.0, 1.0, 1.0].into_iter()).unwrap();
        assert_eq!((new, arena.find("newer"), arena.version(77)), (77, Some(77), Some(Version(2))));
        assert!(arena.heap_size() > 10_000 * 32);
    }
}
