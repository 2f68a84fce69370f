//! Watching a keyspace: every committed change once, in the order of `seq`.
//! Thin: the changes are the tiers'; this is one consumer's place among them.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::handle::StoreHandle;
use crate::ids::{Incarnation, Seq};
use crate::key::Key;
use crate::tiers::changes::{Change, Happened, Watcher};
use crate::tiers::keyspaces::KeyspaceState;

/// How long a blocking wait lasts before it looks whether the store was closed.
const WAIT: Duration = Duration::from_millis(500);

/// What happened to a key, or to all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchKind {
    /// The key has a new value or a new deadline.
    Put,
    /// The key was deleted.
    Delete,
    /// All keys are gone: the keyspace was cleared. The event has no key.
    Clear,
    /// The keyspace was dropped; nothing follows. The event has no key.
    Drop,
}

/// One committed change. It carries no value: what the key holds now, `get` says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WatchEvent {
    /// The mutation's place in the order of all mutations.
    pub seq: u64,
    /// The key; empty when the change is of all keys.
    pub key: Key,
    /// What happened.
    pub kind: WatchKind,
}

/// A consumer of the changes of one keyspace.
///
/// Expiry is not a change. The store keeps the changes of late for all consumers together, a
/// sixty-fourth of the memory budget; who falls behind further gets [`Error::Lagged`] once, and
/// goes on with the first change that is still kept. As an iterator it waits for the next change,
/// and ends when the store is closed or the keyspace dropped.
#[derive(Debug)]
pub struct Watch {
    inner: Arc<StoreHandle>,
    prefix: Box<[u8]>,
    incarnation: Option<Incarnation>,
    failed: Option<Error>,
    seen: Seq,
    watcher: Arc<Watcher>,
}

impl Watch {
    #[track_caller]
    pub(crate) fn new(inner: &Arc<StoreHandle>, state: &KeyspaceState, prefix: &[u8]) -> Self {
        let tiers = &inner.tiers;
        let (incarnation, seen) = {
            let _no_writer = tiers.append.lock();
            let seen = tiers.visible();
            tiers.changes.subscribe(seen);
            (state.incarnation(), seen)
        };
        let checked = tiers.check_open().and(incarnation).and_then(|incarnation| {
            if state.volatile {
                let expected = "a durable one: changes of a volatile one have no order";
                return Err(Error::invalid("keyspace to watch", "a volatile one", expected));
            }
            Ok(incarnation)
        });
        let (incarnation, failed) = match checked {
            Ok(incarnation) => (Some(incarnation), None),
            Err(error) => (None, Some(error)),
        };
        let (site, now_ms) = (Location::caller(), tiers.clock.monotonic_ms());
        let watcher = Arc::new(Watcher::new(&state.name, prefix, site, seen, now_ms));
        tiers.changes.add_watcher(&watcher);
        let inner = Arc::clone(inner);
        Self { inner, prefix: prefix.into(), incarnation, failed, seen, watcher }
    }

    /// The next change, or `None` when there was none for so long, or none will come any more.
    ///
    /// Errors: [`Error::Lagged`], [`Error::Closed`].
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<WatchEvent>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let tiers = &self.inner.tiers;
        let now_ms = || tiers.clock.monotonic_ms();
        let until = now_ms().saturating_add(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        while let Some(incarnation) = self.incarnation {
            tiers.check_open()?;
            let wait = Duration::from_millis(until.saturating_sub(now_ms())).min(WAIT);
            let event = |change: &Change| event_of(change, incarnation, &self.prefix);
            let found = tiers.changes.next_after(self.seen, wait, || tiers.visible(), event);
            let (seen, found) = match found {
                Ok(found) => found,
                Err(first_available) => {
                    self.seen = Seq(first_available.saturating_sub(1));
                    self.watcher.note(self.seen, now_ms());
                    return Err(Error::Lagged { first_available });
                }
            };
            self.seen = seen;
            self.watcher.note(seen, now_ms());
            if let Some((event, incarnation)) = found {
                self.incarnation = incarnation;
                return Ok(Some(event));
            }
            if now_ms() >= until {
                break;
            }
        }
        Ok(None)
    }
}

/// The event that a change is to a watcher, and the incarnation to watch from there on.
fn event_of(
    change: &Change,
    incarnation: Incarnation,
    prefix: &[u8],
) -> Option<(WatchEvent, Option<Incarnation>)> {
    if change.incarnation != incarnation {
        return None;
    }
    let (kind, after) = match change.happened {
        Happened::Put => (WatchKind::Put, Some(incarnation)),
        Happened::Deleted => (WatchKind::Delete, Some(incarnation)),
        Happened::Ended { next: 0 } => (WatchKind::Drop, None),
        Happened::Ended { next } => (WatchKind::Clear, Some(Incarnation(next))),
    };
    let of_all = matches!(kind, WatchKind::Drop | WatchKind::Clear);
    (of_all || change.key.starts_with(prefix)).then(|| {
        let event = WatchEvent { seq: change.seq.0, key: Key::from(&*change.key), kind };
        (event, after)
    })
}

impl Iterator for Watch {
    type Item = Result<WatchEvent>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_timeout(WAIT) {
                Ok(Some(event)) => return Some(Ok(event)),
                Ok(None) if self.incarnation.is_none() => return None,
                Ok(None) => {}
                Err(Error::Closed) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.inner.tiers.changes.remove_watcher(&self.watcher);
        self.inner.tiers.changes.unsubscribe();
    }
}
