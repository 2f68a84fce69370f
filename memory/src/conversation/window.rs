//! Windows: the newest messages that fit, by whole groups, with the system messages in front.
//! Pure decisions over figures; which rows there are, the handle reads.

use crate::conversation::Message;
use crate::conversation::Role;
use crate::conversation::header::Header;
use crate::conversation::row::Figures;
use crate::store::Seq;

/// What a view may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// At most so many messages, pinned ones included.
    pub max_messages: u64,
    /// At most so many tokens, pinned ones included.
    pub max_tokens: u64,
    /// Whether all system messages are shown, the ones before the window in front of it.
    pub pin_system: bool,
}

impl Default for Window {
    /// 50 messages of any length, system messages pinned.
    fn default() -> Self {
        Self { max_messages: 50, max_tokens: u64::MAX, pin_system: true }
    }
}

impl Window {
    /// As many messages as fit so many tokens, system messages pinned.
    pub fn tokens(max_tokens: u64) -> Self {
        Self { max_messages: u64::MAX, max_tokens, pin_system: true }
    }

    /// So many messages, system messages pinned.
    pub fn messages(max_messages: u64) -> Self {
        Self { max_messages, ..Self::default() }
    }
}

/// What a model is shown.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct View {
    /// Pinned system messages, then the newest messages, each in the order they were said.
    pub messages: Vec<Message>,
    /// Their tokens.
    pub tokens: u64,
    /// Messages of the conversation that are not shown.
    pub dropped: u64,
    /// Whether it is over the window: pinned messages and the newest group are shown even so.
    pub truncated: bool,
    /// Where the newest messages begin; `None` for an empty conversation.
    pub first: Option<Seq>,
}

/// Goes from the newest message back, and says where the window begins.
#[derive(Debug)]
pub(crate) struct Fitting {
    window: Window,
    messages: u64,
    tokens: u64,
    start: Option<Seq>,
    /// Messages and tokens from `start` on.
    accepted: (u64, u64),
}

impl Fitting {
    pub(crate) fn new(window: Window, header: &Header) -> Self {
        let pinned =
            if window.pin_system { (header.system_len, header.system_tokens) } else { (0, 0) };
        Self { window, messages: pinned.0, tokens: pinned.1, start: None, accepted: pinned }
    }

    /// Takes the next older message; `false` when no more fit.
    pub(crate) fn take(&mut self, seq: Seq, figures: &Figures) -> bool {
        if !(self.window.pin_system && figures.role == Role::System) {
            self.messages = self.messages.saturating_add(1);
            self.tokens = self.tokens.saturating_add(figures.tokens);
        }
        let fits =
            self.messages <= self.window.max_messages && self.tokens <= self.window.max_tokens;
        if !fits && self.start.is_some() {
            return false;
        }
        if figures.group_start == seq {
            self.start = Some(seq);
            self.accepted = (self.messages, self.tokens);
        }
        true
    }

    /// Where the window begins.
    pub(crate) fn start(&self) -> Option<Seq> {
        self.start
    }

    /// Messages shown, their tokens, and whether that is over the window.
    pub(crate) fn figures(&self) -> (u64, u64, bool) {
        let (messages, tokens) = self.accepted;
        let over = messages > self.window.max_messages || tokens > self.window.max_tokens;
        (messages, tokens, over)
    }
}
