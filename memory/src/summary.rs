//! Conversations that are summarised: what is old as a text, what is new word for word.
//! Knows when and in which order; what a summary says, the summariser knows.
//!
//! Two phases: the summariser runs outside of any lock, then one commit replaces summary and
//! watermark if nobody was faster. Messages are never deleted by summarising, so nothing is lost
//! when the summariser fails, or the process dies.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::codec::Schema;
use crate::conversation::{ConversationMemory, Message, Role, Window};
use crate::error::{Error, Result};
use crate::store::{Batch, Entry, Ns, Seq, Store, Ttl};
use crate::tokens::TokenCounter;

const SUMMARY: &[u8] = b"s";
/// Messages that one call hands to the summariser.
const COMPACT_MESSAGES_MAX: usize = 1000;

/// Makes one text of a summary and the messages behind it.
pub trait Summarizer: Send + Sync {
    /// A summary of `previous` and `messages` together. Errors go to who called `compact`.
    fn summarize(&self, previous: Option<&str>, messages: &[Message]) -> Result<String>;
}

impl<F: Fn(Option<&str>, &[Message]) -> Result<String> + Send + Sync> Summarizer for F {
    fn summarize(&self, previous: Option<&str>, messages: &[Message]) -> Result<String> {
        self(previous, messages)
    }
}

/// What one call of `compact` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compaction {
    /// There is not enough to summarise yet.
    Nothing,
    /// So many messages went into the summary, which has so many tokens.
    Done {
        /// Messages that the summary covers now and did not before.
        messages: u64,
        /// Tokens of the new summary.
        tokens: u64,
    },
    /// Somebody else was faster; theirs is kept.
    Outrun,
}

/// What a model is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct SummaryContext {
    /// The summary of what came before `recent`.
    pub summary: Option<String>,
    /// The last message that the summary covers.
    pub covers: Seq,
    /// The messages behind it, word for word.
    pub recent: Vec<Message>,
    /// Tokens of both.
    pub tokens: u64,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Stored {
    summary: Option<String>,
    covers: Seq,
    tokens: u64,
}

/// A conversation with a summary of what is old. Clones share it.
#[derive(Clone)]
pub struct SummaryMemory {
    store: Arc<dyn Store>,
    ns: Ns,
    talk: ConversationMemory,
    counter: Arc<dyn TokenCounter>,
    summarizer: Arc<dyn Summarizer>,
    recent_max: usize,
    tokens_max: u64,
}

impl fmt::Debug for SummaryMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SummaryMemory({:?}, {:?})", self.ns, self.talk)
    }
}

impl SummaryMemory {
    /// The summary of this id, over a conversation. The newest `recent_max` messages, at least
    /// one, stay word for word.
    pub fn new(
        store: Arc<dyn Store>,
        id: &str,
        talk: ConversationMemory,
        counter: Arc<dyn TokenCounter>,
        summarizer: Arc<dyn Summarizer>,
        recent_max: usize,
    ) -> Result<Self> {
        let ns = Ns::within("summary", id)?.without_log();
        let recent_max = recent_max.clamp(1, COMPACT_MESSAGES_MAX);
        Ok(Self { store, ns, talk, counter, summarizer, recent_max, tokens_max: 2000 })
    }

    /// The most tokens of a summary; 2000 unless set. A longer one is summarised by itself once,
    /// and refused if that is still too long.
    #[must_use]
    pub fn max_summary_tokens(mut self, tokens: u64) -> Self {
        self.tokens_max = tokens;
        self
    }

    /// Adds a message to the conversation. Never calls the summariser.
    pub fn add(&self, message: Message) -> Result<Seq> {
        self.talk.append(message)
    }

    /// Summarises what is older than the newest `recent_max` messages, once there are twice as
    /// many behind the summary. Safe to call again after any failure; one call takes at most 1000
    /// messages.
    ///
    /// Errors: what the summariser says; [`Error::Limit`] when its summary is too long.
    pub fn compact(&self) -> Result<Compaction> {
        let (entry, stored) = self.stored()?;
        let behind = self.behind(&stored, COMPACT_MESSAGES_MAX)?;
        if behind.len() < 2 * self.recent_max {
            return Ok(Compaction::Nothing);
        }
        let count = behind.len() - self.recent_max;
        let (old, _) = behind.split_at(self.whole_groups(&behind, count));
        let Some((covers, _)) = old.last() else { return Ok(Compaction::Nothing) };
        let messages: Vec<Message> = old.iter().map(|(_, message)| message.clone()).collect();
        let mut summary = self.summarizer.summarize(stored.summary.as_deref(), &messages)?;
        let mut tokens = self.counter.count(&summary) as u64;
        if tokens > self.tokens_max {
            summary = self.summarizer.summarize(Some(&summary), &[])?;
            tokens = self.counter.count(&summary) as u64;
        }
        if tokens > self.tokens_max {
            let (what, max) = ("tokens of a summary", self.tokens_max);
            return Err(Error::Limit { what, max, got: tokens });
        }
        let new = Stored { summary: Some(summary), covers: *covers, tokens };
        let batch = Batch::new(&self.ns).unchanged(SUMMARY, entry.as_ref());
        let batch = batch.put(SUMMARY, Schema::default().encode(&new)?, Ttl::Never);
        match self.store.commit(batch) {
            Ok(_) => Ok(Compaction::Done { messages: messages.len() as u64, tokens }),
            Err(Error::Conflict { .. }) => Ok(Compaction::Outrun),
            Err(error) => Err(error),
        }
    }

    /// At most `count` messages, so that a tool's message is not parted from what it belongs to.
    #[expect(clippy::unused_self, reason = "reads as: the groups of this conversation")]
    fn whole_groups(&self, messages: &[(Seq, Message)], count: usize) -> usize {
        let parts = |index: &usize| match (messages.get(index - 1), messages.get(*index)) {
            (Some((_, before)), Some((_, after))) => {
                after.role == Role::Tool || after.group.is_some() && after.group == before.group
            }
            _ => false,
        };
        (1..=count).rev().find(|index| !parts(index)).unwrap_or(0)
    }

    /// The summary, and the messages behind it. While `compact` was not called, those may be many;
    /// the conversation's own `window` bounds them.
    #[doc(alias = "get_context")]
    pub fn context(&self) -> Result<SummaryContext> {
        let (_, stored) = self.stored()?;
        let mut recent = Vec::new();
        let mut after = stored.covers;
        let mut tokens = stored.tokens;
        loop {
            let page = self.talk.messages(Seq(after.0 + 1), COMPACT_MESSAGES_MAX)?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            for (_, message) in page {
                tokens += self.counter.count(&message.content) as u64;
                recent.push(message);
            }
        }
        Ok(SummaryContext { summary: stored.summary, covers: stored.covers, recent, tokens })
    }

    /// The conversation's newest messages that fit besides the summary, and the summary.
    pub fn window(&self, max_tokens: u64) -> Result<SummaryContext> {
        let (_, stored) = self.stored()?;
        let view = self.talk.window(Window::tokens(max_tokens.saturating_sub(stored.tokens)))?;
        let tokens = stored.tokens + view.tokens;
        let (summary, covers) = (stored.summary, stored.covers);
        Ok(SummaryContext { summary, covers, recent: view.messages, tokens })
    }

    fn behind(&self, stored: &Stored, limit: usize) -> Result<Vec<(Seq, Message)>> {
        self.talk.messages(Seq(stored.covers.0 + 1), limit)
    }

    fn stored(&self) -> Result<(Option<Entry>, Stored)> {
        let entry = self.store.get(&self.ns, SUMMARY)?;
        let stored = match &entry {
            Some(entry) => Schema::default().decode(&entry.value)?,
            None => Stored::default(),
        };
        Ok((entry, stored))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::conversation::SessionMemoryStore;
    use crate::store::MemStore;

    struct Words;

    impl TokenCounter for Words {
        fn count(&self, text: &str) -> usize {
            text.split(' ').count()
        }

        fn id(&self) -> &'static str {
            "words"
        }
    }

    fn memory(recent: usize, summarizer: Arc<dyn Summarizer>) -> SummaryMemory {
        let store: Arc<dyn Store> = Arc::new(MemStore::new());
        let sessions = SessionMemoryStore::new(Arc::clone(&store), Arc::new(Words));
        let talk = sessions.get_or_create("s").unwrap();
        SummaryMemory::new(store, "s", talk, Arc::new(Words), summarizer, recent).unwrap()
    }

    /// The texts after one another.
    #[expect(clippy::unnecessary_wraps, reason = "a summariser may fail")]
    fn joining(previous: Option<&str>, messages: &[Message]) -> Result<String> {
        let texts = messages.iter().map(|message| message.content.clone());
        Ok(previous.map(str::to_owned).into_iter().chain(texts).collect::<Vec<_>>().join(","))
    }

    fn say(memory: &SummaryMemory, texts: std::ops::Range<u64>) {
        for i in texts {
            memory.add(Message::new(Role::User, i.to_string())).unwrap();
        }
    }

    #[test]
    fn everything_is_in_the_summary_or_word_for_word_at_any_time() {
        let memory = memory(3, Arc::new(joining));
        for i in 0..40 {
            say(&memory, i..i + 1);
            if i % 4 == 3 {
                memory.compact().unwrap();
            }
            let context = memory.context().unwrap();
            let recent = context.recent.iter().map(|message| message.content.clone());
            let all: Vec<String> = context.summary.into_iter().chain(recent).collect();
            let expected: Vec<String> = (0..=i).map(|i| i.to_string()).collect();
            assert_eq!(all.join(","), expected.join(","));
            assert!(context.recent.len() < 10);
        }
        assert_eq!(memory.talk.len().unwrap(), 40, "summarising deletes nothing");
        let window = memory.window(3).unwrap();
        assert_eq!((window.recent.len(), window.tokens), (2, 3));
    }

    #[test]
    fn nothing_is_lost_when_the_summariser_fails_and_the_next_call_goes_on() {
        let fails = AtomicU64::new(2);
        let memory = memory(
            2,
            Arc::new(move |previous: Option<&str>, messages: &[Message]| {
                let one_less = |left: u64| left.checked_sub(1);
                match fails.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
                    Ok(_) => Err(Error::Timeout),
                    Err(_) => joining(previous, messages),
                }
            }),
        );
        say(&memory, 0..5);
        assert!(matches!(memory.compact(), Err(Error::Timeout)));
        assert_eq!(memory.context().unwrap().recent.len(), 5);
        assert!(matches!(memory.compact(), Err(Error::Timeout)));
        let done = memory.compact().unwrap();
        assert_eq!(done, Compaction::Done { messages: 3, tokens: 1 });
        let context = memory.context().unwrap();
        assert_eq!((context.summary.as_deref(), context.covers), (Some("0,1,2"), Seq(3)));
        assert_eq!(memory.compact().unwrap(), Compaction::Nothing);
    }

    #[test]
    fn a_summary_that_is_too_long_is_summarised_again_or_refused() {
        let wordy = |previous: Option<&str>, messages: &[Message]| {
            let short = previous.is_some() && messages.is_empty();
            Ok(if short { "short".to_owned() } else { "word ".repeat(50) })
        };
        let memory = memory(1, Arc::new(wordy)).max_summary_tokens(10);
        say(&memory, 0..4);
        assert_eq!(memory.compact().unwrap(), Compaction::Done { messages: 3, tokens: 1 });
        let strict = memory.clone().max_summary_tokens(0);
        say(&memory, 4..8);
        assert!(matches!(strict.compact(), Err(Error::Limit { got: 1, .. })));
        assert_eq!(memory.context().unwrap().covers, Seq(3));
    }

    #[test]
    fn a_tool_result_is_summarised_with_its_call_or_not_at_all() {
        let memory = memory(2, Arc::new(joining));
        for (role, text) in [
            (Role::User, "ask"),
            (Role::Assistant, "call"),
            (Role::Tool, "result"),
            (Role::Tool, "more"),
        ] {
            memory.add(Message::new(role, text)).unwrap();
        }
        assert_eq!(memory.compact().unwrap(), Compaction::Done { messages: 1, tokens: 1 });
        assert_eq!(memory.context().unwrap().recent[0].content, "call");
    }

    #[test]
    fn of_two_that_compact_at_once_one_is_kept() {
        let (inner, memory) = {
            let slot: Arc<parking_lot::Mutex<Option<SummaryMemory>>> = Arc::default();
            let nested = Arc::clone(&slot);
            let summarizer = move |previous: Option<&str>, messages: &[Message]| {
                let other = nested.lock().take();
                if let Some(other) = other {
                    assert!(matches!(other.compact()?, Compaction::Done { .. }));
                }
                joining(previous, messages)
            };
            (slot, memory(1, Arc::new(summarizer)))
        };
        say(&memory, 0..3);
        *inner.lock() = Some(memory.clone());
        assert_eq!(memory.compact().unwrap(), Compaction::Outrun);
        assert_eq!(memory.context().unwrap().summary.as_deref(), Some("0,1"));
    }
}
