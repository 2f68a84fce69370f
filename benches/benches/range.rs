//! Walks in the order of keys: 50 records lent and held, and the whole keyspace.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a bench that cannot open its store ends")]

use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use terrace::{Db, Keyspace, Options};
use terrace_benches::workload::{Key, Numbers, VALUE_LEN, fill_value, key};

const COUNT: u64 = 100_000;
const ROWS: usize = 50;

fn filled() -> (Db, Keyspace) {
    let db = Options::new().temporary().expect("a temporary store");
    let keyspace = db.keyspace("bench").expect("a keyspace");
    let mut value = [0; VALUE_LEN];
    for id in 0..COUNT {
        fill_value(id, 0, &mut value);
        keyspace.put(key(id), value).expect("a put");
    }
    assert!(keyspace.first().expect("the first record").is_some());
    (db, keyspace)
}

fn lent(keyspace: &Keyspace, from: &Key, rows: usize) -> usize {
    let (mut count, mut len) = (0, 0);
    let each = |_: &[u8], value: &[u8]| {
        (count, len) = (count + 1, len + value.len());
        if count == rows { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    keyspace.scan_with(&from[..].., each).expect("a walk");
    len
}

fn scans(c: &mut Criterion) {
    let (_db, keyspace) = filled();
    let mut numbers = Numbers::new(1);
    let mut group = c.benchmark_group("scan");
    group.bench_function("50, lent", |b| {
        b.iter(|| black_box(lent(&keyspace, &key(numbers.below(COUNT)), ROWS)));
    });
    group.bench_function("50, held", |b| {
        b.iter(|| {
            let from = key(numbers.below(COUNT));
            black_box(keyspace.range(&from[..]..).take(ROWS).flatten().count())
        });
    });
    group.throughput(Throughput::Elements(COUNT)).sample_size(10);
    group.bench_function("everything, lent", |b| {
        b.iter(|| black_box(lent(&keyspace, &[0; 24], usize::MAX)));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = scans
}
criterion_main!(benches);
