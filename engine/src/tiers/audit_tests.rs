//! The audit and `verify` can fail: a wrong account, a lost or misled entry of the index and a file
//! that nobody names are each told.

use super::*;
use crate::db::Db;
use crate::ids::Seq;
use crate::keyspace::Keyspace;
use crate::options::Options;
use crate::warm::active::walk_records;

/// A record of the journal's only segment.
struct Place {
    key: Vec<u8>,
    seq: Seq,
    at: Location,
    tag: u32,
    weight: Weight,
}

/// Ten keys, one of them written twice and one deleted; what lies where, in the order of `seq`.
fn store() -> (Db, Keyspace, Vec<Place>) {
    let mut options = Options::new().segment_size(1 << 20);
    options.workers = false;
    let db = options.temporary().unwrap();
    let ks = db.keyspace("some").unwrap();
    for key in ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "k3"] {
        ks.put(key, [b'v'; 100]).unwrap();
    }
    assert!(ks.delete("k9").unwrap());
    let tiers = ks.tiers();
    let mut places = Vec::new();
    let append = tiers.append.lock();
    let segment = &append.active.segment;
    walk_records(segment, append.active.records_end(), |offset, record| {
        places.push(Place {
            key: record.key.to_vec(),
            seq: record.header.seq,
            at: Location::new(segment.slot, offset),
            tag: tiers.seed.hash(record.header.incarnation, record.key).tag(),
            weight: Weight::of(&record.header),
        });
        Ok(())
    })
    .unwrap();
    drop(append);
    assert_eq!(places.len(), 12);
    (db, ks, places)
}

/// The lines of the audit that differ, without file and figures.
fn lines(db: &Db) -> Vec<String> {
    let audit = db.audit().unwrap();
    assert_eq!(audit.is_exact(), audit.differences.is_empty());
    let line = |text: &String| {
        let (_, line) = text.split_once(".seg: ").unwrap();
        line.split(|c: char| c.is_ascii_digit()).next().unwrap().trim().to_owned()
    };
    audit.differences.iter().map(line).collect()
}

/// The fields of what `verify` names.
fn fields(db: &Db) -> Vec<&'static str> {
    db.verify(|_| ()).unwrap().damage.iter().map(|damage| damage.field).collect()
}

#[test]
fn each_line_of_a_wrong_account_is_told() {
    let (db, ks, places) = store();
    let tiers = ks.tiers();
    assert_eq!(lines(&db), [""; 0]);
    let Place { at, weight, .. } = &places[5];
    type Change<'c> = &'c dyn Fn(&mut SegmentAccount);
    let cases: [(Change<'_>, &[&str]); 4] = [
        (&|account| account.record_bytes -= 8, &["records"]),
        (&|account| account.kill(weight), &["live", "live records"]),
        (&|account| account.tombstone_bytes -= 8, &["tombstone"]),
        (&|account| account.damage(at.offset, weight), &["live", "live records", "damaged"]),
    ];
    for (change, expected) in cases {
        let right = tiers.append.lock().account(at.slot).unwrap().clone();
        change(tiers.append.lock().account(at.slot).unwrap());
        assert_eq!(lines(&db), expected);
        *tiers.append.lock().account(at.slot).unwrap() = right;
        assert_eq!(lines(&db), [""; 0], "behind {expected:?}");
    }
}

#[test]
fn an_entry_that_the_index_lost_or_that_leads_elsewhere_is_told() {
    let (db, ks, places) = store();
    let tiers = ks.tiers();
    assert_eq!(fields(&db), [""; 0]);
    let newest = places.iter().filter(|place| place.key == b"k3").max_by_key(|place| place.seq);
    let (newest, oldest, other) = (newest.unwrap(), &places[3], &places[6]);
    assert!(oldest.key == newest.key && oldest.seq < newest.seq);
    let lead = |to: Option<Location>| {
        let mut append = tiers.append.lock();
        let found = tiers.index.find_for_change(&append.index, newest.tag, |entry| {
            Ok::<_, Error>(entry.tag == newest.tag)
        });
        let found = found.unwrap();
        match (found, to) {
            (Some(found), Some(to)) => tiers.index.replace(&mut append.index, &found, to, false),
            (Some(found), None) => tiers.index.remove(&mut append.index, &found).unwrap(),
            (None, Some(to)) => {
                tiers.index.insert(&mut append.index, newest.tag, to, false).unwrap();
            }
            (None, None) => {}
        }
    };
    lead(Some(oldest.at));
    assert_eq!(fields(&db), ["index"], "an older version");
    lead(Some(other.at));
    assert!(fields(&db).contains(&"index entry"), "another key");
    lead(None);
    assert_eq!(fields(&db), ["index"; 2], "no entry for either version");
    assert_eq!(lines(&db), ["live", "live records"]);
    lead(Some(newest.at));
    assert_eq!(fields(&db), [""; 0]);
    assert_eq!(lines(&db), [""; 0]);
}

#[test]
fn a_file_that_the_manifest_does_not_name_is_an_orphan() {
    let (db, ks, _) = store();
    let tiers = ks.tiers();
    assert_eq!(db.audit().unwrap().orphans, [""; 0]);
    let name = "0000099999.seg";
    tiers.dir.create(name).unwrap();
    let audit = db.audit().unwrap();
    assert_eq!((audit.orphans, audit.differences), (vec![name.to_owned()], Vec::new()));
    tiers.dir.unlink(name).unwrap();
    assert!(db.audit().unwrap().is_exact());
}
