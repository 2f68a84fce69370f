//! Random operations, side by side with an ordered map: the store answers as the map does.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Bench, Random};
use crate::clock::Millis;
use crate::error::{Error, Result};
use crate::store::{Batch, Guard, Scan, Store, Ttl, Version};

const OPERATIONS: u64 = 1500;
const STEP: Duration = Duration::from_millis(40);

#[derive(Default)]
struct Model {
    rows: BTreeMap<Vec<u8>, (Vec<u8>, Version, Option<Millis>)>,
}

impl Model {
    fn live(&self, key: &[u8], now: Millis) -> Option<&(Vec<u8>, Version, Option<Millis>)> {
        self.rows.get(key).filter(|(_, _, deadline)| deadline.is_none_or(|at| at > now))
    }
}

/// A deadline so near that the clock may reach it between the store's answer and the model's.
fn is_near(deadline: Option<Millis>, now: Millis) -> bool {
    deadline.is_some_and(|at| at.0.abs_diff(now.0) < 15)
}

pub(super) fn model(bench: &Bench) -> Result<()> {
    let ns = bench.ns("a");
    let (mut random, mut model) = (Random(7), Model::default());
    for step in 0..OPERATIONS {
        let store = bench.store();
        let key = vec![u8::try_from(random.below(12)).unwrap_or(0)];
        let now = store.now();
        if model.rows.values().any(|(_, _, deadline)| is_near(*deadline, now)) {
            bench.subject.pass(Duration::from_millis(35));
            continue;
        }
        let live = model.live(&key, now).cloned();
        match random.below(10) {
            0..4 => {
                let (guard, holds) = guard(&mut random, live.as_ref().map(|(_, at, _)| *at));
                let ttl = match random.below(3) {
                    0 => Ttl::Never,
                    1 => Ttl::Keep,
                    _ => Ttl::For(STEP * u32::try_from(2 + random.below(5)).unwrap_or(2)),
                };
                let value = step.to_le_bytes().to_vec();
                let put = Batch::new(&ns).put(key.clone(), value.clone(), ttl);
                let put = guard.into_iter().fold(put, |put, is| put.expect(key.clone(), is));
                match store.commit(put) {
                    Ok(commit) => {
                        assert!(holds, "step {step}: the guard {guard:?} did not hold");
                        let stored = store.get(&ns, &key)?.and_then(|entry| entry.deadline);
                        model.rows.insert(key, (value, commit.version, stored));
                    }
                    Err(Error::Conflict { found, .. }) => {
                        assert!(!holds, "step {step}: the guard {guard:?} held");
                        assert_eq!(found, live.map(|(_, version, _)| version), "step {step}");
                    }
                    Err(error) => return Err(error),
                }
            }
            4 => {
                store.commit(Batch::new(&ns).delete(key.clone()))?;
                model.rows.remove(&key);
            }
            5 => {
                bench.subject.pass(STEP);
            }
            6 if random.below(40) == 0 => {
                drop(store);
                bench.subject.reopen();
            }
            7 => compare_scan(bench, store.as_ref(), &model, step)?,
            _ => {
                let found = store.get(&ns, &key)?;
                let found = found.map(|one| (one.value.to_vec(), one.version, one.deadline));
                assert_eq!(found, live, "step {step}: key {key:?}");
            }
        }
    }
    Ok(())
}

/// A guard or none, and whether it holds.
fn guard(random: &mut Random, live: Option<Version>) -> (Option<Guard>, bool) {
    match random.below(4) {
        0 => (Some(Guard::Absent), live.is_none()),
        1 => (Some(Guard::Any), live.is_some()),
        2 => {
            let version = live.map_or(Version(1), |version| version);
            (Some(Guard::Version(version)), live.is_some())
        }
        _ => (None, true),
    }
}

fn compare_scan(bench: &Bench, store: &dyn Store, model: &Model, step: u64) -> Result<()> {
    let found = store.scan(&bench.ns("a"), Scan::all())?;
    let found: Vec<_> = found.into_iter().map(|(key, one)| (key.to_vec(), one.version)).collect();
    let now = store.now();
    let live = model.rows.iter().filter(|(key, _)| model.live(key, now).is_some());
    let expected: Vec<_> = live.map(|(key, (_, version, _))| (key.clone(), *version)).collect();
    assert_eq!(found, expected, "step {step}: a scan of all");
    Ok(())
}
