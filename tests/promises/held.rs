//! A snapshot that is held under full write load: it keeps what it shows, that is shown and
//! bounded, cleaning goes on, and when it is dropped its bytes come back. `TERRACE_HELD_SECONDS`
//! says for how long it is held: 6 by default, 600 by hand.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use terrace::{Db, Keyspace, Options, SnapshotOptions};
use terrace_tests::random::Random;

const KEYS: u64 = 5_000;
const VALUE_LEN: usize = 1_000;
/// Bytes that a record takes in the log.
const RECORD_LEN: u64 = 1_048;

fn load(ks: &Keyspace, version: u8) {
    (0..KEYS).for_each(|key| ks.put(key.to_be_bytes(), [version; VALUE_LEN]).unwrap());
}

/// What must hold at any moment while the snapshot lives.
fn assert_bounded(db: &Db) {
    let stats = db.stats();
    let [holder] = &stats.holders[..] else { panic!("{:#?}", stats.holders) };
    assert_eq!(holder.name.as_deref(), Some("report"));
    assert!(holder.kept_versions <= KEYS, "{holder:?}");
    assert!(holder.pinned_bytes <= KEYS * RECORD_LEN, "{holder:?}");
    let memory = db.ledger().memory;
    assert!(memory.versions <= KEYS * 128 && memory.total <= memory.budget, "{memory:?}");
    let kept = 2 * KEYS * RECORD_LEN;
    assert!(stats.disk_bytes <= 2 * kept + (16 << 20), "{} bytes", stats.disk_bytes);
}

struct Done(AtomicBool);

/// Ends the writer whatever happens, also when an assertion fails.
struct Ender<'d>(&'d Done);

impl Drop for Ender<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_held_snapshot_does_not_stop_cleaning_and_gives_its_bytes_back_when_dropped() {
    let seconds = std::env::var("TERRACE_HELD_SECONDS").map_or(6, |text| text.parse().unwrap());
    let options = Options::new().memory_budget(32 << 20).warm_budget(48 << 20);
    let db = options.segment_size(2 << 20).temporary().unwrap();
    let ks = db.keyspace("default").unwrap();
    load(&ks, 1);
    let snapshot = db.snapshot_with(SnapshotOptions::new().name("report"));
    let done = Done(AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _at_the_end = Ender(&done);
        scope.spawn(|| {
            let mut random = Random::from_environment(41);
            while !done.0.load(Ordering::Relaxed) {
                let key = random.below(KEYS).to_be_bytes();
                ks.put(key, [2; VALUE_LEN]).unwrap();
            }
        });
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut cleaned = 0;
        while Instant::now() < until || db.stats().user_bytes < 40 * KEYS * RECORD_LEN {
            std::thread::sleep(Duration::from_millis(300));
            assert_bounded(&db);
            for key in (0..KEYS).step_by(131) {
                let value = snapshot.get(&ks, key.to_be_bytes()).unwrap();
                assert_eq!(value.as_deref(), Some(&[1; VALUE_LEN][..]), "key {key}");
            }
            let now = db.stats().segments_cleaned;
            assert!(now >= cleaned);
            cleaned = now;
        }
        assert!(cleaned > 20, "{cleaned} segments cleaned while the snapshot was held");
    });
    drop(snapshot);
    assert!(db.settle(Duration::from_mins(1)).unwrap());
    let stats = db.stats();
    assert_eq!((stats.kept_versions, stats.pinned_bytes, stats.holders.len()), (0, 0, 0));
    let live = KEYS * RECORD_LEN;
    assert!(stats.disk_bytes <= live * 13 / 10 + (4 << 20), "{} bytes", stats.disk_bytes);
    crate::assert_exact(&db);
}
