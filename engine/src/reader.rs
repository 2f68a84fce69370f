//! Reading one keyspace: what keyspace handles and iterators share.
//! Knows the hot tier comes first and who is admitted to it; the rest is the tiers'.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::handle::StoreHandle;
use crate::hot::HotRecord;
use crate::limits;
use crate::tiers::keyspaces::KeyspaceState;
use crate::tiers::read::{Hit, KeyRef};
use crate::tiers::{Tiers, bump};
use crate::value::Value;

/// One keyspace of one store, for reading.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub inner: Arc<StoreHandle>,
    pub state: Arc<KeyspaceState>,
}

impl Reader {
    fn tiers(&self) -> &Tiers {
        &self.inner.tiers
    }

    pub(crate) fn deadline(&self, ttl: Option<Duration>) -> u64 {
        let ttl = ttl.or_else(|| self.state.default_ttl());
        ttl.map_or(0, |ttl| self.tiers().clock.deadline_ms(ttl))
    }

    pub(crate) fn volatile_get<R>(
        &self,
        at: &KeyRef<'_>,
        read: impl FnOnce(HotRecord<'_>) -> R,
    ) -> Option<R> {
        let tiers = self.tiers();
        tiers.hot.get(at.hash, at.incarnation, at.key, || tiers.clock.now_ms(), read)
    }

    pub(crate) fn key_ref<'a>(&self, key: &'a [u8]) -> Result<KeyRef<'a>> {
        let incarnation = self.state.incarnation()?;
        let hash = self.tiers().seed.hash(incarnation, key);
        Ok(KeyRef { incarnation, hash, key })
    }

    /// The one read path of all handles: the hot copy, then the log and the archives.
    pub(crate) fn read<R>(
        &self,
        key: &[u8],
        hot: impl FnOnce(HotRecord<'_>) -> R,
        other: impl FnOnce(&Hit) -> R,
    ) -> Result<Option<R>> {
        limits::check_key(key)?;
        let tiers = self.tiers();
        tiers.check_open()?;
        let at = self.key_ref(key)?;
        if self.state.volatile {
            return Ok(self.volatile_get(&at, hot));
        }
        if !tiers.hot.is_empty_fast()
            && let Some(found) = self.volatile_get(&at, hot)
        {
            bump(&tiers.counters.hot_hits, 1);
            return Ok(Some(found));
        }
        let moves = tiers.moves();
        let Some(hit) = tiers.newest_hit(&at)? else { return Ok(None) };
        if matches!(hit, Hit::Cold(_)) {
            self.admit(&at, &hit, moves);
        }
        Ok(Some(other(&hit)))
    }

    /// A cold record that is touched a second time gets a copy in the hot tier.
    fn admit(&self, at: &KeyRef<'_>, hit: &Hit, moves: u64) {
        let tiers = self.tiers();
        if !tiers.hot.note_touch(at.hash) {
            return;
        }
        let (value, seq) = (hit.value(at.key), hit.seq());
        tiers.hot.admit(at.hash, at.incarnation, at.key, &value, seq, hit.deadline_ms(), || {
            tiers.is_newest(at, seq, moves)
        });
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        self.read(key, |record| Value::from(record.value), |hit| hit.value(key))
    }
}
