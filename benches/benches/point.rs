//! Single keys: get by tier, get of absent keys, put, `multi_get`.
//! A goal of a get is its tier: the hot one is a volatile keyspace, the cold one an archive.

#![forbid(unsafe_code)]
#![expect(clippy::expect_used, reason = "a bench that cannot open its store ends")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use terrace::{Db, Keyspace, KeyspaceOptions, Options};
use terrace_benches::workload::{Key, Numbers, TEXT_LEN, Texts, VALUE_LEN, fill_value, key};

const COUNT: u64 = 100_000;
const TEXT_COUNT: u64 = 20_000;
const KEYS: u64 = 32;

/// A store whose log stays warm, with records in one keyspace.
fn filled(options: KeyspaceOptions) -> (Db, Keyspace) {
    let db = Options::new().temporary().expect("a temporary store");
    let keyspace = db.keyspace_with("bench", options).expect("a keyspace");
    let mut value = [0; VALUE_LEN];
    for id in 0..COUNT {
        fill_value(id, 0, &mut value);
        keyspace.put(key(id), value).expect("a put");
    }
    (db, keyspace)
}

/// A store of texts that has moved nearly everything to its archive.
fn archived() -> (Db, Keyspace) {
    let db = Options::new().memory_budget(4 << 20).warm_budget(4 << 20);
    let db = db.temporary().expect("a temporary store");
    let keyspace = db.keyspace("bench").expect("a keyspace");
    let texts = Texts::default();
    for id in 0..TEXT_COUNT {
        keyspace.put(key(id), texts.text(id)).expect("a put");
    }
    db.compact().expect("compacting");
    (db, keyspace)
}

fn length(keyspace: &Keyspace, key: &Key) -> usize {
    keyspace.get_with(key, <[u8]>::len).expect("a get").unwrap_or(0)
}

fn gets(c: &mut Criterion) {
    let mut group = c.benchmark_group("get");
    for (name, options) in [
        ("hot", KeyspaceOptions::new().volatile()),
        ("warm", KeyspaceOptions::new()),
        ("warm, unordered", KeyspaceOptions::new().unordered()),
    ] {
        let (_db, keyspace) = filled(options);
        let mut numbers = Numbers::new(1);
        group.bench_function(name, |b| {
            b.iter(|| assert_eq!(length(&keyspace, &key(numbers.below(COUNT))), VALUE_LEN));
        });
        group.bench_function(format!("{name}, absent"), |b| {
            b.iter(|| assert_eq!(length(&keyspace, &key(COUNT + numbers.below(COUNT))), 0));
        });
    }
    let (_db, keyspace) = archived();
    let mut numbers = Numbers::new(1);
    group.bench_function("cold", |b| {
        b.iter(|| assert_eq!(length(&keyspace, &key(numbers.below(TEXT_COUNT))), TEXT_LEN));
    });
    group.finish();
}

fn multi_gets(c: &mut Criterion) {
    let (_db, keyspace) = filled(KeyspaceOptions::new());
    let mut numbers = Numbers::new(2);
    let mut group = c.benchmark_group("multi_get");
    group.throughput(Throughput::Elements(KEYS));
    group.bench_function("32 warm", |b| {
        b.iter_batched(
            || (0..KEYS).map(|_| key(numbers.below(COUNT))).collect::<Vec<Key>>(),
            |keys| black_box(keyspace.multi_get(&keys).expect("a multi_get")),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn puts(c: &mut Criterion) {
    let mut group = c.benchmark_group("put");
    for (name, options) in [
        ("overwrite", KeyspaceOptions::new()),
        ("overwrite, unordered", KeyspaceOptions::new().unordered()),
    ] {
        let (_db, keyspace) = filled(options);
        let (mut numbers, mut value) = (Numbers::new(3), [0; VALUE_LEN]);
        group.bench_function(name, |b| {
            b.iter(|| {
                let id = numbers.below(COUNT);
                fill_value(id, id, &mut value);
                keyspace.put(key(id), value).expect("a put");
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = gets, multi_gets, puts
}
criterion_main!(benches);
