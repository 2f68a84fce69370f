//! The model of a store: what every answer should be; a `BTreeMap` under a clock that a test sets.
//! Knows keys, deadlines and sequence numbers; knows nothing of tiers, files or durability.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Bytes of a key or a value.
pub type Bytes = Vec<u8>;

/// One record as the model keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelRecord {
    /// What was put.
    pub value: Bytes,
    /// The sequence number of the put.
    pub seq: u64,
    /// In milliseconds; `None` never expires.
    pub deadline_ms: Option<u64>,
}

impl ModelRecord {
    fn lives_at(&self, now_ms: u64) -> bool {
        self.deadline_ms.is_none_or(|deadline| now_ms < deadline)
    }
}

/// What a change of one record does: the model's `Change`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelChange {
    /// Puts a value and keeps the deadline.
    Put(Bytes),
    /// Puts a value with a new time to live, in milliseconds.
    PutTtl(Bytes, u64),
    /// Deletes.
    Delete,
    /// Leaves the record as it is.
    Keep,
}

/// One keyspace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ModelKeyspace {
    default_ttl_ms: Option<u64>,
    records: BTreeMap<Bytes, ModelRecord>,
}

/// A whole store. A clone is a snapshot: it freezes the records, and [`Model::set_now`] moves its
/// time, since expiry is judged at now in snapshots too.
///
/// Every mutation that changes something takes a sequence number; a delete of a key that is not
/// there takes none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    now_ms: u64,
    seq: u64,
    keyspaces: BTreeMap<String, ModelKeyspace>,
}

impl Model {
    /// An empty store at a moment.
    pub fn new(now_ms: u64) -> Self {
        Self { now_ms, ..Self::default() }
    }

    /// The moment at which deadlines are judged.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Moves the clock. It never goes back.
    pub fn set_now(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// The highest sequence number that was taken.
    pub fn last_seq(&self) -> u64 {
        self.seq
    }

    /// Creates a keyspace unless it is there.
    pub fn keyspace(&mut self, name: &str, default_ttl_ms: Option<u64>) {
        let fresh = || ModelKeyspace { default_ttl_ms, records: BTreeMap::new() };
        self.keyspaces.entry(name.to_owned()).or_insert_with(fresh);
    }

    /// The names of all keyspaces, in order.
    pub fn keyspaces(&self) -> Vec<&str> {
        self.keyspaces.keys().map(String::as_str).collect()
    }

    /// Removes a keyspace with all records; answers whether it was there.
    pub fn drop_keyspace(&mut self, name: &str) -> bool {
        self.keyspaces.remove(name).is_some()
    }

    /// Puts with the keyspace's default time to live.
    pub fn put(&mut self, keyspace: &str, key: &[u8], value: &[u8]) {
        let ttl_ms = self.keyspaces.get(keyspace).and_then(|one| one.default_ttl_ms);
        let deadline_ms = self.deadline(ttl_ms);
        self.store(keyspace, key, value.to_vec(), deadline_ms);
    }

    /// Puts with a time to live of its own.
    pub fn put_ttl(&mut self, keyspace: &str, key: &[u8], value: &[u8], ttl_ms: u64) {
        let deadline_ms = self.deadline(Some(ttl_ms));
        self.store(keyspace, key, value.to_vec(), deadline_ms);
    }

    /// Deletes; answers whether the key was there.
    pub fn delete(&mut self, keyspace: &str, key: &[u8]) -> bool {
        let was_there = self.get(keyspace, key).is_some();
        if let Some(one) = self.keyspaces.get_mut(keyspace)
            && one.records.remove(key).is_some()
            && was_there
        {
            self.seq += 1;
        }
        was_there
    }

    /// Gives a living record a new deadline; answers whether it was there.
    pub fn touch(&mut self, keyspace: &str, key: &[u8], ttl_ms: u64) -> bool {
        let Some(value) = self.get(keyspace, key).map(<[u8]>::to_vec) else { return false };
        self.put_ttl(keyspace, key, &value, ttl_ms);
        true
    }

    /// Changes one record by what it was.
    pub fn update(
        &mut self,
        keyspace: &str,
        key: &[u8],
        change: impl FnOnce(Option<&[u8]>) -> ModelChange,
    ) {
        let old = self.record(keyspace, key);
        // `Put` keeps the deadline of a living record; a new record takes the keyspace's default.
        let kept = old.map(|record| record.deadline_ms);
        match change(old.map(|record| record.value.as_slice())) {
            ModelChange::Put(value) => match kept {
                Some(deadline_ms) => self.store(keyspace, key, value, deadline_ms),
                None => self.put(keyspace, key, &value),
            },
            ModelChange::PutTtl(value, ttl_ms) => self.put_ttl(keyspace, key, &value, ttl_ms),
            ModelChange::Delete => drop(self.delete(keyspace, key)),
            ModelChange::Keep => {}
        }
    }

    /// Removes every record of a keyspace.
    pub fn clear(&mut self, keyspace: &str) {
        if let Some(one) = self.keyspaces.get_mut(keyspace) {
            one.records.clear();
            self.seq += 1;
        }
    }

    /// Removes every record whose key begins with `prefix`; answers how many were there.
    pub fn delete_prefix(&mut self, keyspace: &str, prefix: &[u8]) -> usize {
        let keys: Vec<Bytes> =
            self.prefix(keyspace, prefix).into_iter().map(|(key, _)| key.to_vec()).collect();
        keys.iter().filter(|key| self.delete(keyspace, key)).count()
    }

    /// The value of a key that is there and has not expired.
    pub fn get(&self, keyspace: &str, key: &[u8]) -> Option<&[u8]> {
        self.record(keyspace, key).map(|record| record.value.as_slice())
    }

    /// The record of a key that is there and has not expired.
    pub fn record(&self, keyspace: &str, key: &[u8]) -> Option<&ModelRecord> {
        let record = self.keyspaces.get(keyspace)?.records.get(key)?;
        record.lives_at(self.now_ms).then_some(record)
    }

    /// The living records of a range, in the order of their keys.
    pub fn range(
        &self,
        keyspace: &str,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Vec<(&[u8], &[u8])> {
        let Some(one) = self.keyspaces.get(keyspace) else { return Vec::new() };
        let inside = |key: &[u8]| {
            let above = match from {
                Bound::Included(from) => key >= from,
                Bound::Excluded(from) => key > from,
                Bound::Unbounded => true,
            };
            let below = match to {
                Bound::Included(to) => key <= to,
                Bound::Excluded(to) => key < to,
                Bound::Unbounded => true,
            };
            above && below
        };
        let living = one.records.iter().filter(|(_, record)| record.lives_at(self.now_ms));
        let pairs = living.map(|(key, record)| (key.as_slice(), record.value.as_slice()));
        pairs.filter(|(key, _)| inside(key)).collect()
    }

    /// The living records whose key begins with `prefix`, in order.
    pub fn prefix(&self, keyspace: &str, prefix: &[u8]) -> Vec<(&[u8], &[u8])> {
        let all = self.range(keyspace, Bound::Included(prefix), Bound::Unbounded);
        all.into_iter().take_while(|(key, _)| key.starts_with(prefix)).collect()
    }

    /// How many records live.
    pub fn len(&self, keyspace: &str) -> usize {
        self.range(keyspace, Bound::Unbounded, Bound::Unbounded).len()
    }

    /// Whether no record lives.
    pub fn is_empty(&self, keyspace: &str) -> bool {
        self.len(keyspace) == 0
    }

    fn deadline(&self, ttl_ms: Option<u64>) -> Option<u64> {
        ttl_ms.map(|ttl_ms| self.now_ms.saturating_add(ttl_ms))
    }

    fn store(&mut self, keyspace: &str, key: &[u8], value: Bytes, deadline_ms: Option<u64>) {
        let one = self.keyspaces.get_mut(keyspace);
        assert!(one.is_some(), "the test made keyspace {keyspace} first");
        if let Some(one) = one {
            self.seq += 1;
            one.records.insert(key.to_vec(), ModelRecord { value, seq: self.seq, deadline_ms });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        let mut model = Model::new(1_000);
        model.keyspace("a", None);
        model.keyspace("brief", Some(50));
        model
    }

    #[test]
    fn a_record_is_there_until_its_deadline_and_not_at_it() {
        let mut model = model();
        model.put("brief", b"k", b"v");
        model.set_now(1_049);
        assert_eq!(model.get("brief", b"k"), Some(&b"v"[..]));
        model.set_now(1_050);
        assert_eq!(model.get("brief", b"k"), None);
        assert!(!model.delete("brief", b"k") && model.is_empty("brief"));
    }

    #[test]
    fn a_put_sets_the_deadline_anew_and_a_changed_value_keeps_it() {
        let mut model = model();
        model.put_ttl("a", b"k", b"1", 10);
        model.update("a", b"k", |old| {
            assert_eq!(old, Some(&b"1"[..]));
            ModelChange::Put(b"2".to_vec())
        });
        assert_eq!(model.record("a", b"k").and_then(|record| record.deadline_ms), Some(1_010));
        model.put("a", b"k", b"3");
        assert_eq!(model.record("a", b"k").and_then(|record| record.deadline_ms), None);
    }

    #[test]
    fn an_expired_record_does_not_lend_its_deadline_to_a_new_one() {
        let mut model = model();
        model.put_ttl("brief", b"k", b"1", 10);
        model.set_now(1_010);
        model.update("brief", b"k", |old| {
            assert_eq!(old, None);
            ModelChange::Put(b"2".to_vec())
        });
        assert_eq!(model.record("brief", b"k").and_then(|one| one.deadline_ms), Some(1_060));
    }

    #[test]
    fn ranges_and_prefixes_are_in_order_and_leave_out_what_expired() {
        let mut model = model();
        for key in [&b"b"[..], b"ab", b"a", b"ac"] {
            model.put("a", key, b"v");
        }
        model.put_ttl("a", b"aa", b"v", 1);
        model.set_now(1_001);
        let keys = |pairs: Vec<(&[u8], &[u8])>| -> Vec<Bytes> {
            pairs.into_iter().map(|(key, _)| key.to_vec()).collect()
        };
        assert_eq!(keys(model.prefix("a", b"a")), [&b"a"[..], b"ab", b"ac"]);
        let range = model.range("a", Bound::Excluded(b"a"), Bound::Included(b"b"));
        assert_eq!(keys(range), [&b"ab"[..], b"ac", b"b"]);
        assert_eq!(model.delete_prefix("a", b"a"), 3);
        assert_eq!(model.len("a"), 1);
    }

    #[test]
    fn a_clone_is_a_snapshot_and_its_records_expire_all_the_same() {
        let mut model = model();
        model.put_ttl("a", b"k", b"1", 10);
        let mut snapshot = model.clone();
        model.put("a", b"k", b"2");
        assert_eq!(snapshot.get("a", b"k"), Some(&b"1"[..]));
        snapshot.set_now(1_010);
        assert_eq!(snapshot.get("a", b"k"), None);
        assert_eq!(snapshot.last_seq() + 1, model.last_seq());
    }
}
