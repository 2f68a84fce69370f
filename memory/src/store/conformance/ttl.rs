//! Deadlines: what sets and keeps them, and that an expired record is absent everywhere.

use std::time::Duration;

use super::Bench;
use crate::error::{Error, Result};
use crate::store::{Batch, Guard, Scan, StoreExt, Ttl};

/// Long enough for a store that is far away, short enough to wait for.
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_hours(1);

pub(super) fn deadlines(bench: &Bench) -> Result<()> {
    let (store, ns) = (bench.store(), bench.ns("a"));
    let deadline = || store.get(&ns, b"k").map(|entry| entry.and_then(|entry| entry.deadline));
    let before = store.now();
    store.put(&ns, "k", "1", Ttl::For(LONG))?;
    let first = deadline()?.unwrap_or_default();
    assert!(first >= before.after(LONG) && first <= store.now().after(LONG), "{first} for an hour");
    store.put(&ns, "k", "2", Ttl::Keep)?;
    assert_eq!(deadline()?, Some(first), "Keep keeps it");
    store.put(&ns, "k", "3", Ttl::Until(first.after(LONG)))?;
    assert_eq!(deadline()?, Some(first.after(LONG)), "Until is that moment");
    assert!(store.touch(&ns, "k", Ttl::Never)?, "it is there");
    assert_eq!(deadline()?, None, "Never has none");
    assert_eq!(store.get(&ns, b"k")?.map(|entry| entry.value).as_deref(), Some(&b"3"[..]));
    store.put(&ns, "new", "", Ttl::Keep)?;
    assert_eq!(store.get(&ns, b"new")?.and_then(|entry| entry.deadline), None, "nothing to keep");
    for ttl in [Ttl::For(Duration::ZERO), Ttl::Until(before)] {
        let error = bench.error("a TTL that is over", store.put(&ns, "k", "", ttl));
        assert!(matches!(error, Error::Invalid(_)), "{ttl:?}: {error:?}");
    }
    assert_eq!(store.get(&ns, b"k")?.map(|entry| entry.value).as_deref(), Some(&b"3"[..]));
    store.put(&ns, "k", "4", Ttl::For(Duration::MAX))?;
    assert!(store.get(&ns, b"k")?.is_some(), "the longest TTL there is");
    Ok(())
}

pub(super) fn expired_is_absent(bench: &Bench) -> Result<()> {
    let (store, ns) = (bench.store(), bench.ns("a"));
    store.put(&ns, "k", "1", Ttl::For(SHORT))?;
    store.put(&ns, "l", "1", Ttl::Never)?;
    let version = store.get(&ns, b"k")?.map(|entry| entry.version).unwrap_or_default();
    bench.subject.pass(SHORT + Duration::from_millis(50));
    assert_eq!(store.get(&ns, b"k")?, None, "to a get");
    assert_eq!(store.scan(&ns, Scan::all())?.len(), 1, "to a scan");
    assert_eq!(store.scan(&ns, Scan::all().limit(1))?.len(), 1, "to the limit of a scan");
    assert!(!store.touch(&ns, "k", Ttl::For(LONG))?, "to a touch: it cannot be refreshed");
    assert!(!store.delete(&ns, "k")?, "to a delete");
    for is in [Guard::Any, Guard::Version(version)] {
        let batch = Batch::new(&ns).expect("k", is).put("k", "2", Ttl::Keep);
        match bench.error("a guard on an expired key", store.commit(batch)) {
            Error::Conflict { found: None, .. } => {}
            other => panic!("expected a conflict with nothing, found {other:?}"),
        }
    }
    let batch = Batch::new(&ns).expect("k", Guard::Absent).put("k", "2", Ttl::Keep);
    store.commit(batch)?;
    let entry = store.get(&ns, b"k")?;
    assert_eq!(entry.map(|entry| entry.deadline), Some(None), "no deadline of before is kept");
    Ok(())
}

pub(super) fn expired_stays_so(bench: &Bench) -> Result<()> {
    let ns = bench.ns("a");
    bench.store().put(&ns, "k", "1", Ttl::For(SHORT))?;
    let before = bench.store().now();
    bench.subject.pass(SHORT + Duration::from_millis(50));
    assert!(bench.store().now() >= before, "now does not go back");
    assert_eq!(bench.store().get(&ns, b"k")?, None);
    bench.subject.reopen();
    assert_eq!(bench.store().get(&ns, b"k")?, None, "nor after it was opened again");
    assert_eq!(bench.store().scan(&ns, Scan::all())?, []);
    Ok(())
}
