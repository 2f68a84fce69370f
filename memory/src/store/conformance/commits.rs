//! Reads, guards, whole commits, versions, scans, limits, namespaces, threads.

use std::thread;

use super::Bench;
use crate::error::{Error, Result};
use crate::store::{Batch, Bytes, Guard, Scan, StoreExt, Ttl, Version};

pub(super) fn reads(bench: &Bench) -> Result<()> {
    let (store, ns) = (bench.store(), bench.ns("a"));
    assert_eq!(store.get(&ns, b"k")?, None, "a key that was never put");
    for key in [&b""[..], b"k", b"\0", b"\0\xFF\0\x01", &[0xFF; 1024]] {
        for value in [&b""[..], b"v", &[0; 1000]] {
            let version = store.put(&ns, key.to_vec(), value.to_vec(), Ttl::Never)?;
            let entry = store.get(&ns, key)?.unwrap_or_else(|| panic!("{key:?} was put"));
            assert_eq!(entry.value, value, "the value of {key:?}");
            assert_eq!((entry.version, entry.deadline), (version, None), "of {key:?}");
        }
        assert!(store.delete(&ns, key.to_vec())?, "{key:?} was there");
        assert_eq!(store.get(&ns, key)?, None, "{key:?} was deleted");
        assert!(!store.delete(&ns, key.to_vec())?, "{key:?} was deleted before");
    }
    Ok(())
}

pub(super) fn guards(bench: &Bench) -> Result<()> {
    let (store, ns) = (bench.store(), bench.ns("a"));
    let put = |is| Batch::new(&ns).expect("k", is).put("k", "v", Ttl::Never);
    for is in [Guard::Any, Guard::Version(Version(1))] {
        match bench.error("a guard on an absent key", store.commit(put(is))) {
            Error::Conflict { key, found: None } => assert_eq!(key, "k"),
            other => panic!("expected a conflict, found {other:?}"),
        }
    }
    let first = store.commit(put(Guard::Absent))?.version;
    match bench.error("absent, again", store.commit(put(Guard::Absent))) {
        Error::Conflict { found, .. } => assert_eq!(found, Some(first), "what stands there"),
        other => panic!("expected a conflict, found {other:?}"),
    }
    let second = store.commit(put(Guard::Version(first)))?.version;
    assert!(matches!(
        bench.error("a version of before", store.commit(put(Guard::Version(first)))),
        Error::Conflict { found, .. } if found == Some(second)
    ));
    store.commit(put(Guard::Any))?;
    store.commit(Batch::new(&ns).expect("k", Guard::Any).delete("k"))?;
    store.commit(Batch::new(&ns).expect("k", Guard::Absent).expect("l", Guard::Absent))?;
    Ok(())
}

pub(super) fn whole(bench: &Bench) -> Result<()> {
    let (store, ns) = (bench.store(), bench.ns("a"));
    store.put(&ns, "old", "1", Ttl::Never)?;
    let batch = Batch::new(&ns)
        .put("new", "2", Ttl::Never)
        .delete("old")
        .put("other", "3", Ttl::Never)
        .expect("missing", Guard::Any);
    bench.error("a batch whose last guard fails", store.commit(batch.clone()));
    assert_eq!(store.get(&ns, b"new")?, None, "nothing of a failed batch");
    assert!(store.get(&ns, b"old")?.is_some(), "nothing of a failed batch");
    store.put(&ns, "missing", "", Ttl::Never)?;
    let commit = store.commit(batch)?;
    assert_eq!(store.get(&ns, b"old")?, None);
    let version = |key: &[u8]| store.get(&ns, key).map(|entry| entry.map(|entry| entry.version));
    assert_eq!(version(b"other")?, Some(commit.version), "the last change");
    assert_eq!(version(b"new")?, Some(Version(commit.version.0 - 2)), "two changes before it");
    let twice = Batch::new(&ns).put("x", "1", Ttl::Never).delete("x");
    assert!(matches!(bench.error("one key twice", store.commit(twice)), Error::Invalid(_)));
    Ok(())
}

pub(super) fn versions(bench: &Bench) -> Result<()> {
    let (store, ns) = (bench.store(), bench.ns("a"));
    let mut last = Version(0);
    for i in 0..50_u8 {
        let key = vec![i % 7];
        let version = store.put(&ns, key.clone(), vec![i], Ttl::Never)?;
        assert!(version > last, "{version:?} after {last:?}");
        last = version;
        if i % 11 == 0 {
            store.delete(&ns, key)?;
        }
    }
    let nothing = store.commit(Batch::new(&ns))?;
    assert!(nothing.version >= last, "an empty commit changes nothing");
    Ok(())
}

pub(super) fn scans(bench: &Bench) -> Result<()> {
    let (store, ns) = (bench.store(), bench.ns("a"));
    let keys: Vec<Vec<u8>> = vec![
        vec![],
        vec![0],
        vec![0, 0xFF],
        vec![1],
        b"a".to_vec(),
        b"a\0".to_vec(),
        b"ab".to_vec(),
        vec![0xFF],
        vec![0xFF, 0xFF],
    ];
    for key in keys.iter().rev() {
        store.put(&ns, key.clone(), key.clone(), Ttl::Never)?;
    }
    let found = |scan: Scan| -> Result<Vec<Vec<u8>>> {
        Ok(store.scan(&ns, scan)?.into_iter().map(|(key, _)| key.to_vec()).collect())
    };
    assert_eq!(found(Scan::all())?, keys, "all, in order");
    let reversed: Vec<_> = keys.iter().rev().cloned().collect();
    assert_eq!(found(Scan::all().reverse())?, reversed, "all, backwards");
    let some = |range: std::ops::Range<usize>| keys.get(range).unwrap_or(&[]).to_vec();
    assert_eq!(found(Scan::prefix(b"a"))?, some(4..7), "a prefix");
    assert_eq!(found(Scan::prefix(&[0xFF]))?, some(7..9), "a prefix that nothing follows");
    assert_eq!(found(Scan::all().from("a").before("ab"))?, some(4..6), "half open");
    assert_eq!(found(Scan::all().after("a").limit(1))?, some(5..6), "behind, one");
    assert_eq!(found(Scan::all().reverse().limit(2).before("ab"))?, [&b"a\0"[..], b"a"]);
    assert_eq!(found(Scan::all().from("b").before("a"))?, some(0..0), "bounds that cross");
    assert_eq!(found(Scan::all().limit(0))?, some(0..0), "none asked for");
    for (key, entry) in store.scan(&ns, Scan::all())? {
        assert_eq!(Some(entry), store.get(&ns, &key)?, "a scan reads what a get reads");
    }
    let mut walked = 0;
    store.walk(&ns, Scan::all().reverse().limit(5), |_, _| {
        walked += 1;
        Ok(true)
    })?;
    assert_eq!(walked, 5, "a walk stops at its limit");
    Ok(())
}

pub(super) fn limits(bench: &Bench) -> Result<()> {
    let (store, ns) = (bench.store(), bench.ns("a"));
    let is_limit = |doing: &str, error: Error| {
        assert!(matches!(error, Error::Limit { .. }), "{doing}: {error:?}");
    };
    let put = |key: Vec<u8>, value: Vec<u8>| store.put(&ns, key, value, Ttl::Never);
    is_limit("key", bench.error("a key of 1025 bytes", put(vec![1; 1025], vec![])));
    is_limit("key", bench.error("a key of 1025 bytes", store.get(&ns, &[1; 1025])));
    is_limit("value", bench.error("a value above 16 MiB", put(vec![1], vec![0; (16 << 20) + 1])));
    put(vec![1; 1024], vec![7; 1 << 20])?;
    let many = (0..10_001_u32).map(|i| i.to_be_bytes().to_vec());
    let batch = many.fold(Batch::new(&ns), |batch, key| batch.put(key, "", Ttl::Never));
    is_limit("batch", bench.error("10,001 operations", store.commit(batch)));
    let large = Bytes::from(vec![0; 16 << 20]);
    let batch =
        (0..5_u8).fold(Batch::new(&ns), |batch, i| batch.put(vec![i], large.clone(), Ttl::Never));
    is_limit("batch", bench.error("80 MiB at once", store.commit(batch)));
    let scan = Scan::all().limit(10_001);
    is_limit("scan", bench.error("10,001 rows", store.scan(&ns, scan)));
    Ok(())
}

pub(super) fn namespaces(bench: &Bench) -> Result<()> {
    let store = bench.store();
    let names = ["a", "ab", "a\0", "a\0b", "a/b"];
    for (i, name) in names.iter().enumerate() {
        store.put(&bench.ns(name), "k", i.to_string(), Ttl::Never)?;
    }
    for (i, name) in names.iter().enumerate() {
        let rows = store.scan(&bench.ns(name), Scan::all())?;
        let values: Vec<&[u8]> = rows.iter().map(|(_, entry)| &entry.value[..]).collect();
        assert_eq!(values, [i.to_string().as_bytes()], "the rows of {name:?} alone");
    }
    Ok(())
}

pub(super) fn threads(bench: &Bench) -> Result<()> {
    let (store, ns) = (bench.store(), bench.ns("a"));
    let (threads, rounds) = (4_u64, 50_u64);
    let add_one = || {
        store.update(&ns, "count", |old| {
            let text = old.map_or("0".into(), |old| String::from_utf8_lossy(&old.value));
            let count: u64 = text.parse().map_err(|_| Error::corrupt("count", text.clone()))?;
            Ok((Some(Bytes::from((count + 1).to_string())), Ttl::Keep))
        })
    };
    thread::scope(|scope| {
        let run = || (0..rounds).try_for_each(|_| add_one().map(|_| ()));
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        running.into_iter().try_for_each(|one| one.join().unwrap_or(Err(Error::Closed)))
    })?;
    let count = store.get(&ns, b"count")?.map(|entry| entry.value);
    let expected = (threads * rounds).to_string();
    assert_eq!(count.as_deref(), Some(expected.as_bytes()), "no update is lost");
    Ok(())
}
