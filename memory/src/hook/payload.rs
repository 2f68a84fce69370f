//! What a hook is given on its input. Liberal: nothing but the event's name must be there.
//! Pure; knows JSON, no files.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::codec::Json;
use crate::error::{Error, Result};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Payload {
    pub event: String,
    pub session: String,
    pub prompt_id: String,
    pub prompt: Option<String>,
    pub last_message: Option<String>,
    pub transcript: Option<PathBuf>,
    pub cwd: Option<PathBuf>,
    pub is_subagent: bool,
}

impl Payload {
    pub(crate) fn parse(input: &[u8]) -> Result<Self> {
        let json = parse_json(input)?;
        let text = |name: &str| json.get(name).and_then(Json::as_str).map(str::to_owned);
        let path = |name: &str| text(name).filter(|path| !path.is_empty()).map(PathBuf::from);
        Ok(Self {
            event: text("hook_event_name").unwrap_or_default(),
            session: text("session_id").unwrap_or_default(),
            prompt_id: text("prompt_id").unwrap_or_default(),
            prompt: text("prompt")
                .or_else(|| text("user_prompt"))
                .map(|text| without_pastes(&text)),
            last_message: text("last_assistant_message"),
            transcript: path("transcript_path"),
            cwd: path("cwd"),
            is_subagent: text("agent_id").is_some_and(|id| !id.is_empty()),
        })
    }
}

/// JSON, also with a byte order mark, bytes that are no UTF-8, or halves of surrogate pairs.
pub(crate) fn parse_json(input: &[u8]) -> Result<Json> {
    let input = input.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(input);
    if let Ok(json) = serde_json::from_slice(input) {
        return Ok(json);
    }
    let text = String::from_utf8_lossy(input);
    let codec = |error: serde_json::Error| Error::Codec(error.to_string());
    serde_json::from_str(&without_lone_surrogates(&text)).map_err(codec)
}

/// Replaces `\ud800` to `\udfff` that have no other half.
fn without_lone_surrogates(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(rest.get(..at).unwrap_or(""));
        rest = rest.get(at..).unwrap_or("");
        let (first, second) = (unit(rest), rest.get(6..).and_then(unit));
        let len = match (first, second) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => {
                out.push('\u{fffd}');
                rest = rest.get(6..).unwrap_or("");
                continue;
            }
            // A backslash, and whatever it escapes.
            _ => 1 + rest.chars().nth(1).map_or(0, char::len_utf8),
        };
        out.push_str(rest.get(..len).unwrap_or(rest));
        rest = rest.get(len..).unwrap_or("");
    }
    out + rest
}

fn unit(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u32::from_str_radix(digits, 16).ok()
}

/// What was pasted is replaced by how long it was: the words around it are what was asked.
fn without_pastes(text: &str) -> String {
    const BEGIN: &str = "<pasted_content";
    const END: &str = "</pasted_content>";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let Some((pasted, behind)) = after.split_once(END) else { break };
        let inner = pasted.split_once('>').map_or(pasted, |(_, inner)| inner);
        out.push_str(before);
        let _ = write!(out, "[pasted: {} characters]", inner.chars().count());
        rest = behind;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_names_of_the_prompt_and_unknown_fields_are_taken() {
        let one = Payload::parse(br#"{"hook_event_name":"X","prompt":"a","effort":{"level":1}}"#);
        let two = Payload::parse(b"\xEF\xBB\xBF{\"hook_event_name\":\"X\",\"user_prompt\":\"a\"}");
        assert_eq!(one.unwrap(), two.unwrap());
        assert_eq!(Payload::parse(b"{\"prompt\":7}").unwrap(), Payload::default());
        assert!(matches!(Payload::parse(b"{"), Err(Error::Codec(_))));
    }

    #[test]
    fn lone_surrogates_are_replaced_and_pairs_stay() {
        let input = br#"{"prompt":"a\ud800b \ud83d\ude00 \\ud800 \udc00"}"#;
        let found = Payload::parse(input).unwrap().prompt.unwrap();
        assert_eq!(found, "a\u{fffd}b \u{1f600} \\ud800 \u{fffd}");
    }

    #[test]
    fn a_paste_leaves_its_length() {
        let text = "see <pasted_content id=\"1\">\nabc</pasted_content> and fix";
        assert_eq!(without_pastes(text), "see [pasted: 4 characters] and fix");
        assert_eq!(without_pastes("<pasted_content open"), "<pasted_content open");
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = Payload::parse(&bytes);
            let _ = without_pastes(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn any_escapes_never_panic(text in "(\\\\|u|d8|dc|00|\"|\u{e4}){0,30}") {
            let _ = Payload::parse(format!("{{\"prompt\":\"{text}\"}}").as_bytes());
        }
    }
}
