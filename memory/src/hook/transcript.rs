//! Transcripts of Claude Code: JSON by line, a tree by `parentUuid`, one line a block of content.
//! Knows their lines; writes nothing. Their form is not promised by anybody: what is not understood
//! is passed over.
//!
//! * The last line need not be the assistant's.
//! * Lines of one `message.id` are one message, its usage counted once.
//! * A `user` line may be a tool's result or markup; side chains, summaries and team mates are not
//!   the talk.
//! * The order is the chain of parents from the newest leaf.
//! * An answer counts only when it descends from the prompt asked for.
//! * The end of the file is read first, and more of it only when it does not reach.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::Deserialize;

use crate::codec::Json;
use crate::conversation::Role;
use crate::error::Result;
use crate::recall::{files, fingerprint};
use crate::store::Millis;

/// What is read first, and at most.
const TAIL_LEN: u64 = 256 << 10;
const TAIL_LEN_MAX: u64 = 64 << 20;

/// One thing that was said, of a transcript.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The user or the assistant.
    pub role: Role,
    /// The text of all of its blocks.
    pub text: String,
    /// When it began, if the line says so.
    pub at: Option<Millis>,
    /// Tokens of the message, input and output, counted once.
    pub tokens: u64,
}

#[derive(Debug, Deserialize)]
struct Raw {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    uuid: Option<String>,
    #[serde(rename = "parentUuid", default)]
    parent: Option<String>,
    #[serde(default)]
    timestamp: Option<String>,
    #[serde(rename = "isSidechain", default)]
    is_sidechain: bool,
    #[serde(rename = "isMeta", default)]
    is_meta: bool,
    #[serde(rename = "isCompactSummary", default)]
    is_summary: bool,
    #[serde(rename = "teamName", default)]
    team: Option<Json>,
    #[serde(default)]
    message: Option<Json>,
}

impl Raw {
    fn field(&self, name: &str) -> Option<&Json> {
        self.message.as_ref()?.get(name)
    }

    /// The words of the user or the model; tool calls, results and thoughts are none.
    fn text(&self) -> Option<String> {
        let found = match self.field("content")? {
            Json::String(text) => text.clone(),
            Json::Array(blocks) => {
                let texts = blocks.iter().filter(|one| one.get("type") == Some(&"text".into()));
                let texts = texts.filter_map(|one| one.get("text")?.as_str());
                texts.collect::<Vec<_>>().join("\n")
            }
            _ => return None,
        };
        Some(found).filter(|text| !text.trim().is_empty())
    }

    /// What the user said.
    fn prompt(&self) -> Option<String> {
        let own = self.kind == "user" && !self.is_meta && !self.is_summary;
        let markup = |text: &String| {
            ["<command-", "<local-command-", "<system-reminder>"]
                .iter()
                .any(|mark| text.trim_start().starts_with(mark))
        };
        if own { self.text().filter(|text| !markup(text)) } else { None }
    }

    fn tokens(&self) -> u64 {
        let usage = |name: &str| self.field("usage")?.get(name)?.as_u64();
        usage("input_tokens").unwrap_or(0).saturating_add(usage("output_tokens").unwrap_or(0))
    }

    fn at(&self) -> Option<Millis> {
        let at: jiff::Timestamp = self.timestamp.as_deref()?.parse().ok()?;
        u64::try_from(at.as_millisecond()).ok().map(Millis)
    }
}

/// The lines of the talk from its beginning, as far as they are there, and whether that is all.
fn chain(bytes: &[u8]) -> (Vec<Raw>, bool) {
    let mut lines: Vec<Raw> = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        // Half a line, or what is not understood, is passed over.
        let Ok(raw) = serde_json::from_slice::<Raw>(line) else { continue };
        if raw.uuid.is_some() && !raw.is_sidechain && raw.team.is_none() {
            lines.push(raw);
        }
    }
    let places: HashMap<String, usize> =
        lines.iter().enumerate().filter_map(|(i, one)| Some((one.uuid.clone()?, i))).collect();
    let talks = |raw: &Raw| raw.kind == "user" || raw.kind == "assistant";
    let mut at = lines.iter().rposition(talks);
    let (mut order, mut seen, mut whole) = (Vec::new(), HashSet::new(), false);
    while let Some(i) = at.filter(|i| seen.insert(*i)) {
        order.push(i);
        let parent = lines.get(i).and_then(|one| one.parent.clone());
        whole = parent.is_none();
        at = parent.and_then(|parent| places.get(&parent).copied());
    }
    order.reverse();
    let mut slots: Vec<Option<Raw>> = lines.into_iter().map(Some).collect();
    let taken = order.into_iter().filter_map(|i| slots.get_mut(i).and_then(Option::take));
    (taken.collect(), whole)
}

/// The last message with text behind the last prompt; `None` when that prompt is not the one that
/// is asked for, or when nothing was said yet.
fn answer_in(chain: &[Raw], asked: Option<u64>) -> Option<String> {
    let at = chain.iter().rposition(|raw| raw.prompt().is_some())?;
    let prompt = chain.get(at)?.prompt()?;
    if asked.is_some_and(|asked| fingerprint(&prompt) != asked) {
        return None;
    }
    let said = said(chain.get(at..).unwrap_or(&[]));
    said.into_iter().rfind(|one| one.role == Role::Assistant).map(|one| one.text)
}

/// The answer to the prompt of this fingerprint; to the last one when none is given.
pub(crate) fn read_answer(path: &Path, asked: Option<u64>) -> Result<Option<String>> {
    let mut len = TAIL_LEN;
    loop {
        let Some((bytes, all)) = files::read_tail(path, len)? else { return Ok(None) };
        let (chain, whole) = chain(&bytes);
        let prompted = chain.iter().any(|raw| raw.prompt().is_some());
        if prompted || whole || all || len >= TAIL_LEN_MAX {
            return Ok(answer_in(&chain, asked));
        }
        len = (len * 4).min(TAIL_LEN_MAX);
    }
}

/// All that was said in a transcript of at most 64 MiB, in order; of a longer one, its end.
///
/// Errors: [`crate::Error::Io`] when the file cannot be read. A file that is not there has nothing.
pub fn read(path: &Path) -> Result<Vec<Said>> {
    let Some((bytes, _)) = files::read_tail(path, TAIL_LEN_MAX)? else { return Ok(Vec::new()) };
    Ok(said(&chain(&bytes).0))
}

/// Joins the lines of one message.
fn said(chain: &[Raw]) -> Vec<Said> {
    let mut found: Vec<Said> = Vec::new();
    let mut last_id: Option<&str> = None;
    let mut counted: HashSet<&str> = HashSet::new();
    for raw in chain {
        if let Some(text) = raw.prompt() {
            last_id = None;
            found.push(Said { role: Role::User, text, at: raw.at(), tokens: 0 });
        }
        if raw.kind != "assistant" || raw.is_meta {
            continue;
        }
        let id = raw.field("id").and_then(Json::as_str);
        // The usage stands on every line of a message.
        let tokens = if id.is_some_and(|id| !counted.insert(id)) { 0 } else { raw.tokens() };
        let text = raw.text();
        match found.last_mut().filter(|last| last.role == Role::Assistant) {
            Some(last) if id.is_some() && id == last_id => {
                if let Some(text) = text {
                    last.text =
                        if last.text.is_empty() { text } else { format!("{}\n{text}", last.text) };
                }
                last.tokens += tokens;
            }
            _ => {
                last_id = id;
                let (role, at) = (Role::Assistant, raw.at());
                found.push(Said { role, text: text.unwrap_or_default(), at, tokens });
            }
        }
    }
    merge_silent(found)
}

/// Messages without a word give their tokens to the next one that has some, or to the one before.
fn merge_silent(all: Vec<Said>) -> Vec<Said> {
    let mut found: Vec<Said> = Vec::new();
    let mut carried = 0;
    for mut one in all {
        if one.text.is_empty() {
            carried += one.tokens;
            continue;
        }
        if one.role == Role::Assistant {
            one.tokens += std::mem::take(&mut carried);
        }
        found.push(one);
    }
    if let Some(last) = found.last_mut() {
        last.tokens += carried;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRANSCRIPT: &str = include_str!("fixtures/transcript.jsonl");

    const OWN_PARENT: &str = r#"{"uuid":"u1","parentUuid":"u1"}"#;

    fn answer(text: &str, asked: Option<&str>) -> Option<String> {
        answer_in(&chain(text.as_bytes()).0, asked.map(fingerprint))
    }

    #[test]
    fn blocks_of_one_message_are_joined_and_counted_once() {
        let all = said(&chain(TRANSCRIPT.as_bytes()).0);
        let texts: Vec<_> = all.iter().map(|one| (one.role, one.text.as_str())).collect();
        assert_eq!(
            texts,
            [
                (Role::User, "first question"),
                (Role::Assistant, "first answer\nand more"),
                (Role::User, "second question"),
                (Role::Assistant, "let me look"),
                (Role::Assistant, "second answer"),
            ]
        );
        assert_eq!(all.iter().map(|one| one.tokens).sum::<u64>(), 15 + 30 + 40);
        assert_eq!(all[0].at, Some(Millis(1_763_634_600_000)));
    }

    #[test]
    fn an_answer_counts_only_for_the_prompt_it_descends_from() {
        assert_eq!(answer(TRANSCRIPT, Some("second question")).as_deref(), Some("second answer"));
        assert_eq!(answer(TRANSCRIPT, Some("first question")), None);
        assert_eq!(answer(TRANSCRIPT, None).as_deref(), Some("second answer"));
        let upto = TRANSCRIPT.find("let me look").unwrap();
        assert_eq!(answer(&TRANSCRIPT[..upto], Some("second question")), None);
        assert_eq!(answer("", None), None);
    }

    #[test]
    fn the_end_of_a_long_file_is_enough_and_a_prompt_far_back_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("t.jsonl");
        let filler = format!("{{\"type\":\"system\",\"x\":\"{}\"}}\n", "x".repeat(1000));
        let tool = |i: usize, parent: &str| {
            format!(
                "{{\"type\":\"assistant\",\"uuid\":\"t{i}\",\"parentUuid\":\"{parent}\",\
                 \"message\":{{\"id\":\"m{i}\",\"content\":[{{\"type\":\"tool_use\",\
                 \"input\":\"{}\"}}]}}}}\n",
                "y".repeat(2000)
            )
        };
        let mut text = filler.repeat(400) + TRANSCRIPT.trim_end() + "\n";
        let mut parent = "u9".to_owned();
        for i in 0..400 {
            text.push_str(&tool(i, &parent));
            parent = format!("t{i}");
        }
        let lock = files::lock(&directory.path().join("l")).unwrap();
        files::replace(&lock, &path, &text).unwrap();
        let asked = Some(fingerprint("second question"));
        assert_eq!(read_answer(&path, asked).unwrap().as_deref(), Some("second answer"));
        assert_eq!(read_answer(&directory.path().join("none"), asked).unwrap(), None);
        assert_eq!(read(&path).unwrap().len(), 5);
    }

    proptest! {
        #[test]
        fn any_lines_never_panic(
            picks in proptest::collection::vec((0_usize..14, 0_usize..200), 0..20),
        ) {
            let lines: Vec<&str> = TRANSCRIPT.lines().collect();
            let mut text = String::new();
            for (line, cut) in picks {
                let line = lines.get(line).copied().unwrap_or(OWN_PARENT);
                text.push_str(line.get(cut..).unwrap_or(line));
                text.push('\n');
            }
            for one in said(&chain(text.as_bytes()).0) {
                prop_assert!(!one.text.is_empty());
            }
        }
    }
}
