//! The change log: order without gaps, what is no longer kept, waiting, and opening again.

use std::thread;
use std::time::Duration;

use super::Bench;
use crate::error::{Error, Result};
use crate::store::{Batch, ChangeKind, Guard, LogRetention, Scan, Seq, StoreExt, Ttl};

pub(super) fn changes(bench: &Bench) -> Result<()> {
    let (store, ns) = (bench.store(), bench.ns("a"));
    let read = |after, limit| store.changes(&ns, Seq(after), limit, Duration::ZERO);
    assert_eq!(read(0, 10)?, [], "of a namespace that was never written");
    store.put(&ns, "a", "1", Ttl::Never)?;
    let batch = Batch::new(&ns).put("b", "2", Ttl::Never).delete("a").delete("missing");
    let commit = store.commit(batch)?;
    let failing = Batch::new(&ns).put("c", "3", Ttl::Never).expect("x", Guard::Any);
    bench.error("a failing batch", store.commit(failing));
    let found = read(0, 10)?;
    let seen: Vec<_> = found.iter().map(|one| (one.seq.0, &one.key[..], one.kind)).collect();
    let expected = [
        (1, &b"a"[..], ChangeKind::Put),
        (2, b"b", ChangeKind::Put),
        (3, b"a", ChangeKind::Delete),
    ];
    assert_eq!(seen, expected, "each once, in order, without gaps; none for what did not happen");
    assert_eq!(commit.seq, Seq(3));
    let version = store.get(&ns, b"b")?.map(|entry| entry.version);
    assert_eq!(found.get(1).map(|one| one.version), version, "the version that was put");
    assert_eq!(read(1, 1)?.first().map(|one| one.seq), Some(Seq(2)), "from there, one");
    assert_eq!(read(3, 10)?, [], "behind the last");
    assert_eq!(read(3000, 10)?, [], "far behind the last");
    assert_eq!(read(0, 0)?, [], "none asked for");
    let quiet = bench.ns("quiet").without_log();
    store.put(&quiet, "k", "v", Ttl::Never)?;
    let error = bench.error("changes", store.changes(&quiet, Seq(0), 1, Duration::ZERO));
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    Ok(())
}

pub(super) fn truncated(bench: &Bench) -> Result<()> {
    let store = bench.store();
    let count = LogRetention { count: 5, ..LogRetention::default() };
    let ns = bench.ns("count").with_log(count);
    for i in 0..20_u8 {
        store.put(&ns, vec![i], "", Ttl::Never)?;
    }
    let read = |ns, after| store.changes(ns, Seq(after), 100, Duration::ZERO);
    let first = match bench.error("changes of before", read(&ns, 0)) {
        Error::Truncated { first } => first.0,
        other => panic!("expected the first that is kept, found {other:?}"),
    };
    assert!(first > 1 && first <= 16, "the first kept is {first}");
    let kept = read(&ns, first - 1)?;
    assert_eq!(kept.len() as u64, 21 - first, "all from there");
    let large = (0..50_u8).fold(Batch::new(&ns), |batch, i| batch.put(vec![i], "", Ttl::Never));
    store.commit(large)?;
    store.put(&ns, "last", "", Ttl::Never)?;
    assert_eq!(read(&ns, 70)?.len(), 1, "the newest is always kept");
    let age = LogRetention { age: Some(Duration::from_millis(200)), ..LogRetention::default() };
    let ns = bench.ns("age").with_log(age);
    store.put(&ns, "a", "", Ttl::Never)?;
    bench.subject.pass(Duration::from_millis(300));
    store.put(&ns, "b", "", Ttl::Never)?;
    store.put(&ns, "c", "", Ttl::Never)?;
    let error = bench.error("changes of before", read(&ns, 0));
    assert!(matches!(error, Error::Truncated { first: Seq(2) }), "{error:?}");
    let bytes = LogRetention { bytes: Some(1000), ..LogRetention::default() };
    let ns = bench.ns("bytes").with_log(bytes);
    for i in 0..30_u8 {
        store.put(&ns, vec![i; 500], "", Ttl::Never)?;
    }
    let error = bench.error("changes of before", read(&ns, 20));
    assert!(matches!(error, Error::Truncated { .. }), "{error:?}");
    Ok(())
}

pub(super) fn waiting(bench: &Bench) -> Result<()> {
    let (store, ns) = (bench.store(), bench.ns("a"));
    let short = Duration::from_millis(20);
    assert_eq!(store.changes(&ns, Seq(0), 1, short)?, [], "nothing came");
    let found = thread::scope(|scope| {
        let waiting = scope.spawn(|| store.changes(&ns, Seq(0), 10, Duration::from_secs(20)));
        let put = store.put(&ns, "k", "v", Ttl::Never);
        let found = waiting.join().unwrap_or(Err(Error::Closed));
        put.and(found)
    })?;
    assert_eq!(found.len(), 1, "who waits is woken by a commit");
    Ok(())
}

pub(super) fn reopening(bench: &Bench) -> Result<()> {
    let (ns, quiet) = (bench.ns("a"), bench.ns("b").without_log());
    let first = bench.store().put(&ns, "k", "1", Ttl::Never)?;
    let quiet_first = bench.store().put(&quiet, "k", "1", Ttl::Never)?;
    bench.store().delete(&quiet, "k")?;
    if !bench.subject.reopen() {
        return Ok(());
    }
    let store = bench.store();
    let entry = store.get(&ns, b"k")?;
    assert_eq!(entry.map(|entry| entry.version), Some(first), "what was put is there");
    assert_eq!(store.put(&ns, "k", "2", Ttl::Never)?.0, first.0 + 1, "the order goes on");
    let changes = store.changes(&ns, Seq(0), 10, Duration::ZERO)?;
    let seqs: Vec<u64> = changes.iter().map(|one| one.seq.0).collect();
    assert_eq!(seqs, [1, 2], "without a gap");
    let quiet_next = store.put(&quiet, "k", "2", Ttl::Never)?;
    assert!(quiet_next.0 > quiet_first.0 + 1, "no version is given twice: {quiet_next:?}");
    assert_eq!(store.scan(&quiet, Scan::all())?.len(), 1);
    Ok(())
}
