//! One conversation: append, windows, retention. Every change is one commit under the header's
//! guard. Windows keep the newest messages at hand and never wait for each other.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use unicode_segmentation::UnicodeSegmentation;

use crate::conversation::header::{self, Header};
use crate::conversation::row::{self, Figures};
use crate::conversation::tail::Tail;
use crate::conversation::window::Fitting;
use crate::conversation::{DELETE_ROWS, Message, Role, View, Window, live_header, seq_of};
use crate::error::{Error, Result};
use crate::retention::Retention;
use crate::store::{
    Batch, Durability, Entry, Ns, SCAN_ROWS_MAX, Scan, Seq, Store, StoreExt, Ttl, retry,
};
use crate::tokens::TokenCounter;

/// The largest piece that retention deletes at a time, in messages of one group.
const GROUP_LEN_MAX: u64 = 8000;

/// The conversation of one session. Clones and other handles share what is stored.
#[derive(Clone)]
pub struct ConversationMemory {
    store: Arc<dyn Store>,
    counter: Arc<dyn TokenCounter>,
    ns: Ns,
    ttl: Ttl,
    incarnation: u64,
    durability: Durability,
    /// Protects: what is known of the newest messages. Who finds it taken does without.
    tail: Arc<Mutex<Tail>>,
}

impl fmt::Debug for ConversationMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConversationMemory({:?})", self.ns)
    }
}

impl ConversationMemory {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        counter: Arc<dyn TokenCounter>,
        ns: Ns,
        ttl: Ttl,
        incarnation: u64,
    ) -> Self {
        let (durability, tail) = (Durability::Buffered, Arc::default());
        Self { store, counter, ns, ttl, incarnation, durability, tail }
    }

    /// When appends count as done; buffered unless set.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Adds a message; answers its place.
    ///
    /// Errors: [`Error::Invalid`] for a tool's message when nothing was said before it;
    /// [`Error::Conflict`] when the session was deleted.
    #[doc(alias = "add_message")]
    #[doc(alias = "add")]
    #[expect(clippy::needless_pass_by_value, reason = "the signature is the contract")]
    pub fn append(&self, message: Message) -> Result<Seq> {
        self.append_all(std::slice::from_ref(&message))
    }

    /// Adds messages in one commit: all or none; answers the place of the last one.
    pub fn append_all(&self, messages: &[Message]) -> Result<Seq> {
        // The dear part, outside of what may be tried again.
        let tokens: Vec<u64> =
            messages.iter().map(|message| self.counter.count(&message.content) as u64).collect();
        retry(&self.ns, || {
            let (entry, mut header) = self.header()?;
            let mut batch = Batch::new(&self.ns).durability(self.durability);
            header.updated = self.store.now();
            for (message, tokens) in messages.iter().zip(&tokens) {
                batch = stage(batch, &mut header, message, *tokens)?;
            }
            let last = Seq(header.next.0 - 1);
            if !messages.is_empty() {
                batch = batch.unchanged(header::KEY, Some(&entry));
                batch = batch.put(header::KEY, header.encode()?, self.ttl);
                self.store.commit(batch)?;
            }
            Ok(last)
        })
    }

    /// The newest messages that fit, by whole groups, system messages pinned if the window says
    /// so. It never begins with a tool's message, and always shows the newest group.
    ///
    /// Cost: what was appended since the last window of this handle is read, and what is shown and
    /// was not before; whatever the length of the conversation. A handle keeps up to 1 MiB of them.
    #[doc(alias = "get_messages")]
    pub fn window(&self, window: Window) -> Result<View> {
        let (_, header) = self.header()?;
        let mut own = Tail::default();
        let mut shared = self.tail.try_lock();
        let tail = shared.as_deref_mut().unwrap_or(&mut own);
        self.follow(&header, tail)?;
        let mut fitting = Fitting::new(window, &header);
        let mut shown: Vec<(Seq, Message)> = Vec::new();
        self.newest_first(&header, tail, |seq, figures, message| {
            let fits = fitting.take(seq, figures);
            if fits {
                shown.push((seq, message.clone()));
            }
            Ok(fits)
        })?;
        let Some(start) = fitting.start() else { return Ok(View::default()) };
        let mut messages = Vec::with_capacity(shown.len());
        if window.pin_system && header.system_len > 0 {
            let systems = self.systems(&header, tail)?;
            let before = systems.into_iter().take_while(|(seq, _)| *seq < start);
            messages.extend(before.map(|(_, message)| message));
        }
        let shown = shown.into_iter().rev().filter(|(seq, _)| *seq >= start);
        messages.extend(shown.map(|(_, message)| message));
        let (count, tokens, truncated) = fitting.figures();
        let dropped = header.len.saturating_sub(count);
        Ok(View { messages, tokens, dropped, truncated, first: Some(start) })
    }

    /// Brings what is known of the newest messages up to this header.
    fn follow(&self, header: &Header, tail: &mut Tail) -> Result<()> {
        if !tail.is_before(header) {
            *tail = Tail::begin(header);
        }
        while tail.next < header.next {
            let entry = self.store.get(&self.ns, &header::message(header.epoch, tail.next))?;
            let follows = match entry {
                Some(entry) => tail.append(row::figures(&entry.value)?, row::decode(&entry.value)?),
                None => false,
            };
            if !follows {
                break;
            }
        }
        if !tail.is_of(header) {
            *tail = Tail::begin(header);
        }
        Ok(())
    }

    fn systems(&self, header: &Header, tail: &mut Tail) -> Result<Vec<(Seq, Message)>> {
        if let Some(known) = tail.systems(header) {
            return Ok(known.to_vec());
        }
        let mut found = Vec::new();
        let scan = Scan { limit: usize::MAX, ..Scan::prefix(&header::systems(header.epoch)) };
        self.store.walk(&self.ns, scan, |key, _| {
            let seq = seq_of(&key)?;
            // One that was appended after the header was read is not of this moment.
            let known = seq < header.next;
            let at = header::message(header.epoch, seq);
            if let Some(entry) = self.store.get(&self.ns, &at)?.filter(|_| known) {
                found.push((seq, row::decode(&entry.value)?));
            }
            Ok(true)
        })?;
        tail.keep_systems(header, &found);
        Ok(found)
    }

    /// Messages from a place on, in order, at most `limit`.
    pub fn messages(&self, from: Seq, limit: usize) -> Result<Vec<(Seq, Message)>> {
        let (_, header) = self.header()?;
        let scan = Scan::prefix(&header::messages(header.epoch)).limit(limit);
        let rows = self.store.scan(&self.ns, scan.from(header::message(header.epoch, from)))?;
        let pair = |(key, entry): &(Bytes, Entry)| Ok((seq_of(key)?, row::decode(&entry.value)?));
        rows.iter().map(pair).collect()
    }

    /// The newest `count` messages, in order.
    pub fn last(&self, count: usize) -> Result<Vec<(Seq, Message)>> {
        Error::check_limit("messages of a call", count, SCAN_ROWS_MAX)?;
        let (_, header) = self.header()?;
        let mut found = Vec::new();
        if count > 0 {
            self.newest_first(&header, &mut Tail::begin(&header), |seq, _, message| {
                found.push((seq, message.clone()));
                Ok(found.len() < count)
            })?;
        }
        found.reverse();
        Ok(found)
    }

    /// Hands out messages from the newest back, until told to stop: those that are known, then
    /// those that are stored.
    ///
    /// Places count up by one, so the rows are read one by one, which needs no order of keys: a
    /// store that was just opened may still be making it. Behind the first place that retention
    /// emptied, the rest is scanned.
    fn newest_first(
        &self,
        header: &Header,
        tail: &mut Tail,
        mut each: impl FnMut(Seq, &Figures, &Message) -> Result<bool>,
    ) -> Result<()> {
        for (seq, figures, message) in tail.newest_first() {
            if !each(seq, figures, message)? {
                return Ok(());
            }
        }
        let mut end = tail.first();
        while end > Seq(1) {
            let seq = Seq(end.0 - 1);
            let Some(entry) = self.store.get(&self.ns, &header::message(header.epoch, seq))? else {
                break;
            };
            let (figures, message) = (row::figures(&entry.value)?, row::decode(&entry.value)?);
            if tail.first() == end {
                tail.prepend(figures, &message);
            }
            if !each(seq, &figures, &message)? {
                return Ok(());
            }
            end = seq;
        }
        if end <= Seq(1) {
            return Ok(());
        }
        let scan = Scan { limit: usize::MAX, ..Scan::prefix(&header::messages(header.epoch)) };
        let scan = scan.reverse().before(header::message(header.epoch, end));
        self.store.walk(&self.ns, scan, |key, entry| {
            each(seq_of(&key)?, &row::figures(&entry.value)?, &row::decode(&entry.value)?)
        })
    }

    /// The beginnings of the newest messages, one a line: `role: text`, cut after so many
    /// characters as people count them.
    #[doc(alias = "get_context_summary")]
    pub fn context_summary(&self, last: usize, chars: usize) -> Result<String> {
        let mut lines = Vec::new();
        for (_, Message { role, content, .. }) in self.last(last)? {
            let end = content.grapheme_indices(true).nth(chars).map_or(content.len(), |(at, _)| at);
            lines.push(format!("{role}: {}", content.get(..end).unwrap_or(&content)));
        }
        Ok(lines.join("\n"))
    }

    /// Messages that are kept.
    pub fn len(&self) -> Result<u64> {
        Ok(self.header()?.1.len)
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Tokens of the messages that are kept.
    pub fn tokens(&self) -> Result<u64> {
        Ok(self.header()?.1.tokens())
    }

    /// Deletes the oldest groups until the rest is within the bounds; answers how many messages
    /// went. System messages and the newest group stay. `size` is tokens.
    #[doc(alias = "trim_old_messages")]
    pub fn retain(&self, retention: Retention) -> Result<u64> {
        let mut deleted = 0;
        loop {
            let step = retry(&self.ns, || self.retain_step(&retention))?;
            deleted += step;
            if step == 0 {
                return Ok(deleted);
            }
        }
    }

    /// Deletes some of the oldest groups.
    fn retain_step(&self, retention: &Retention) -> Result<u64> {
        let (entry, mut header) = self.header()?;
        let now = self.store.now();
        let newest = header::message(header.epoch, header.group_start);
        let scan = Scan { limit: usize::MAX, ..Scan::prefix(&header::messages(header.epoch)) };
        let (mut group, mut doomed) = (Group::default(), Vec::new());
        self.store.walk(&self.ns, scan.before(newest), |key, row| {
            let figures = row::figures(&row.value)?;
            if figures.role == Role::System {
                return Ok(true);
            }
            if group.start != Some(figures.group_start) {
                group.close(&mut header, &mut doomed);
                let over = retention.count.is_some_and(|count| header.len > count)
                    || retention.size.is_some_and(|size| header.tokens() > size)
                    || retention.age.is_some_and(|age| now.since(figures.at) > age);
                if !over || doomed.len() >= DELETE_ROWS {
                    return Ok(false);
                }
                group.start = Some(figures.group_start);
            }
            Error::check_limit("messages of a group", group.keys.len() + 1, GROUP_LEN_MAX)?;
            group.keys.push(key);
            group.tokens += figures.tokens;
            Ok(true)
        })?;
        group.close(&mut header, &mut doomed);
        let deleted = doomed.len() as u64;
        if deleted > 0 {
            let batch = Batch::new(&self.ns).unchanged(header::KEY, Some(&entry));
            let batch = doomed.into_iter().fold(batch, Batch::delete);
            self.store.commit(batch.put(header::KEY, header.encode()?, Ttl::Keep))?;
        }
        Ok(deleted)
    }

    /// Deletes all messages, system messages too. The session stays, and places go on.
    pub fn clear(&self) -> Result<()> {
        let epoch = retry(&self.ns, || {
            let (entry, header) = self.header()?;
            let cleared = header.cleared(self.store.now());
            let batch = Batch::new(&self.ns).unchanged(header::KEY, Some(&entry));
            self.store.commit(batch.put(header::KEY, cleared.encode()?, self.ttl))?;
            Ok(cleared.epoch)
        })?;
        header::delete_epochs_before(&*self.store, &self.ns, epoch)
    }

    /// The header, while the session is there.
    fn header(&self) -> Result<(Entry, Header)> {
        let entry = self.store.get(&self.ns, header::KEY)?;
        let header = live_header(entry.as_ref())?;
        let header = header.filter(|header| header.incarnation == self.incarnation);
        match entry.zip(header) {
            Some((_, header)) if header.counter != self.counter.id() => {
                Err(Error::Invalid("tokens of this session were counted by another counter"))
            }
            Some(found) => Ok(found),
            None => Err(Error::Conflict { key: Bytes::from_static(header::KEY), found: None }),
        }
    }
}

/// The messages of one group that are to go.
#[derive(Default)]
struct Group {
    start: Option<Seq>,
    keys: Vec<Bytes>,
    tokens: u64,
}

impl Group {
    /// The group is whole: its messages go.
    fn close(&mut self, header: &mut Header, doomed: &mut Vec<Bytes>) {
        header.len -= self.keys.len() as u64;
        header.first_before += self.tokens;
        self.tokens = 0;
        doomed.append(&mut self.keys);
    }
}

/// Adds a message to a batch, and to the header.
fn stage(mut batch: Batch, header: &mut Header, message: &Message, tokens: u64) -> Result<Batch> {
    let seq = header.next;
    let grouped = message.group.is_some() && message.group == header.group;
    let goes_on = match message.role {
        Role::Tool if !header.answered => {
            return Err(Error::Invalid("a tool's message when nothing was said before it"));
        }
        Role::Tool | Role::System => header.group_start != Seq(0),
        Role::User | Role::Assistant => grouped,
    };
    if !goes_on {
        header.group_start = seq;
        header.group.clone_from(&message.group);
    }
    header.answered |= message.role != Role::System;
    let at = if message.at.0 == 0 { header.updated } else { message.at };
    let row = row::encode(message, (tokens, header.total), header.group_start, at)?;
    batch = batch.put(header::message(header.epoch, seq), row, Ttl::Never);
    if message.role == Role::System {
        batch = batch.put(header::system(header.epoch, seq), "", Ttl::Never);
        header.system_len += 1;
        header.system_tokens += tokens;
    }
    header.next = Seq(seq.0 + 1);
    header.len += 1;
    header.total += tokens;
    Ok(batch)
}
