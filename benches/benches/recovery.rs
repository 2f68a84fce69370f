//! Opening: after a close, and after a process that ended without one. The store of the second is a
//! copy of the files of an open store: what a kill leaves.

#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench copies files itself, and one that cannot open its store ends"
)]

use std::path::Path;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use tempfile::TempDir;
use terrace::Db;
use terrace_benches::workload::{VALUE_LEN, fill_value, key};

const COUNT: u64 = 100_000;

fn fill(db: &Db) {
    let keyspace = db.keyspace("bench").expect("a keyspace");
    let mut value = [0; VALUE_LEN];
    for id in 0..COUNT {
        fill_value(id, 0, &mut value);
        keyspace.put(key(id), value).expect("a put");
    }
}

fn copy(from: &Path) -> TempDir {
    let into = tempfile::tempdir().expect("a temporary directory");
    for entry in from.read_dir().expect("the store's directory").flatten() {
        std::fs::copy(entry.path(), into.path().join(entry.file_name())).expect("a copy");
    }
    into
}

fn open(dir: TempDir) -> (Db, TempDir) {
    let db = Db::open(dir.path()).expect("an open store");
    let keyspace = db.keyspace("bench").expect("a keyspace");
    assert!(keyspace.contains(key(COUNT - 1)).expect("a get"));
    (db, dir)
}

fn opens(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let db = Db::open(dir.path()).expect("a new store");
    fill(&db);
    db.settle(Duration::from_secs(10)).expect("settling");
    let killed = copy(dir.path());
    db.close().expect("closing");
    let mut group = c.benchmark_group("open, 100,000 keys");
    for (name, files) in [("after a close", dir.path()), ("after a kill", killed.path())] {
        group.bench_function(name, |b| {
            b.iter_batched(|| copy(files), open, BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = opens
}
criterion_main!(benches);
