//! Marking a baseline and sampling every class of bytes since then, in bounded memory.
//! Knows where each class is counted; what is suspect, the ledger says.

use std::collections::BTreeMap;

use crate::ids::{Incarnation, Seq};
use crate::ledger::KeyspaceBytes;
use crate::ledger::leaks::{Growth, LeakPolicy, is_growing};
use crate::ledger::prefixes::shared_prefixes;
use crate::ledger::trend::Trend;
use crate::tiers::Tiers;
use crate::tiers::append::Append;
use crate::tiers::census::Census;
use crate::warm::account::SegmentAccount;

/// Samples that are kept; when there are more, every second goes and the distance doubles.
const SAMPLES_MAX: usize = 64;
/// Milliseconds between the first samples.
const SAMPLE_EVERY_MS: u64 = 250;
/// Keyspaces that are told apart; the smaller ones are left out.
const KEYSPACES_MAX: usize = 256;
/// Growing keyspaces whose prefixes are looked for.
const PREFIXED_MAX: usize = 16;

/// Live bytes of records that have no deadline.
pub(crate) const LASTING: &str = "live without deadline";
/// Live bytes of records that have one.
const EXPIRING: &str = "live with deadline";
/// Superseded, deleted and expired records and tombstones: what movement reclaims.
const GARBAGE: &str = "garbage";

/// A class of bytes, of a keyspace where it has one.
type Class = (&'static str, Option<String>);
type Classes = BTreeMap<Class, u64>;

/// What was when a program marked it, and what has been since.
#[derive(Debug)]
pub(crate) struct Baseline {
    at_ms: u64,
    wall_ms: u64,
    seq: Seq,
    census: Census,
    samples: Vec<(u64, Classes)>,
    every_ms: u64,
}

impl Baseline {
    fn push(&mut self, now_ms: u64, classes: Classes) {
        if self.samples.len() >= SAMPLES_MAX {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
            self.every_ms *= 2;
        }
        self.samples.push((now_ms, classes));
    }

    fn trend(&self, class: &Class) -> Trend {
        let figure = |classes: &Classes| classes.get(class).copied().unwrap_or(0);
        self.samples.iter().map(|(ms, classes)| (*ms, figure(classes))).collect()
    }
}

impl Tiers {
    /// Marks this moment: growth is counted from here.
    pub(crate) fn mark_baseline(&self) {
        let mut baseline = self.baseline.lock();
        let at_ms = self.clock.monotonic_ms();
        *baseline = Some(Baseline {
            at_ms,
            wall_ms: self.clock.now_ms(),
            seq: self.visible(),
            census: self.census(),
            samples: vec![(at_ms, self.class_bytes())],
            every_ms: SAMPLE_EVERY_MS,
        });
    }

    /// Takes a sample when one is due; does nothing without a baseline.
    pub(crate) fn sample_classes(&self) {
        let Some(mut baseline) = self.baseline.try_lock() else { return };
        let Some(baseline) = baseline.as_mut() else { return };
        let now = self.clock.monotonic_ms();
        let last = baseline.samples.last().map_or(0, |(ms, _)| *ms);
        if now >= last + baseline.every_ms {
            baseline.push(now, self.class_bytes());
        }
    }

    /// What grew since the baseline, the largest growth first; and for how long it was watched.
    pub(crate) fn growth(&self, policy: &LeakPolicy) -> Option<(u64, Vec<Growth>)> {
        let mut baseline = self.baseline.lock();
        let baseline = baseline.as_mut()?;
        let now_ms = self.clock.monotonic_ms();
        baseline.push(now_ms, self.class_bytes());
        let classes = baseline.samples.iter().flat_map(|(_, classes)| classes.keys().cloned());
        let classes: std::collections::BTreeSet<Class> = classes.collect();
        let mut growth: Vec<Growth> = classes
            .into_iter()
            .filter_map(|class| {
                let trend = baseline.trend(&class);
                let (before, now) = (trend.first()?, trend.last()?);
                let suspect = is_growing(policy, &trend) && self.may_leak(class.0, now);
                let (slope, prefixes) = (trend.slope(), Vec::new());
                let (class, keyspace) = class;
                let growth = Growth { class, keyspace, before, now, slope, prefixes, suspect };
                (now > before).then_some(growth)
            })
            .collect();
        growth.sort_by_key(|one| std::cmp::Reverse(one.now - one.before));
        self.name_prefixes(baseline, &mut growth);
        Some((now_ms.saturating_sub(baseline.at_ms), growth))
    }

    /// What has a bound of its own leaks only beyond it.
    fn may_leak(&self, class: &str, now: u64) -> bool {
        match class {
            "memory: hot" | "memory: changes" | "memory: versions" => false,
            GARBAGE => {
                let live = self.append.lock().live_bytes();
                now > live * 3 / 10 + (4 << 20)
            }
            _ => true,
        }
    }

    fn name_prefixes(&self, baseline: &Baseline, growth: &mut [Growth]) {
        let of_live = |one: &&mut Growth| one.keyspace.is_some();
        let mut growing: Vec<_> = growth.iter_mut().filter(of_live).take(PREFIXED_MAX).collect();
        if growing.is_empty() {
            return;
        }
        let mut came = self.newcomers(&baseline.census, baseline.seq, baseline.wall_ms);
        for one in &mut growing {
            let name = one.keyspace.as_deref().unwrap_or_default();
            let Some(state) = self.keyspaces.by_name(name) else { continue };
            let Ok(incarnation) = state.incarnation() else { continue };
            let lasting = one.class == LASTING;
            let mut sample = came.get_mut(&incarnation).cloned().unwrap_or_default();
            sample.retain(|key| key.lasting == lasting);
            one.prefixes = shared_prefixes(sample);
        }
    }

    /// The bytes of every class now. Constant work a segment and an archive; reads no file.
    fn class_bytes(&self) -> Classes {
        let mut classes = Classes::new();
        let mut keyspaces = {
            let append = self.append.lock();
            let accounts = append.accounts.iter().flatten();
            let garbage = accounts.map(|account| account.dead_bytes() + account.tombstone_bytes);
            classes.insert((GARBAGE, None), garbage.sum());
            self.keyspace_bytes(&append)
        };
        keyspaces.sort_by_key(|one| std::cmp::Reverse(one.warm + one.cold));
        for one in keyspaces.into_iter().take(KEYSPACES_MAX) {
            let expiring = (one.warm + one.cold).saturating_sub(one.lasting);
            classes.insert((EXPIRING, Some(one.name.clone())), expiring);
            classes.insert((LASTING, Some(one.name)), one.lasting);
        }
        let mut overhead = 0;
        let mut dead = 0;
        for entry in self.cold.load().entries() {
            let lens = entry.archive.lens();
            overhead += lens.index + lens.tables + lens.filter + lens.dictionary;
            dead += entry.dead.total().encoded_len;
        }
        *classes.entry((GARBAGE, None)).or_default() += dead;
        let memory = self.memory();
        for (class, bytes) in [
            ("archive overhead", overhead),
            ("manifest", self.manifest.file_lens().0),
            ("unlinked", self.pins.retired_len()),
            ("memory: hot", memory.hot),
            ("memory: index", memory.index),
            ("memory: order", memory.order),
            ("memory: versions", memory.versions),
            ("memory: changes", memory.changes),
            ("memory: filters", memory.filters),
        ] {
            classes.insert((class, None), bytes);
        }
        classes
    }

    /// What the records of each keyspace take, sorted by name.
    pub(crate) fn keyspace_bytes(&self, append: &Append) -> Vec<KeyspaceBytes> {
        let now = self.clock.now_ms();
        let mut sums: BTreeMap<Incarnation, KeyspaceBytes> = BTreeMap::new();
        for group in append.accounts.iter().flatten().flat_map(SegmentAccount::groups) {
            let sum = sums.entry(group.incarnation).or_default();
            if group.class_end_ms <= now {
                sum.expired += group.bytes;
                continue;
            }
            sum.warm += group.bytes;
            sum.lasting += if group.class_end_ms == u64::MAX { group.bytes } else { 0 };
        }
        for entry in self.cold.load().entries() {
            let tables = entry.archive.tables();
            for row in &tables.incarnations {
                let dead = entry.dead.of_incarnation(row.incarnation).encoded_len;
                let live = row.encoded_len.saturating_sub(dead);
                let sum = sums.entry(row.incarnation).or_default();
                sum.cold += live;
                sum.lasting += live;
            }
            for (index, row) in tables.classes.iter().enumerate() {
                let dead = entry.dead.of_class(index).encoded_len;
                let live = row.encoded_len.saturating_sub(dead);
                let sum = sums.entry(row.incarnation).or_default();
                sum.lasting = sum.lasting.saturating_sub(live);
                if row.end_ms <= now {
                    sum.cold = sum.cold.saturating_sub(live);
                    sum.expired += live;
                }
            }
        }
        let mut named: BTreeMap<String, KeyspaceBytes> = BTreeMap::new();
        for (incarnation, sum) in sums {
            // What ended and is not reclaimed yet is garbage.
            let Some(state) = self.keyspaces.counted(incarnation) else { continue };
            let one = named.entry(state.name.clone()).or_default();
            one.name.clone_from(&state.name);
            one.warm += sum.warm;
            one.cold += sum.cold;
            one.lasting += sum.lasting;
            one.expired += sum.expired;
        }
        named.into_values().collect()
    }
}
