//! Token budgets: a limit over a window of time, one atomic check-and-add, reservations.
//! Knows requests and tokens; what a token is, `tokens` says.
//!
//! Rows of a budget: `h` is the header that every change rewrites under a guard; `i` and the
//! request's id is what the request used; `u`, the moment and the id is the same in order of time.

mod header;
mod window;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::budget::header::{Header, Open};
pub use crate::budget::window::{Calendar, Period, Window};
use crate::codec::Schema;
use crate::error::{Error, Result};
use crate::keys;
use crate::store::{Batch, Bytes, Entry, Millis, Ns, Scan, Store, StoreExt, Ttl, retry};

/// The longest id of a request, in bytes.
pub const REQUEST_ID_LEN_MAX: u64 = 512;
/// The most reservations that are open at a time.
pub const RESERVATIONS_MAX: u64 = 1024;

const HEADER: &[u8] = b"h";
/// How long a reservation is kept for a process that died.
const RESERVATION_TTL: Duration = Duration::from_mins(10);
/// How long what a request used is kept.
const HISTORY: Duration = Duration::from_hours(90 * 24);
/// Every so many changes, old rows are removed.
const PRUNE_EVERY: u64 = 16;
/// So many at a time.
const PRUNE_ROWS: usize = 64;

/// What one request used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Whose request.
    pub request_id: String,
    /// How many tokens.
    pub tokens: u64,
    /// When it was recorded, by the store's clock.
    pub at: Millis,
}

/// A budget of tokens. Clones share it, and so do all trackers of one name in one store.
///
/// [`TokenBudgetTracker::record`] checks and adds in one step, and once for one request. What a
/// request will use is not known before: [`TokenBudgetTracker::reserve`] holds an upper bound back
/// until it is settled or dropped.
#[derive(Clone)]
pub struct TokenBudgetTracker {
    store: Arc<dyn Store>,
    ns: Ns,
    limit: u64,
    window: Window,
    reservation_ttl: Duration,
    history: Duration,
}

impl fmt::Debug for TokenBudgetTracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ns, limit, window, .. } = self;
        write!(f, "TokenBudgetTracker({ns:?}, {limit} tokens, {window:?})")
    }
}

impl TokenBudgetTracker {
    /// The budget of this name: at most `limit` tokens over `window`.
    ///
    /// Limit and window may differ from those of before; the window is then counted anew.
    pub fn new(store: Arc<dyn Store>, name: &str, limit: u64, window: Window) -> Result<Self> {
        let ns = Ns::within("token-budget", name)?.without_log();
        let mut history = HISTORY;
        if let Window::Rolling(length) = window {
            if length.is_zero() {
                return Err(Error::Invalid("a window of no time"));
            }
            history = history.max(length.saturating_mul(2));
        }
        Ok(Self { store, ns, limit, window, reservation_ttl: RESERVATION_TTL, history })
    }

    /// How long a reservation is held for a process that died. Ten minutes unless set.
    #[must_use]
    pub fn reservation_ttl(mut self, ttl: Duration) -> Self {
        self.reservation_ttl = ttl;
        self
    }

    /// How long what a request used is kept: so long it is counted once, and shown by `usage`. At
    /// least twice a rolling window; 90 days unless set.
    #[must_use]
    pub fn history(mut self, history: Duration) -> Self {
        let window = match self.window {
            Window::Rolling(length) => length.saturating_mul(2),
            Window::Calendar(_) => Duration::from_hours(32 * 24),
            Window::Forever => Duration::ZERO,
        };
        self.history = history.max(window);
        self
    }

    /// Tokens that are left: the limit less what was used in the window, less what is reserved.
    #[doc(alias = "get_remaining_budget")]
    pub fn remaining(&self) -> Result<u64> {
        retry(&self.ns, || {
            let (entry, header) = self.header()?;
            let version = entry.as_ref().map(|entry| entry.version);
            let after = self.store.get(&self.ns, HEADER)?.map(|entry| entry.version);
            // Rows were summed between the two reads: they belong to one header, or again.
            if after == version { Ok(header.remaining(self.limit)) } else { Err(conflict(after)) }
        })
    }

    /// Records what a request used, if it is left; answers what remains. Atomic: of two that do not
    /// both fit, one fails. The same request with the same tokens counts once.
    ///
    /// Errors: [`Error::BudgetExceeded`]; [`Error::Conflict`] when the request was recorded with
    /// another number of tokens.
    #[doc(alias = "record_usage")]
    #[doc(alias = "track_request")]
    pub fn record(&self, request_id: &str, tokens: u64) -> Result<u64> {
        self.add(request_id, tokens, true)
    }

    /// Holds `at_most` tokens back for a request. Settle it with [`Reservation::commit`]; dropped,
    /// it is refunded; after a crash it ends by itself. A second one for the same request takes the
    /// place of the first.
    ///
    /// Errors: [`Error::BudgetExceeded`]; [`Error::Conflict`] when the request was recorded;
    /// [`Error::Limit`] above [`RESERVATIONS_MAX`] open ones.
    pub fn reserve(&self, request_id: &str, at_most: u64) -> Result<Reservation> {
        check_id(request_id)?;
        let token = retry(&self.ns, || {
            let (entry, mut header) = self.header()?;
            let id = id_key(request_id);
            if let Some(used) = self.store.get(&self.ns, &id)? {
                return Err(Error::Conflict { key: id, found: Some(used.version) });
            }
            drop(header.take(request_id));
            Error::check_limit("open reservations", header.open.len() + 1, RESERVATIONS_MAX)?;
            let remaining = header.remaining(self.limit);
            if at_most > remaining {
                return Err(Error::BudgetExceeded { needed: at_most, remaining });
            }
            header.changes += 1;
            let (token, deadline) = (header.changes, self.store.now().after(self.reservation_ttl));
            let request_id = request_id.to_owned();
            header.open.push(Open { request_id, at_most, deadline, token });
            self.commit(
                entry.as_ref(),
                &header,
                Batch::new(&self.ns).expect(id, crate::store::Guard::Absent),
            )?;
            Ok(token)
        })?;
        let (tracker, request_id) = (self.clone(), request_id.to_owned());
        Ok(Reservation { tracker, request_id, at_most, token, settled: false })
    }

    /// What was used since a moment, the oldest first, at most `limit` requests.
    pub fn usage(&self, since: Millis, limit: usize) -> Result<Vec<Usage>> {
        let scan = Scan::prefix(b"u").from(used_key(since, "")).limit(limit);
        let rows = self.store.scan(&self.ns, scan)?;
        rows.iter().map(|(_, entry)| Schema::default().decode(&entry.value)).collect()
    }

    fn add(&self, request_id: &str, tokens: u64, checked: bool) -> Result<u64> {
        check_id(request_id)?;
        retry(&self.ns, || {
            let (entry, mut header) = self.header()?;
            let id = id_key(request_id);
            if let Some(found) = self.store.get(&self.ns, &id)? {
                let used: Usage = Schema::default().decode(&found.value)?;
                if used.tokens == tokens {
                    return Ok(header.remaining(self.limit));
                }
                return Err(Error::Conflict { key: id, found: Some(found.version) });
            }
            drop(header.take(request_id));
            let remaining = header.remaining(self.limit);
            if checked && tokens > remaining {
                return Err(Error::BudgetExceeded { needed: tokens, remaining });
            }
            let at = self.store.now();
            header.add(tokens, at);
            let usage = Usage { request_id: request_id.to_owned(), tokens, at };
            let usage = Schema::default().encode(&usage)?;
            let batch = Batch::new(&self.ns)
                .expect(id.clone(), crate::store::Guard::Absent)
                .put(used_key(at, request_id), usage.clone(), Ttl::Never)
                .put(id, usage, Ttl::Never);
            self.commit(entry.as_ref(), &header, batch)?;
            Ok(header.remaining(self.limit))
        })
    }

    fn refund(&self, request_id: &str, token: u64) -> Result<()> {
        retry(&self.ns, || {
            let (entry, mut header) = self.header()?;
            match header.take(request_id) {
                Some(open) if open.token == token => {
                    self.commit(entry.as_ref(), &header, Batch::new(&self.ns))
                }
                _ => Ok(()),
            }
        })
    }

    /// Writes the header with the rest of a change, and now and then removes old rows.
    fn commit(&self, read: Option<&Entry>, header: &Header, mut batch: Batch) -> Result<()> {
        if header.changes.is_multiple_of(PRUNE_EVERY) {
            let kept = Millis(self.store.now().0.saturating_sub(Millis(0).after(self.history).0));
            let old = Scan::prefix(b"u").before(used_key(kept, "")).limit(PRUNE_ROWS);
            for (key, _) in self.store.scan(&self.ns, old)? {
                let id = String::from_utf8_lossy(key.get(9..).unwrap_or(&[])).into_owned();
                batch = batch.delete(key).delete(id_key(&id));
            }
        }
        let batch = batch.unchanged(HEADER, read);
        self.store.commit(batch.put(HEADER, Schema::default().encode(header)?, Ttl::Never))?;
        Ok(())
    }

    /// The header as of now: reservations that ended and usage that left the window are out.
    fn header(&self) -> Result<(Option<Entry>, Header)> {
        let entry = self.store.get(&self.ns, HEADER)?;
        let mut header: Header = match &entry {
            Some(entry) => Schema::default().decode(&entry.value)?,
            None => Header { window: self.window.describe(), ..Header::default() },
        };
        let now = self.store.now();
        header.expire(now);
        let cutoff = self.window.cutoff(now);
        if header.window != self.window.describe() {
            header.window = self.window.describe();
            header.used = match cutoff {
                None => header.total,
                Some(cutoff) => self.sum(cutoff, header.last)?,
            };
        } else if let Some(cutoff) = cutoff {
            let since = header.cutoff.unwrap_or_default();
            header.used = if cutoff >= header.last {
                0
            } else if matches!(self.window, Window::Calendar(_)) && cutoff > since {
                self.sum(cutoff, header.last)?
            } else {
                header.used.saturating_sub(self.sum(since, cutoff)?)
            };
        }
        header.cutoff = cutoff;
        Ok((entry, header))
    }

    /// Tokens used behind the moment `after`, up to and including `to`.
    fn sum(&self, after: Millis, to: Millis) -> Result<u64> {
        if to <= after {
            return Ok(0);
        }
        let moment = |at: Millis| used_key(Millis(at.0.saturating_add(1)), "");
        let scan = Scan { limit: usize::MAX, ..Scan::all() }.from(moment(after)).before(moment(to));
        let mut sum = 0_u64;
        self.store.walk(&self.ns, scan, |_, entry| {
            let usage: Usage = Schema::default().decode(&entry.value)?;
            sum = sum.saturating_add(usage.tokens);
            Ok(true)
        })?;
        Ok(sum)
    }
}

/// Tokens that are held back for one request.
#[derive(Debug)]
#[must_use = "dropped, it is refunded"]
pub struct Reservation {
    tracker: TokenBudgetTracker,
    request_id: String,
    at_most: u64,
    token: u64,
    settled: bool,
}

impl Reservation {
    /// Tokens that are held back.
    pub fn at_most(&self) -> u64 {
        self.at_most
    }

    /// Records what was really used, and gives back the rest; answers what remains.
    ///
    /// What was used was used: more than was reserved is recorded as well, even above the limit.
    pub fn commit(mut self, actual: u64) -> Result<u64> {
        let remaining = self.tracker.add(&self.request_id, actual, false)?;
        self.settled = true;
        Ok(remaining)
    }

    /// Gives everything back, and says whether that worked; dropping does the same in silence.
    pub fn refund(mut self) -> Result<()> {
        self.settled = true;
        self.tracker.refund(&self.request_id, self.token)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.settled {
            // When this fails, the reservation ends by its deadline.
            drop(self.tracker.refund(&self.request_id, self.token));
        }
    }
}

fn conflict(found: Option<crate::store::Version>) -> Error {
    Error::Conflict { key: Bytes::from_static(HEADER), found }
}

fn check_id(request_id: &str) -> Result<()> {
    Error::check_limit("request id", request_id.len(), REQUEST_ID_LEN_MAX)?;
    if request_id.is_empty() { Err(Error::Invalid("an empty request id")) } else { Ok(()) }
}

fn id_key(request_id: &str) -> Bytes {
    let mut key = keys::join(&[b"i"]);
    key.extend_from_slice(request_id.as_bytes());
    key.into()
}

fn used_key(at: Millis, request_id: &str) -> Bytes {
    let mut key = vec![b'u'];
    key.extend_from_slice(&at.0.to_be_bytes());
    key.extend_from_slice(request_id.as_bytes());
    key.into()
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
