//! The leak report of an open store: growth, live handles, bytes that nothing owns.
//! Collects; what is counted where is the tiers', what is suspect the ledger's.

use std::collections::BTreeMap;

use crate::ledger::leaks::{HandleKind, LeakPolicy, LeakReport, LiveHandle, Unowned};
use crate::tiers::Tiers;
use crate::tiers::moments::HolderKind;

/// Everything that the policy asks about, as of now.
pub(crate) fn report(tiers: &Tiers, policy: &LeakPolicy) -> LeakReport {
    let mut report = LeakReport::default();
    if let Some((since_ms, growth)) = tiers.growth(policy) {
        report.since_ms = Some(since_ms);
        report.growth = growth;
    }
    let now = tiers.clock.monotonic_ms();
    moments(tiers, now, &mut report.handles);
    values(tiers, now, &mut report.handles);
    watchers(tiers, now, &mut report.handles);
    let age_max = u64::try_from(policy.handle_age.as_millis()).unwrap_or(u64::MAX);
    for handle in &mut report.handles {
        let waits = handle.kind != HandleKind::Watcher || handle.pinned_bytes > 0;
        handle.suspect = waits && handle.age_ms >= age_max;
    }
    report.handles.sort_by_key(|handle| std::cmp::Reverse(handle.age_ms));
    report.unowned = unowned(tiers);
    report
}

fn moments(tiers: &Tiers, now: u64, handles: &mut Vec<LiveHandle>) {
    handles.extend(tiers.moments.all().iter().map(|moment| LiveHandle {
        kind: match moment.kind {
            HolderKind::Snapshot => HandleKind::Snapshot,
            HolderKind::Iterator => HandleKind::Iterator,
            HolderKind::Transaction => HandleKind::Transaction,
        },
        name: moment.name.clone(),
        created_at: moment.site.to_string(),
        age_ms: now.saturating_sub(moment.created_ms),
        count: 1,
        pinned_bytes: tiers.kept_for(moment).1,
        mapped_bytes: 0,
        suspect: false,
    }));
}

/// Values, summed by the place that took them.
fn values(tiers: &Tiers, now: u64, handles: &mut Vec<LiveHandle>) {
    let mut by_site: BTreeMap<String, LiveHandle> = BTreeMap::new();
    for held in tiers.pins.held() {
        let site = held.site.map_or_else(|| "elsewhere".to_owned(), ToString::to_string);
        let handle = by_site.entry(site.clone()).or_insert(LiveHandle {
            kind: HandleKind::Value,
            name: None,
            created_at: site,
            age_ms: 0,
            count: 0,
            pinned_bytes: 0,
            mapped_bytes: 0,
            suspect: false,
        });
        handle.age_ms = handle.age_ms.max(now.saturating_sub(held.since_ms));
        handle.count += held.count;
        handle.pinned_bytes += held.retired_len;
        handle.mapped_bytes += held.mapped_len;
    }
    handles.extend(by_site.into_values());
}

fn watchers(tiers: &Tiers, now: u64, handles: &mut Vec<LiveHandle>) {
    use std::sync::atomic::Ordering::Relaxed;
    handles.extend(tiers.changes.behind(tiers.visible()).into_iter().map(|behind| {
        let watcher = &behind.watcher;
        let since = match behind.changes {
            0 => watcher.created_ms,
            _ => watcher.asked_ms.load(Relaxed),
        };
        LiveHandle {
            kind: HandleKind::Watcher,
            name: Some(format!("{}: {}", watcher.keyspace, watcher.prefix.escape_ascii())),
            created_at: watcher.site.to_string(),
            age_ms: now.saturating_sub(since),
            count: 1,
            pinned_bytes: behind.bytes,
            mapped_bytes: 0,
            suspect: false,
        }
    }));
}

fn unowned(tiers: &Tiers) -> Vec<Unowned> {
    let mut unowned = Vec::new();
    for (name, bytes) in tiers.orphan_files().unwrap_or_default() {
        unowned.push(Unowned { what: format!("file {name:?}"), bytes });
    }
    let pinned = tiers.append.lock().pinned_bytes();
    if pinned > 0 && tiers.versions.is_empty() {
        unowned.push(Unowned { what: "old versions in the log".into(), bytes: pinned });
    }
    unowned
}
