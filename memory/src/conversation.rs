//! Conversations: append-only messages, windows that fit a model, retention apart from both.
//! Knows roles, groups and tokens; which counter counts, the caller says.
//!
//! Each session has a namespace of its own. Rows there: `h` the header that every change rewrites
//! under a guard; `m`, epoch and place, a message; `s`, epoch and place, the place of a system
//! message. Epochs make `clear` one commit: rows of another epoch are garbage, deleted after it.

mod handle;
mod header;
mod row;
mod tail;
mod window;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::Json;
pub use crate::conversation::handle::ConversationMemory;
use crate::conversation::header::Header;
pub use crate::conversation::window::{View, Window};
use crate::error::{Error, Result};
use crate::store::{Batch, Entry, Millis, Ns, Scan, Seq, Store, StoreExt, Ttl, retry};
use crate::tokens::TokenCounter;

/// How long it is remembered that a session was deleted.
const TOMBSTONE_TTL: Duration = Duration::from_hours(24);
/// Rows that one commit deletes.
pub(crate) const DELETE_ROWS: usize = 1000;

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions; pinned in windows.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
    /// A tool; kept with the message that called it.
    Tool,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        })
    }
}

/// Messages of one id that follow each other are shown together or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub String);

/// One message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// The text, whose tokens count.
    pub content: String,
    /// When; the moment of the append when it is 0.
    #[serde(default)]
    pub at: Millis,
    /// What it is shown together with. A tool's message belongs to the one before it anyway.
    #[serde(default)]
    pub group: Option<GroupId>,
    /// Whatever the program wants to keep with it; does not count as tokens.
    #[serde(default)]
    pub context: Json,
}

impl Message {
    /// A message with nothing but a text.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        let content = content.into();
        Self { role, content, at: Millis(0), group: None, context: Json::Null }
    }

    /// Shown together with others of this group.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(GroupId(group.into()));
        self
    }

    /// With something that the program wants to keep.
    #[must_use]
    pub fn context(mut self, context: Json) -> Self {
        self.context = context;
        self
    }
}

/// What is known of a session without reading its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Its id.
    pub id: String,
    /// Messages that are kept.
    pub len: u64,
    /// Their tokens.
    pub tokens: u64,
    /// When it began.
    pub created: Millis,
    /// When something was appended last.
    pub updated: Millis,
}

/// Conversations by the id of their session. Clones share them.
#[derive(Clone)]
pub struct SessionMemoryStore {
    store: Arc<dyn Store>,
    counter: Arc<dyn TokenCounter>,
    family: Arc<str>,
    index: Ns,
    idle_ttl: Option<Duration>,
}

impl fmt::Debug for SessionMemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionMemoryStore({:?}, tokens by {})", self.family, self.counter.id())
    }
}

impl SessionMemoryStore {
    /// The conversations of a store, their tokens counted by `counter`.
    pub fn new(store: Arc<dyn Store>, counter: Arc<dyn TokenCounter>) -> Self {
        let (family, index) = ("conversation".into(), Ns::fixed("conversation sessions"));
        Self { store, counter, family, index, idle_ttl: None }
    }

    /// A family of conversations of its own.
    pub fn within(
        store: Arc<dyn Store>,
        counter: Arc<dyn TokenCounter>,
        family: &str,
    ) -> Result<Self> {
        let index = Ns::new(&format!("{family} sessions"))?.without_log();
        Ok(Self { store, counter, family: family.into(), index, idle_ttl: None })
    }

    /// A session to which nothing was appended for so long is gone.
    #[must_use]
    pub fn idle_ttl(mut self, ttl: Duration) -> Self {
        self.idle_ttl = Some(ttl);
        self
    }

    fn ns(&self, id: &str) -> Result<Ns> {
        Ok(Ns::within(&self.family, id)?.without_log())
    }

    fn ttl(&self) -> Ttl {
        self.idle_ttl.map_or(Ttl::Never, Ttl::For)
    }

    /// The conversation of this session; begun when there is none. All handles of one session
    /// share what is stored: nothing is lost between two of them.
    ///
    /// Errors: [`Error::Invalid`] when its tokens were counted by another counter; then
    /// [`SessionMemoryStore::recount`].
    pub fn get_or_create(&self, id: &str) -> Result<ConversationMemory> {
        let ns = self.ns(id)?;
        let (fresh, header) = retry(&ns, || {
            let entry = self.store.get(&ns, header::KEY)?;
            let old = entry.as_ref().map(Header::decode).transpose()?;
            if let Some(live) = old.as_ref().filter(|header| !header.deleted) {
                return Ok((false, live.clone()));
            }
            // The index first: a session that exists is always found by `list` and `sweep`.
            self.store.put(&self.index, id.to_owned(), "", Ttl::Never)?;
            let header = Header::begin(self.store.now(), old.as_ref(), self.counter.id());
            let batch = Batch::new(&ns).unchanged(header::KEY, entry.as_ref());
            self.store.commit(batch.put(header::KEY, header.encode()?, self.ttl()))?;
            Ok((true, header))
        })?;
        if header.counter != self.counter.id() {
            return Err(Error::Invalid("tokens of this session were counted by another counter"));
        }
        if fresh {
            header::delete_epochs_before(&*self.store, &ns, header.epoch)?;
        }
        let (store, counter) = (Arc::clone(&self.store), Arc::clone(&self.counter));
        Ok(ConversationMemory::new(store, counter, ns, self.ttl(), header.incarnation))
    }

    /// Deletes a session with all its messages; answers whether it was there. A handle that is
    /// still around gets [`Error::Conflict`] from its next append: nothing brings it back.
    pub fn delete(&self, id: &str) -> Result<bool> {
        let ns = self.ns(id)?;
        let index = self.store.get(&self.index, id.as_bytes())?;
        let deleted = retry(&ns, || {
            let entry = self.store.get(&ns, header::KEY)?;
            let Some(header) = live_header(entry.as_ref())? else { return Ok(None) };
            let batch = Batch::new(&ns).unchanged(header::KEY, entry.as_ref());
            let tombstone = header.tombstone().encode()?;
            self.store.commit(batch.put(header::KEY, tombstone, Ttl::For(TOMBSTONE_TTL)))?;
            Ok(Some(header.epoch))
        })?;
        let Some(epoch) = deleted else { return Ok(false) };
        header::delete_epochs_before(&*self.store, &ns, epoch + 1)?;
        if let Some(index) = index {
            self.delete_index(id.to_owned().into(), &index)?;
        }
        Ok(true)
    }

    /// Takes a session out of the index, unless somebody has begun it anew: who does so writes the
    /// index row first.
    fn delete_index(&self, key: Bytes, read: &Entry) -> Result<bool> {
        let batch = Batch::new(&self.index).unchanged(key.clone(), Some(read));
        match self.store.commit(batch.delete(key)) {
            Ok(_) => Ok(true),
            Err(Error::Conflict { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The sessions behind `after` in the order of their ids, at most `limit`.
    pub fn list(&self, after: Option<&str>, limit: usize) -> Result<Vec<SessionInfo>> {
        let mut found = Vec::new();
        let mut scan = Scan { limit: usize::MAX, ..Scan::all() };
        if let Some(after) = after {
            scan = scan.after(after.to_owned());
        }
        if limit == 0 {
            return Ok(found);
        }
        self.store.walk(&self.index, scan, |key, _| {
            let id = id_of(&key)?;
            let entry = self.store.get(&self.ns(&id)?, header::KEY)?;
            if let Some(header) = live_header(entry.as_ref())? {
                let Header { len, created, updated, .. } = header;
                found.push(SessionInfo { id, len, tokens: header.tokens(), created, updated });
            }
            Ok(found.len() < limit)
        })?;
        Ok(found)
    }

    /// Deletes what sessions left behind whose idle time is over, looking at `limit` sessions
    /// behind `after`; answers how many were cleared away, and where to go on.
    pub fn sweep(&self, after: Option<&str>, limit: usize) -> Result<(u64, Option<String>)> {
        let mut scan = Scan::all().limit(limit);
        if let Some(after) = after {
            scan = scan.after(after.to_owned());
        }
        let rows = self.store.scan(&self.index, scan)?;
        let next = rows.last().filter(|_| rows.len() == limit).map(|(key, _)| id_of(key));
        let mut swept = 0;
        for (key, index) in &rows {
            let ns = self.ns(&id_of(key)?)?;
            let entry = self.store.get(&ns, header::KEY)?;
            if live_header(entry.as_ref())?.is_none() {
                // Epochs that begin from now on are not before now.
                header::delete_epochs_before(&*self.store, &ns, self.store.now().0)?;
                swept += u64::from(self.delete_index(key.clone(), index)?);
            }
        }
        Ok((swept, next.transpose()?))
    }

    /// Counts all messages of a session anew with this store's counter, in one commit.
    ///
    /// Errors: [`Error::Limit`] for a session above 9,999 messages or 64 MiB.
    pub fn recount(&self, id: &str) -> Result<()> {
        let ns = self.ns(id)?;
        retry(&ns, || {
            let entry = self.store.get(&ns, header::KEY)?;
            let Some(mut header) = live_header(entry.as_ref())? else { return Ok(()) };
            let mut batch = Batch::new(&ns).unchanged(header::KEY, entry.as_ref());
            (header.first_before, header.total, header.system_tokens) = (0, 0, 0);
            let scan = Scan { limit: usize::MAX, ..Scan::prefix(&header::messages(header.epoch)) };
            let mut rows = Vec::new();
            self.store.walk(&ns, scan, |key, row| {
                rows.push((key, row));
                Ok(true)
            })?;
            for (key, stored) in rows {
                let (figures, message) =
                    (row::figures(&stored.value)?, row::decode(&stored.value)?);
                let tokens = self.counter.count(&message.content) as u64;
                let counts = (tokens, header.total);
                let value = row::encode(&message, counts, figures.group_start, figures.at)?;
                batch = batch.put(key, value, Ttl::Never);
                header.total += tokens;
                header.system_tokens += if message.role == Role::System { tokens } else { 0 };
            }
            self.counter.id().clone_into(&mut header.counter);
            batch = batch.put(header::KEY, header.encode()?, self.ttl());
            self.store.commit(batch).map(|_| ())
        })
    }
}

/// The header of a session that is there.
fn live_header(entry: Option<&Entry>) -> Result<Option<Header>> {
    let header = entry.map(Header::decode).transpose()?;
    Ok(header.filter(|header| !header.deleted))
}

fn id_of(key: &[u8]) -> Result<String> {
    String::from_utf8(key.to_vec())
        .map_err(|_| Error::corrupt("index of sessions", "an id that is not text"))
}

/// The place of a message, from the end of its key.
pub(crate) fn seq_of(key: &[u8]) -> Result<Seq> {
    let tail = key.len().checked_sub(8).and_then(|at| key.get(at..)).unwrap_or(&[]);
    crate::keys::number(tail).map(Seq)
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;
