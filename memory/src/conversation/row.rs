//! A message as bytes: its figures in front, so that a window is found without reading texts.
//! Pure; knows nothing of stores.
//!
//! | bytes | what, little-endian |
//! |---|---|
//! | 8 | tokens of this message |
//! | 8 | tokens of all messages before it, since the conversation began |
//! | 8 | place of the first message of its group |
//! | 8 | moment, ms since 1970 |
//! | 1 | role: 1 system, 2 user, 3 assistant, 4 tool |
//! | 4 | length of the text |
//! | | the text, then group and context as JSON when there are any |

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::Json;
use crate::conversation::{GroupId, Message, Role};
use crate::error::{Error, Result};
use crate::store::{Millis, Seq};

const HEADER_LEN: usize = 37;

/// The figures of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Figures {
    pub tokens: u64,
    /// Tokens of all messages before it.
    pub before: u64,
    pub group_start: Seq,
    pub at: Millis,
    pub role: Role,
    text_len: u32,
}

/// What most messages have not.
#[derive(Default, Serialize, Deserialize)]
struct Extra {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<GroupId>,
    #[serde(default, skip_serializing_if = "Json::is_null")]
    context: Json,
}

impl Role {
    fn code(self) -> u8 {
        match self {
            Self::System => 1,
            Self::User => 2,
            Self::Assistant => 3,
            Self::Tool => 4,
        }
    }
}

/// A message with its figures, as bytes.
pub(crate) fn encode(
    message: &Message,
    (tokens, before): (u64, u64),
    group_start: Seq,
    at: Millis,
) -> Result<Bytes> {
    let text = message.content.as_bytes();
    let text_len = u32::try_from(text.len());
    let text_len = text_len.map_err(|_| limit(text.len()))?;
    let mut out = Vec::with_capacity(HEADER_LEN + text.len());
    for number in [tokens, before, group_start.0, at.0] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.push(message.role.code());
    out.extend_from_slice(&text_len.to_le_bytes());
    out.extend_from_slice(text);
    if message.group.is_some() || !message.context.is_null() {
        let extra = Extra { group: message.group.clone(), context: message.context.clone() };
        serde_json::to_writer(&mut out, &extra).map_err(|error| Error::Codec(error.to_string()))?;
    }
    Ok(out.into())
}

fn limit(got: usize) -> Error {
    Error::Limit { what: "message", max: u64::from(u32::MAX), got: got as u64 }
}

/// The figures alone.
pub(crate) fn figures(stored: &[u8]) -> Result<Figures> {
    let short = || Error::corrupt("message", format!("{} bytes", stored.len()));
    let (tokens, rest) = stored.split_first_chunk::<8>().ok_or_else(short)?;
    let (before, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let (group_start, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let (at, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let (role, rest) = rest.split_first().ok_or_else(short)?;
    let text_len = rest.first_chunk::<4>().ok_or_else(short)?;
    let role = match role {
        1 => Role::System,
        2 => Role::User,
        3 => Role::Assistant,
        4 => Role::Tool,
        other => return Err(Error::corrupt("message", format!("role {other}"))),
    };
    Ok(Figures {
        tokens: u64::from_le_bytes(*tokens),
        before: u64::from_le_bytes(*before),
        group_start: Seq(u64::from_le_bytes(*group_start)),
        at: Millis(u64::from_le_bytes(*at)),
        role,
        text_len: u32::from_le_bytes(*text_len),
    })
}

/// The message.
pub(crate) fn decode(stored: &[u8]) -> Result<Message> {
    let figures = figures(stored)?;
    let rest = stored.get(HEADER_LEN..).unwrap_or(&[]);
    let len = usize::try_from(figures.text_len).unwrap_or(usize::MAX);
    let (text, extra) = rest
        .split_at_checked(len)
        .ok_or_else(|| Error::corrupt("message", format!("text of {len} bytes is cut")))?;
    let content = std::str::from_utf8(text)
        .map_err(|_| Error::corrupt("message", "a text that is not UTF-8"))?
        .to_owned();
    let extra = if extra.is_empty() {
        Extra::default()
    } else {
        serde_json::from_slice(extra).map_err(|error| Error::Codec(error.to_string()))?
    };
    let (at, role) = (figures.at, figures.role);
    Ok(Message { role, content, at, group: extra.group, context: extra.context })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    proptest! {
        #[test]
        fn any_stored_bytes_never_panic(bytes in proptest::collection::vec(0_u8..8, 0..80)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn messages_come_back(content in ".*", grouped in any::<bool>(), number in any::<u64>()) {
            let group = grouped.then(|| GroupId("g".into()));
            let context = if grouped { json!({ "n": number }) } else { Json::Null };
            let message = Message { role: Role::Tool, content, at: Millis(number), group, context };
            let stored = encode(&message, (3, number), Seq(9), Millis(number)).unwrap();
            prop_assert_eq!(decode(&stored).unwrap(), message);
            let found = figures(&stored).unwrap();
            prop_assert_eq!((found.tokens, found.before), (3, number));
            prop_assert_eq!((found.group_start, found.role), (Seq(9), Role::Tool));
        }
    }
}
