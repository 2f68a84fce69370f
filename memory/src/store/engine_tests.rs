//! The store over the engine: conformance on disk, one owner, clocks that step, kills of the log.

use std::path::PathBuf;

use super::*;
use crate::store::conformance::{self, Subject};
use crate::store::{StoreExt, Ttl};

struct OnDisk {
    path: PathBuf,
    clock: Clock,
    store: Mutex<Option<EngineStore>>,
    _directory: tempfile::TempDir,
}

impl OnDisk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let clock = Clock::manual(Millis(1_800_000_000_000));
        let this = Self { path, clock, store: Mutex::new(None), _directory: directory };
        this.open();
        this
    }

    fn open(&self) {
        let db = Db::open(&self.path).unwrap();
        let store = EngineStore::with(&db, KEYSPACE, self.clock.clone()).unwrap();
        *self.store.lock() = Some(store);
    }

    fn engine(&self) -> EngineStore {
        self.store.lock().clone().unwrap()
    }
}

impl Subject for OnDisk {
    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.engine())
    }

    fn pass(&self, time: Duration) {
        self.clock.advance(time);
    }

    fn reopen(&self) -> bool {
        self.store.lock().take();
        self.open();
        true
    }
}

#[test]
fn the_store_over_the_engine_conforms() {
    let held = conformance::run(&OnDisk::new()).unwrap();
    assert!(held.len() >= 12, "{held:?}");
}

#[test]
fn a_keyspace_has_one_store_at_a_time_and_clones_share_it() {
    let db = terrace::Options::new().temporary().unwrap();
    let store = EngineStore::new(&db).unwrap();
    let clone = store.clone();
    drop(store);
    assert!(matches!(EngineStore::new(&db), Err(Error::Invalid(_))));
    let other = EngineStore::with(&db, "other", Clock::system()).unwrap();
    let ns = Ns::new("a").unwrap();
    clone.put(&ns, "k", "v", Ttl::Never).unwrap();
    assert_eq!(other.get(&ns, b"k").unwrap(), None);
    drop(clone);
    let again = EngineStore::new(&db).unwrap();
    assert_eq!(again.get(&ns, b"k").unwrap().unwrap().value, "v");
}

#[test]
fn expired_and_seen_stays_gone_when_the_wall_clock_is_set_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    let ns = Ns::new("a").unwrap();
    let start = Millis(1_800_000_000_000);
    let open = |clock| EngineStore::with(&Db::open(&path).unwrap(), KEYSPACE, clock).unwrap();
    let clock = Clock::manual(start);
    let store = open(clock.clone());
    store.put(&ns, "k", "v", Ttl::For(Duration::from_secs(1))).unwrap();
    clock.advance(Duration::from_secs(2));
    assert_eq!(store.get(&ns, b"k").unwrap(), None);
    drop(store);
    let store = open(Clock::manual(start));
    assert_eq!(store.get(&ns, b"k").unwrap(), None);
    assert!(store.now() >= start.after(Duration::from_secs(2)));
}

#[test]
fn more_namespaces_than_are_kept_in_memory_keep_their_order() {
    let db = terrace::Options::new().temporary().unwrap();
    let store = EngineStore::new(&db).unwrap();
    let ns = |i: usize| Ns::new(&format!("n{i}")).unwrap();
    for i in 0..SPACES_MAX + 10 {
        store.put(&ns(i), "k", "1", Ttl::Never).unwrap();
    }
    assert!(store.shared.spaces.lock().len() < SPACES_MAX);
    assert_eq!(store.put(&ns(3), "k", "2", Ttl::Never).unwrap(), Version(2));
}

#[test]
fn synced_commits_of_threads_are_on_stable_storage() {
    let db = terrace::Options::new().temporary().unwrap();
    let store = EngineStore::new(&db).unwrap();
    std::thread::scope(|scope| {
        for i in 0..4_u8 {
            let store = &store;
            scope.spawn(move || {
                let ns = Ns::new("a").unwrap();
                let batch = Batch::new(&ns).durability(Durability::Synced);
                store.commit(batch.put(vec![i], "v", Ttl::Never)).unwrap();
            });
        }
    });
    assert_eq!(db.durable_seq(), db.last_seq());
}

#[test]
fn after_the_engine_is_closed_calls_answer_closed() {
    let db = terrace::Options::new().temporary().unwrap();
    let store = EngineStore::new(&db).unwrap();
    db.close().unwrap();
    let ns = Ns::new("a").unwrap();
    assert!(matches!(store.get(&ns, b"k"), Err(Error::Closed)));
    assert!(matches!(store.put(&ns, "k", "v", Ttl::Never), Err(Error::Closed)));
    assert!(matches!(store.changes(&ns, Seq(0), 1, Duration::ZERO), Err(Error::Closed)));
}
