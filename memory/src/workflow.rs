//! Workflow state: a transition table, and one commit for a state and its line of history.
//! Knows states by name; what a state means, the program knows.
//!
//! Rows of a workflow: `s` the current state; `t` and a number, one step of its history.

mod table;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{Json, Schema};
use crate::error::{Error, Result};
use crate::retention::{Retention, retain_rows};
use crate::store::{Batch, Entry, Millis, Ns, Scan, Seq, Store, Ttl, retry};
pub use crate::workflow::table::{Transitions, TransitionsBuilder};

const STATE: &[u8] = b"s";

/// Where a workflow is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The state's name.
    pub name: String,
    /// What the last transition left with it.
    pub data: Json,
    /// How many transitions led here.
    pub version: u64,
    /// Since when.
    pub since: Millis,
}

/// One transition that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The state before.
    pub from: String,
    /// The state after.
    pub to: String,
    /// When.
    pub at: Millis,
    /// Its place: 1 for the first, without gaps.
    pub seq: Seq,
    /// What was left with the state.
    pub data: Json,
}

/// One workflow. Clones, and all handles of one id, share it.
///
/// A transition is one commit of state and history. Of two callers who leave the same state, the
/// second is judged by the state that the first led to.
#[derive(Clone)]
pub struct StatefulMemory {
    store: Arc<dyn Store>,
    ns: Ns,
    table: Transitions,
}

impl fmt::Debug for StatefulMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StatefulMemory({:?})", self.ns)
    }
}

impl StatefulMemory {
    /// The workflow of this id; begun in the table's initial state when there is none.
    ///
    /// Errors: [`Error::UnknownState`] when it is in a state that the table no longer has.
    pub fn open(store: Arc<dyn Store>, id: &str, table: Transitions) -> Result<Self> {
        let ns = Ns::within("workflow", id)?.without_log();
        let this = Self { store, ns, table };
        let (_, state) = retry(&this.ns, || match this.read()? {
            Some(found) => Ok(found),
            None => this.begin(),
        })?;
        if this.table.is_state(&state.name) {
            Ok(this)
        } else {
            Err(Error::UnknownState(state.name))
        }
    }

    fn begin(&self) -> Result<(Entry, State)> {
        let (name, since) = (self.table.initial().to_owned(), self.store.now());
        let state = State { name, data: Json::Null, version: 0, since };
        let batch = Batch::new(&self.ns).unchanged(STATE, None);
        self.store.commit(batch.put(STATE, Schema::default().encode(&state)?, Ttl::Never))?;
        self.read()?.ok_or(Error::Closed)
    }

    fn read(&self) -> Result<Option<(Entry, State)>> {
        let Some(entry) = self.store.get(&self.ns, STATE)? else { return Ok(None) };
        let state = Schema::default().decode(&entry.value)?;
        Ok(Some((entry, state)))
    }

    /// Where it is.
    ///
    /// Errors: [`Error::Closed`] when its rows were deleted.
    pub fn current(&self) -> Result<State> {
        self.read()?.map(|(_, state)| state).ok_or(Error::Closed)
    }

    /// Whether it may go to `to` now.
    pub fn can(&self, to: &str) -> Result<bool> {
        Ok(self.table.is_allowed(&self.current()?.name, to))
    }

    /// Goes to `to`, leaving `data` with it.
    ///
    /// Errors: [`Error::InvalidTransition`], [`Error::UnknownState`].
    #[doc(alias = "set_state")]
    #[doc(alias = "record_transition")]
    #[expect(clippy::needless_pass_by_value, reason = "the signature is the contract")]
    pub fn transition(&self, to: &str, data: Json) -> Result<Step> {
        retry(&self.ns, || {
            let (entry, state) = self.read()?.ok_or(Error::Closed)?;
            self.step(&entry, state, to, &data)
        })
    }

    /// Goes to `to` only from `expected`.
    ///
    /// Errors: [`Error::Conflict`] when it is in another state by now.
    #[expect(clippy::needless_pass_by_value, reason = "the signature is the contract")]
    pub fn transition_from(&self, expected: &str, to: &str, data: Json) -> Result<Step> {
        let done = retry(&self.ns, || {
            let (entry, state) = self.read()?.ok_or(Error::Closed)?;
            if state.name != expected {
                return Ok(Err(entry.version));
            }
            self.step(&entry, state, to, &data).map(Ok)
        })?;
        let key = Bytes::from_static(STATE);
        done.map_err(|version| Error::Conflict { key, found: Some(version) })
    }

    fn step(&self, read: &Entry, from: State, to: &str, data: &Json) -> Result<Step> {
        if !self.table.is_state(to) {
            return Err(Error::UnknownState(to.to_owned()));
        }
        if !self.table.is_allowed(&from.name, to) {
            return Err(Error::InvalidTransition { from: from.name, to: to.to_owned() });
        }
        let (at, version) = (self.store.now(), from.version + 1);
        let state = State { name: to.to_owned(), data: data.clone(), version, since: at };
        let (to, data) = (to.to_owned(), data.clone());
        let step = Step { from: from.name, to, at, seq: Seq(version), data };
        let batch = Batch::new(&self.ns)
            .unchanged(STATE, Some(read))
            .put(STATE, Schema::default().encode(&state)?, Ttl::Never)
            .put(step_key(step.seq), Schema::default().encode(&step)?, Ttl::Never);
        self.store.commit(batch)?;
        Ok(step)
    }

    /// Steps before a place, the newest first, at most `limit`.
    pub fn history(&self, before: Option<Seq>, limit: usize) -> Result<Vec<Step>> {
        let mut scan = Scan::prefix(b"t").reverse().limit(limit);
        if let Some(before) = before {
            scan = scan.before(step_key(before));
        }
        let rows = self.store.scan(&self.ns, scan)?;
        rows.iter().map(|(_, entry)| Schema::default().decode(&entry.value)).collect()
    }

    /// Deletes the oldest steps until the rest is within the bounds; answers how many went. The
    /// state stays. `size` is bytes as stored.
    pub fn retain(&self, retention: Retention) -> Result<u64> {
        let read = |stored: &[u8]| Schema::default().decode(stored).map(|row: Step| (row.at, None));
        retain_rows(&*self.store, &self.ns, b"t", retention, read)
    }
}

fn step_key(seq: Seq) -> Vec<u8> {
    let mut key = vec![b't'];
    key.extend_from_slice(&seq.0.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::store::{Clock, EngineStore, MemStore};

    fn table() -> Transitions {
        Transitions::builder("draft")
            .allow("draft", ["review"])
            .allow("review", ["draft", "done"])
            .terminal("done")
            .build()
            .unwrap()
    }

    #[test]
    fn history_has_the_real_state_before() {
        let store: Arc<dyn Store> = Arc::new(MemStore::new());
        let work = StatefulMemory::open(Arc::clone(&store), "w", table()).unwrap();
        assert_eq!(work.current().unwrap().name, "draft");
        assert!(work.can("review").unwrap() && !work.can("done").unwrap());
        work.transition("review", json!({ "by": "ada" })).unwrap();
        let step = work.transition_from("review", "done", Json::Null).unwrap();
        assert_eq!((step.from.as_str(), step.to.as_str(), step.seq), ("review", "done", Seq(2)));
        let wrong = work.transition("draft", Json::Null);
        assert!(matches!(wrong, Err(Error::InvalidTransition { from, .. }) if from == "done"));
        assert!(matches!(work.transition("dnoe", Json::Null), Err(Error::UnknownState(_))));
        let late = work.transition_from("review", "draft", Json::Null);
        assert!(matches!(late, Err(Error::Conflict { .. })));
        let again = StatefulMemory::open(store, "w", table()).unwrap();
        let history = again.history(None, 10).unwrap();
        let names: Vec<_> = history.iter().map(|step| (&*step.from, &*step.to)).collect();
        assert_eq!(names, [("review", "done"), ("draft", "review")]);
        assert_eq!(again.history(Some(Seq(2)), 10).unwrap()[0].data, json!({ "by": "ada" }));
        assert_eq!(again.current().unwrap().version, 2);
    }

    #[test]
    fn a_state_that_the_table_lost_is_named_when_it_is_opened() {
        let store: Arc<dyn Store> = Arc::new(MemStore::new());
        let work = StatefulMemory::open(Arc::clone(&store), "w", table()).unwrap();
        work.transition("review", Json::Null).unwrap();
        let other = Transitions::builder("draft").terminal("draft").build().unwrap();
        let lost = StatefulMemory::open(store, "w", other);
        assert!(matches!(lost, Err(Error::UnknownState(name)) if name == "review"));
    }

    #[test]
    fn of_two_that_leave_one_state_one_wins() {
        let db = terrace::Options::new().temporary().unwrap();
        let store = Arc::new(EngineStore::new(&db).unwrap());
        let work = StatefulMemory::open(store, "w", table()).unwrap();
        work.transition("review", Json::Null).unwrap();
        let results: Vec<_> = std::thread::scope(|scope| {
            let go = || work.transition_from("review", "done", Json::Null).is_ok();
            let running: Vec<_> = (0..4).map(|_| scope.spawn(go)).collect();
            running.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|won| **won).count(), 1);
        assert_eq!(work.history(None, 10).unwrap().len(), 2);
    }

    #[test]
    fn retention_drops_the_oldest_steps_and_keeps_the_state() {
        let clock = Clock::manual(Millis(1000));
        let store = Arc::new(MemStore::with_clock(clock.clone()));
        let ring = Transitions::builder("a").allow("a", ["b"]).allow("b", ["a"]).build().unwrap();
        let work = StatefulMemory::open(store, "w", ring).unwrap();
        for i in 0..20 {
            work.transition(if i % 2 == 0 { "b" } else { "a" }, Json::Null).unwrap();
            clock.advance(Duration::from_secs(1));
        }
        assert_eq!(work.retain(Retention::count(15)).unwrap(), 5);
        assert_eq!(work.retain(Retention::age(Duration::from_secs(10))).unwrap(), 5);
        let seqs: Vec<u64> = work.history(None, 99).unwrap().iter().map(|one| one.seq.0).collect();
        assert_eq!(seqs, (11..=20).rev().collect::<Vec<_>>());
        assert_eq!(work.retain(Retention::default()).unwrap(), 0);
        assert_eq!(work.transition("b", Json::Null).unwrap().seq, Seq(21));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn each_step_begins_where_the_one_before_ended(
            targets in proptest::collection::vec(0_usize..4, 0..40),
        ) {
            let work = StatefulMemory::open(Arc::new(MemStore::new()), "w", table()).unwrap();
            let mut model = "draft";
            for target in targets {
                let to = ["draft", "review", "done", "other"][target];
                let allowed = table().is_allowed(model, to);
                prop_assert_eq!(work.transition(to, Json::Null).is_ok(), allowed);
                model = if allowed { to } else { model };
                prop_assert_eq!(work.current().unwrap().name, model);
            }
            let mut history = work.history(None, 100).unwrap();
            history.reverse();
            let mut at = "draft".to_owned();
            for (i, step) in history.into_iter().enumerate() {
                prop_assert_eq!((step.from, step.seq), (at, Seq(i as u64 + 1)));
                at = step.to;
            }
            prop_assert_eq!(at, model);
        }
    }
}
