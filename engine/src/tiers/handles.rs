//! Handles that programs hold: moments, values, watchers; and a warning when one is held too long.
//! Knows who holds what and for how long; knows nothing of what a report calls suspect.

use crate::tiers::Tiers;
use crate::tiers::moments::Moment;
use crate::warm::versions::OldPlace;

impl Tiers {
    /// Replaced records that a moment sees, and their bytes in the log.
    pub(crate) fn kept_for(&self, moment: &Moment) -> (u64, u64) {
        let places = self.versions.places_at(moment.seq);
        let table = self.segments.load();
        let len = |place: &OldPlace| match place {
            OldPlace::Warm(at) => {
                let record = table.of(*at)?.record(u64::from(at.offset)).ok()?;
                Some(record.header.encoded_len())
            }
            _ => None,
        };
        (places.len() as u64, places.iter().filter_map(len).sum())
    }

    /// Carries the coarse clock on, and warns, once each, of what has been held for longer than
    /// the options say.
    pub(crate) fn watch_handles(&self) {
        let now = self.clock.monotonic_ms();
        self.pins.tick(now);
        let bound = self.options.handle_age_warning;
        let bound_ms = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
        let Some(before) = now.checked_sub(bound_ms) else { return };
        for moment in self.moments.take_old(before) {
            let (kind, name, site) = (moment.kind, &moment.name, moment.site);
            let (kept, pinned_bytes) = self.kept_for(&moment);
            let age_ms = now.saturating_sub(moment.created_ms);
            tracing::warn!(
                ?kind, ?name, %site, age_ms, kept, pinned_bytes,
                "a handle is held for long"
            );
        }
        for held in self.pins.take_old(before) {
            let site = held.site.map_or_else(|| "elsewhere".to_owned(), ToString::to_string);
            let (file, count, pinned_bytes) = (held.file, held.count, held.retired_len);
            let age_ms = now.saturating_sub(held.since_ms);
            tracing::warn!(site, file, count, age_ms, pinned_bytes, "values are held for long");
        }
        for behind in self.changes.take_stalled(self.visible(), before) {
            let (keyspace, site) = (&behind.watcher.keyspace, behind.watcher.site);
            let (changes, bytes) = (behind.changes, behind.bytes);
            tracing::warn!(keyspace, %site, changes, bytes, "a watcher does not read");
        }
    }
}
