//! The newest messages as a handle knows them, so that a window reads only what is new.
//! Knows figures and messages; what is stored stays the truth: a change of the header that is no
//! append empties it.

use std::collections::VecDeque;

use crate::conversation::Message;
use crate::conversation::header::Header;
use crate::conversation::row::Figures;
use crate::store::Seq;

/// Messages, and bytes of their texts, that a handle keeps.
const ROWS_MAX: usize = 4096;
const LEN_MAX: usize = 1 << 20;
/// What a message takes besides its text.
const ROW_LEN: usize = 200;
/// New messages that are read one by one; after more, the newest are read as at first.
pub(crate) const NEWS_MAX: u64 = 256;

/// The newest messages, without a gap, up to `next`.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    epoch: u64,
    first_before: u64,
    counter: String,
    /// The place behind the newest, and the tokens of all before it.
    pub next: Seq,
    total: u64,
    rows: VecDeque<(Figures, Message)>,
    len: usize,
    /// The system messages, for so many of them.
    systems: Option<(u64, Vec<(Seq, Message)>)>,
}

impl Tail {
    /// Nothing of this conversation yet.
    pub(crate) fn begin(header: &Header) -> Self {
        Self {
            epoch: header.epoch,
            first_before: header.first_before,
            counter: header.counter.clone(),
            next: header.next,
            total: header.total,
            ..Self::default()
        }
    }

    /// Whether what it has can still be the newest of this conversation, but for what was appended.
    pub(crate) fn is_before(&self, header: &Header) -> bool {
        self.epoch == header.epoch
            && self.first_before == header.first_before
            && self.counter == header.counter
            && self.next <= header.next
            && header.next.0 - self.next.0 <= NEWS_MAX
    }

    /// Whether it has come to the end of this conversation.
    pub(crate) fn is_of(&self, header: &Header) -> bool {
        self.next == header.next && self.total == header.total
    }

    /// Takes the message at `next`; `false` when it does not follow.
    pub(crate) fn append(&mut self, figures: Figures, message: Message) -> bool {
        if figures.before != self.total {
            return false;
        }
        self.next = Seq(self.next.0 + 1);
        self.total += figures.tokens;
        self.len += message.content.len() + ROW_LEN;
        self.rows.push_back((figures, message));
        while self.rows.len() > ROWS_MAX || self.len > LEN_MAX {
            let Some((_, gone)) = self.rows.pop_front() else { break };
            self.len -= gone.content.len() + ROW_LEN;
        }
        true
    }

    /// Keeps the message before its oldest, while there is room.
    pub(crate) fn prepend(&mut self, figures: Figures, message: &Message) {
        let len = message.content.len() + ROW_LEN;
        if self.rows.len() < ROWS_MAX && self.len + len <= LEN_MAX {
            self.len += len;
            self.rows.push_front((figures, message.clone()));
        }
    }

    /// The place of its oldest message; `next` when it has none.
    pub(crate) fn first(&self) -> Seq {
        Seq(self.next.0.saturating_sub(self.rows.len() as u64))
    }

    /// From the newest back.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = (Seq, &Figures, &Message)> {
        let places = (1..=self.next.0.saturating_sub(1)).rev().map(Seq);
        places.zip(self.rows.iter().rev()).map(|(seq, (figures, message))| (seq, figures, message))
    }

    /// The system messages, if they are known.
    pub(crate) fn systems(&self, header: &Header) -> Option<&[(Seq, Message)]> {
        let known = self.systems.as_ref().filter(|(count, _)| *count == header.system_len);
        known.map(|(_, systems)| systems.as_slice())
    }

    /// Keeps the system messages.
    pub(crate) fn keep_systems(&mut self, header: &Header, systems: &[(Seq, Message)]) {
        let len: usize = systems.iter().map(|(_, one)| one.content.len() + ROW_LEN).sum();
        if len <= LEN_MAX {
            self.systems = Some((header.system_len, systems.to_vec()));
        }
    }
}
