//! Compressed memory: values under zstd, with a dictionary trained on what is stored.
//! Knows frames and dictionaries; knows nothing of the engine's own compression.
//!
//! Rows: `v` and a key, one value; `d` and a number, a dictionary; `n`, the newest dictionary's
//! number. A dictionary stays as long as a value needs it.

mod frame;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::Schema;
use crate::compressed::frame::Head;
use crate::error::{Error, Result};
use crate::store::{Batch, Ns, Scan, Store, StoreExt, Ttl, retry};

/// The largest dictionary.
const DICTIONARY_LEN_MAX: usize = 16 << 10;
/// Values that a dictionary is trained on, and the most bytes of one.
const SAMPLES_MAX: usize = 2000;
const SAMPLE_LEN_MAX: usize = 32 << 10;
/// A dictionary is kept if it saves so much of what is stored without it, in percent.
const DICTIONARY_SAVING_PERCENT: usize = 5;
/// Every so many samples, one is left out of the training and used to judge it.
const JUDGE_EVERY: usize = 5;

/// Zstd's trainer writes variables of the whole process.
/// Protects: those variables. A leaf lock.
static TRAINING: Mutex<()> = Mutex::new(());

/// What one value takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Bytes before compression.
    pub raw_bytes: u64,
    /// Bytes as stored.
    pub stored_bytes: u64,
}

impl Stored {
    /// Bytes before compression for each byte stored.
    pub fn ratio(&self) -> f64 {
        ratio(self.raw_bytes, self.stored_bytes)
    }
}

/// What all values take. Exact: counted when it is asked for, expired values left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompressionStats {
    /// Values.
    pub entries: u64,
    /// Their bytes before compression.
    pub raw_bytes: u64,
    /// Their bytes as stored.
    #[doc(alias = "total_compressed_bytes")]
    #[doc(alias = "total_compressed_mb")]
    pub stored_bytes: u64,
    /// Values that are stored as they are, since compression saves too little.
    pub bypassed: u64,
    /// Values that need a dictionary.
    pub with_dictionary: u64,
    /// The dictionary that is used for new values.
    pub dict: Option<u32>,
}

impl CompressionStats {
    /// Bytes before compression for each byte stored.
    pub fn ratio(&self) -> f64 {
        ratio(self.raw_bytes, self.stored_bytes)
    }

    /// Bytes that a value takes on average; 0 without any.
    #[doc(alias = "avg_compressed_bytes")]
    pub fn average_stored_bytes(&self) -> u64 {
        self.stored_bytes / self.entries.max(1)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people to read")]
fn ratio(raw: u64, stored: u64) -> f64 {
    if stored == 0 { 1.0 } else { raw as f64 / stored as f64 }
}

/// Typed values under zstd. Clones share it.
///
/// A value that compression makes less than 12 % smaller is stored as it is. Every value has a
/// checksum of what it was before. Small values that are like each other want
/// [`CompressedMemory::train`] now and then.
#[derive(Clone)]
pub struct CompressedMemory {
    store: Arc<dyn Store>,
    ns: Ns,
    level: i32,
    /// Dictionaries that were read. They never change, and there are few.
    dictionaries: Arc<Mutex<BTreeMap<u32, Bytes>>>,
}

impl fmt::Debug for CompressedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompressedMemory({:?}, level {})", self.ns, self.level)
    }
}

impl CompressedMemory {
    /// The memory of this name in a store, at zstd level 3.
    pub fn new(store: Arc<dyn Store>, name: &str) -> Result<Self> {
        let ns = Ns::within("compressed", name)?.without_log();
        Ok(Self { store, ns, level: 3, dictionaries: Arc::default() })
    }

    /// At another level, 1 to 19. What is stored already stays as it is.
    pub fn level(mut self, level: i32) -> Result<Self> {
        if !(1..=19).contains(&level) {
            return Err(Error::Invalid("a zstd level that is not 1 to 19"));
        }
        self.level = level;
        Ok(self)
    }

    /// Writes a value; answers what it takes.
    ///
    /// Errors: [`Error::Limit`] above 64 MiB before compression, or 16 MiB after it.
    #[doc(alias = "store_compressed")]
    pub fn put<T: Serialize + ?Sized>(&self, key: &str, value: &T, ttl: Ttl) -> Result<Stored> {
        self.put_bytes(key, &Schema::default().encode(value)?, ttl)
    }

    /// The value, or `None` when it is absent or expired.
    #[doc(alias = "retrieve_decompressed")]
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let found = self.get_bytes(key)?;
        found.map(|raw| Schema::default().decode(&raw)).transpose()
    }

    /// Writes bytes.
    pub fn put_bytes(&self, key: &str, raw: &[u8], ttl: Ttl) -> Result<Stored> {
        retry(&self.ns, || {
            let newest = self.newest()?;
            let dictionary = match newest {
                Some(id) => Some((id, self.dictionary(id)?)),
                None => None,
            };
            let with = dictionary.as_ref().map(|(id, bytes)| (*id, &bytes[..]));
            let stored = frame::encode(raw, self.level, with)?;
            let (raw_bytes, stored_bytes) = (raw.len() as u64, stored.len() as u64);
            let mut batch = Batch::new(&self.ns);
            if let Some(id) = newest {
                // It must still be there when the value is.
                batch = batch.expect(dictionary_key(id), crate::store::Guard::Any);
            }
            self.store.commit(batch.put(value_key(key), stored, ttl))?;
            Ok(Stored { raw_bytes, stored_bytes })
        })
    }

    /// The bytes, checked.
    pub fn get_bytes(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.store.get(&self.ns, &value_key(key))? else { return Ok(None) };
        self.decode(&entry.value).map(Some)
    }

    fn decode(&self, stored: &[u8]) -> Result<Vec<u8>> {
        let (head, payload) = Head::decode(stored)?;
        let none = Bytes::new();
        let dictionary =
            if head.dictionary == 0 { none } else { self.dictionary(head.dictionary)? };
        frame::decode(head, payload, &dictionary)
    }

    /// Deletes a value; answers whether it was there.
    pub fn delete(&self, key: &str) -> Result<bool> {
        self.store.delete(&self.ns, value_key(key))
    }

    /// What all values take. Reads every row.
    #[doc(alias = "get_compression_stats")]
    pub fn stats(&self) -> Result<CompressionStats> {
        let mut stats = CompressionStats { dict: self.newest()?, ..CompressionStats::default() };
        let scan = Scan { limit: usize::MAX, ..Scan::prefix(b"v") };
        self.store.walk(&self.ns, scan, |_, entry| {
            let (head, _) = Head::decode(&entry.value)?;
            stats.entries += 1;
            stats.raw_bytes += u64::from(head.raw_len);
            stats.stored_bytes += entry.value.len() as u64;
            stats.bypassed += u64::from(!head.compressed);
            stats.with_dictionary += u64::from(head.dictionary != 0);
            Ok(true)
        })?;
        Ok(stats)
    }

    /// Trains a dictionary on stored values, for those that are written from now on, and drops
    /// dictionaries that no value needs. Answers the new one, or `None` when there are too few
    /// values, or it would save less than 5 %.
    pub fn train(&self) -> Result<Option<u32>> {
        let (samples, used) = self.samples()?;
        let Some(trained) = self.trained(&samples)? else { return Ok(None) };
        let id = retry(&self.ns, || {
            let entry = self.store.get(&self.ns, b"n")?;
            let newest = entry.as_ref().map_or(Ok(0), |entry| number(&entry.value))?;
            let id = newest + 1;
            let batch = Batch::new(&self.ns)
                .unchanged("n", entry.as_ref())
                .put("n", id.to_le_bytes().to_vec(), Ttl::Never)
                .put(dictionary_key(id), trained.clone(), Ttl::Never);
            self.store.commit(batch)?;
            Ok(id)
        })?;
        // The one before may be used by a put that runs now; it goes with the next training.
        let unused = (1..id.saturating_sub(1)).filter(|old| !used.contains(old));
        for old in unused {
            self.dictionaries.lock().remove(&old);
            self.store.delete(&self.ns, dictionary_key(old))?;
        }
        Ok(Some(id))
    }

    /// Values to train on, spread over all there are, and the dictionaries that values need.
    fn samples(&self) -> Result<(Vec<Vec<u8>>, BTreeSet<u32>)> {
        let (mut samples, mut used, mut step, mut count) = (Vec::new(), BTreeSet::new(), 1, 0);
        let scan = Scan { limit: usize::MAX, ..Scan::prefix(b"v") };
        self.store.walk(&self.ns, scan, |_, entry| {
            used.insert(Head::decode(&entry.value)?.0.dictionary);
            count += 1;
            if count % step == 0 {
                let mut raw = self.decode(&entry.value)?;
                raw.truncate(SAMPLE_LEN_MAX);
                samples.push(raw);
            }
            if samples.len() == 2 * SAMPLES_MAX {
                let mut keep = false;
                samples.retain(|_| {
                    keep = !keep;
                    keep
                });
                step *= 2;
            }
            Ok(true)
        })?;
        Ok((samples, used))
    }

    /// A dictionary that is worth it on samples that it was not trained on.
    fn trained(&self, samples: &[Vec<u8>]) -> Result<Option<Vec<u8>>> {
        let judged = || samples.iter().step_by(JUDGE_EVERY);
        let (mut data, mut lens) = (Vec::new(), Vec::new());
        for (_, sample) in samples.iter().enumerate().filter(|(i, _)| i % JUDGE_EVERY != 0) {
            data.extend_from_slice(sample);
            lens.push(sample.len());
        }
        if data.len() < 8 * DICTIONARY_LEN_MAX || lens.len() < 16 {
            return Ok(None);
        }
        // The trainer refuses samples that have nothing in common: then there is no dictionary.
        let trained = {
            let _alone = TRAINING.lock();
            zstd::dict::from_continuous(&data, &lens, DICTIONARY_LEN_MAX)
        };
        let Ok(dictionary) = trained else { return Ok(None) };
        let sum = |dictionary: Option<(u32, &[u8])>| -> Result<usize> {
            judged().map(|raw| Ok(frame::encode(raw, self.level, dictionary)?.len())).sum()
        };
        let (without, with) = (sum(None)?, sum(Some((1, &dictionary)))?);
        let worth = with * 100 <= without * (100 - DICTIONARY_SAVING_PERCENT);
        Ok(worth.then_some(dictionary))
    }

    fn newest(&self) -> Result<Option<u32>> {
        let entry = self.store.get(&self.ns, b"n")?;
        entry.map(|entry| number(&entry.value)).transpose()
    }

    fn dictionary(&self, id: u32) -> Result<Bytes> {
        if let Some(found) = self.dictionaries.lock().get(&id) {
            return Ok(found.clone());
        }
        let entry = self.store.get(&self.ns, &dictionary_key(id))?;
        let missing = || Error::corrupt("compressed value", format!("no dictionary {id}"));
        let bytes = Bytes::copy_from_slice(&entry.ok_or_else(missing)?.value);
        self.dictionaries.lock().insert(id, bytes.clone());
        Ok(bytes)
    }
}

fn value_key(key: &str) -> Vec<u8> {
    [b"v", key.as_bytes()].concat()
}

fn dictionary_key(id: u32) -> Vec<u8> {
    [&b"d"[..], &id.to_be_bytes()].concat()
}

fn number(stored: &[u8]) -> Result<u32> {
    let bytes = stored.first_chunk::<4>().filter(|_| stored.len() == 4);
    let wrong = || Error::corrupt("number of a dictionary", format!("{} bytes", stored.len()));
    bytes.map(|bytes| u32::from_le_bytes(*bytes)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::store::{Clock, MemStore, Millis};

    fn note(i: usize) -> Value {
        json!({
            "user_identifier": format!("user-{}", i * 7919 % 1000),
            "preferences": { "colour_scheme": if i.is_multiple_of(3) { "dark" } else { "light" } },
            "last_message": format!("the answer to question {i} is {}", i * i),
        })
    }

    #[test]
    fn a_trained_dictionary_makes_small_values_smaller_and_old_ones_stay_readable() {
        let memory = CompressedMemory::new(Arc::new(MemStore::new()), "m").unwrap();
        assert_eq!(memory.train().unwrap(), None, "of nothing");
        for i in 0..1500 {
            memory.put(&format!("k{i}"), &note(i), Ttl::Never).unwrap();
        }
        let before = memory.stats().unwrap();
        assert_eq!((before.entries, before.dict, before.with_dictionary), (1500, None, 0));
        assert_eq!(memory.train().unwrap(), Some(1));
        let first = memory.put("k0", &note(0), Ttl::Never).unwrap();
        assert!(first.ratio() > 2.0, "{first:?}");
        for i in 0..750 {
            memory.put(&format!("k{i}"), &note(i), Ttl::Never).unwrap();
        }
        let after = memory.stats().unwrap();
        assert_eq!((after.raw_bytes, after.with_dictionary), (before.raw_bytes, 750));
        assert!(after.stored_bytes < before.stored_bytes * 3 / 4, "{before:?} {after:?}");
        let again = CompressedMemory::new(Arc::clone(&memory.store), "m").unwrap();
        for i in (0..1500).step_by(100) {
            assert_eq!(again.get::<Value>(&format!("k{i}")).unwrap(), Some(note(i)));
        }
        assert!(after.ratio() > 1.0 && after.average_stored_bytes() > 0);
    }

    #[test]
    fn dictionaries_that_no_value_needs_go_and_others_stay() {
        let memory = CompressedMemory::new(Arc::new(MemStore::new()), "m").unwrap();
        for i in 0..1500 {
            memory.put(&format!("k{i}"), &note(i), Ttl::Never).unwrap();
        }
        for expected in 1..=4 {
            assert_eq!(memory.train().unwrap(), Some(expected));
            if expected == 2 {
                memory.put("needs 2", &note(1), Ttl::Never).unwrap();
            }
        }
        let rows = memory.store.scan(&memory.ns, Scan::prefix(b"d")).unwrap();
        let ids: Vec<u8> = rows.iter().map(|(key, _)| key[4]).collect();
        assert_eq!(ids, [2, 3, 4]);
        assert_eq!(memory.get::<Value>("needs 2").unwrap(), Some(note(1)));
    }

    #[test]
    fn noise_is_bypassed_expiry_counts_and_levels_are_checked() {
        let clock = Clock::manual(Millis(1));
        let store = Arc::new(MemStore::with_clock(clock.clone()));
        let memory = CompressedMemory::new(store, "m").unwrap().level(19).unwrap();
        let noise: Vec<u8> = (0..=255).collect();
        let stored = memory.put_bytes("noise", &noise, Ttl::Never).unwrap();
        assert!(stored.ratio() < 1.0);
        let second = Ttl::For(std::time::Duration::from_secs(1));
        memory.put_bytes("text", "again ".repeat(100).as_bytes(), second).unwrap();
        let stats = memory.stats().unwrap();
        assert_eq!((stats.entries, stats.bypassed, stats.raw_bytes), (2, 1, 856));
        clock.advance(std::time::Duration::from_secs(1));
        assert_eq!(memory.stats().unwrap().entries, 1);
        assert_eq!(memory.get_bytes("text").unwrap(), None);
        assert!(memory.delete("noise").unwrap());
        assert_eq!(memory.stats().unwrap().ratio().to_bits(), 1.0_f64.to_bits());
        assert!(matches!(memory.level(20), Err(Error::Invalid(_))));
    }
}
