//! No expired value is read on any path: sessions over the engine against a model, with clocks that
//! step either way, and restarts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::session::{MemoryKey, MemoryStore, Scope};
use crate::store::{Clock, EngineStore, Guard, Millis, Ns, Scan, Store, StoreExt, Ttl};
use proptest::prelude::*;

const START_MS: u64 = 1_800_000_000_000;

#[derive(Debug, Clone)]
enum Step {
    Set(u8, Option<u64>),
    Touch(u8, u64),
    Update(u8),
    Delete(u8),
    Read(u8),
    Pass(u64),
    /// Closes, and opens with a clock that stands so much earlier or later.
    Restart(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0_u8..5;
    prop_oneof![
        4 => (key.clone(), proptest::option::of(1_u64..400)).prop_map(|(k, t)| Step::Set(k, t)),
        2 => (key.clone(), 1_u64..400).prop_map(|(key, ttl)| Step::Touch(key, ttl)),
        2 => key.clone().prop_map(Step::Update),
        1 => key.clone().prop_map(Step::Delete),
        6 => key.prop_map(Step::Read),
        5 => (1_u64..300).prop_map(Step::Pass),
        2 => (-2000_i64..2000).prop_map(Step::Restart),
    ]
}

/// What a key holds, and until when by the store's own clock.
type Model = BTreeMap<u8, (u64, Option<Millis>)>;

struct Subject {
    path: PathBuf,
    clock: Clock,
    store: Option<Arc<EngineStore>>,
    _directory: tempfile::TempDir,
}

impl Subject {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let clock = Clock::manual(Millis(START_MS));
        let mut this = Self { path, clock, store: None, _directory: directory };
        this.open();
        this
    }

    fn open(&mut self) {
        self.store = None;
        let options = terrace::Options::new().memory_budget(16 << 20);
        let db = options.open(&self.path).unwrap();
        let store = EngineStore::with(&db, "memory", self.clock.clone()).unwrap();
        self.store = Some(Arc::new(store));
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(self.store.as_ref().unwrap()) as Arc<dyn Store>
    }
}

fn key(key: u8) -> MemoryKey {
    MemoryKey::new(Scope::User, "u", &format!("k{key}"))
}

fn live(model: &Model, key: u8, now: Millis) -> Option<u64> {
    let (value, deadline) = model.get(&key)?;
    deadline.is_none_or(|deadline| deadline > now).then_some(*value)
}

/// Every way to read says the same.
fn check_reads(store: &Arc<dyn Store>, model: &Model, at: u8) -> Result<(), TestCaseError> {
    let memory = MemoryStore::new(Arc::clone(store));
    let now = store.now();
    let expected = live(model, at, now);
    prop_assert_eq!(memory.get::<u64>(&key(at)).unwrap(), expected, "get of {} at {}", at, now);
    let left = memory.ttl(&key(at)).unwrap();
    let deadline = model.get(&at).and_then(|(_, deadline)| *deadline);
    let expected_left = expected.and(deadline).map(|deadline| deadline.since(now));
    prop_assert_eq!(left, expected_left, "what is left of {}", at);
    let listed = memory.list(Scope::User, Some("u"), None, 100).unwrap();
    let expected: Vec<MemoryKey> =
        model.keys().filter(|at| live(model, **at, now).is_some()).map(|at| key(*at)).collect();
    prop_assert_eq!(listed, expected);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn nothing_expired_is_read_whatever_the_clock_does(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut subject = Subject::new();
        let mut model = Model::new();
        for (i, step) in steps.into_iter().enumerate() {
            let (store, value) = (subject.store(), i as u64);
            let memory = MemoryStore::new(Arc::clone(&store));
            let now = store.now();
            match step {
                Step::Set(at, ttl) => {
                    let ttl = ttl.map(Duration::from_millis);
                    memory.set(&key(at), &value, ttl.map_or(Ttl::Never, Ttl::For)).unwrap();
                    model.insert(at, (value, ttl.map(|ttl| now.after(ttl))));
                }
                Step::Touch(at, ttl) => {
                    let ttl = Duration::from_millis(ttl);
                    let touched = memory.touch(&key(at), Ttl::For(ttl)).unwrap();
                    let there = live(&model, at, now);
                    prop_assert_eq!(touched, there.is_some(), "what is over is not refreshed");
                    if let Some(value) = there {
                        model.insert(at, (value, Some(now.after(ttl))));
                    }
                }
                Step::Update(at) => {
                    let there = live(&model, at, now);
                    let seen = memory.update(&key(at), |old: Option<u64>| Ok((Some(value), old)));
                    prop_assert_eq!(seen.unwrap(), there);
                    let kept = model.get(&at).filter(|_| there.is_some()).and_then(|one| one.1);
                    model.insert(at, (value, kept));
                }
                Step::Delete(at) => {
                    let there = live(&model, at, now).is_some();
                    prop_assert_eq!(memory.delete(&key(at)).unwrap(), there);
                    model.remove(&at);
                }
                Step::Read(at) => check_reads(&store, &model, at)?,
                Step::Pass(ms) => {
                    subject.clock.advance(Duration::from_millis(ms));
                }
                Step::Restart(by) => {
                    // What was read as expired is gone for good; the rest follows the clock.
                    let mut seen = Vec::new();
                    for at in 0..5 {
                        check_reads(&store, &model, at)?;
                        seen.extend(live(&model, at, now).is_none().then_some(at));
                    }
                    model.retain(|at, _| !seen.contains(at));
                    drop((memory, store));
                    let wall = now.0.saturating_add_signed(by);
                    subject.clock = Clock::manual(Millis(wall));
                    subject.open();
                    let store = subject.store();
                    for at in 0..5 {
                        check_reads(&store, &model, at)?;
                    }
                }
            }
        }
    }
}

#[test]
fn guards_scans_and_walks_do_not_see_what_is_over() {
    let subject = Subject::new();
    let (store, ns) = (subject.store(), Ns::new("n").unwrap());
    for i in 0..100_u8 {
        let ttl = Duration::from_millis(u64::from(i) + 1);
        store.put(&ns, vec![i], vec![i], Ttl::For(ttl)).unwrap();
    }
    subject.clock.advance(Duration::from_millis(50));
    let rows = store.scan(&ns, Scan::all()).unwrap();
    assert_eq!((rows.len(), rows[0].0[0]), (50, 50));
    let mut walked = 0;
    let all = Scan { limit: usize::MAX, ..Scan::all() };
    store
        .walk(&ns, all.reverse(), |_, entry| {
            walked += 1;
            Ok(entry.deadline > Some(store.now()))
        })
        .unwrap();
    assert_eq!(walked, 50);
    let batch = crate::store::Batch::new(&ns).expect(vec![49], Guard::Absent);
    assert!(store.commit(batch.expect(vec![50], Guard::Any)).is_ok());
}
