//! Hooks of Claude Code: what was asked and answered goes to the long-term memory.
//!
//! A hook prints nothing and always succeeds: what it printed would be read by the model, and a
//! failure would take the user's prompt away. What went wrong stands in
//! `.claude/conversations/.hook.log`.

mod payload;
pub mod settings;
pub mod transcript;

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::{Clock, Millis, Stopwatch};
use crate::conversation::Role;
use crate::error::{Error, Result};
use crate::hook::payload::Payload;
use crate::recall::{LongTerm, NOT_CAPTURED, Recorded, TimeZone, Turn, files};

const LOG: &str = ".claude/conversations/.hook.log";
/// The longest that is kept of the log.
const LOG_LEN_MAX: u64 = 64 << 10;
/// The longest input that is read.
const INPUT_LEN_MAX: u64 = 16 << 20;
/// How long a transcript is waited for that is written beside the hook.
const TRANSCRIPT_WAIT: Duration = Duration::from_millis(500);
const TRANSCRIPT_STEP: Duration = Duration::from_millis(50);

/// Which hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookKind {
    /// `UserPromptSubmit`.
    UserPrompt,
    /// `Stop`.
    Stop,
}

/// Where and when a hook runs.
#[derive(Debug, Clone)]
pub struct Env {
    /// The root of the project; the input's `cwd` when it is not known.
    pub project_dir: Option<PathBuf>,
    /// Now.
    pub now: Millis,
    /// The time zone of headings and days.
    pub zone: TimeZone,
}

impl Env {
    /// What this process was given: `CLAUDE_PROJECT_DIR`, the clock, the time zone.
    pub fn from_process() -> Self {
        let dir = std::env::var_os("CLAUDE_PROJECT_DIR").filter(|dir| !dir.is_empty());
        let project_dir = dir.map(PathBuf::from);
        Self { project_dir, now: Clock::system().now(), zone: TimeZone::system() }
    }
}

/// What a hook did. The exit code is 0 whatever it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookOutcome {
    /// It was written down, or stood there already.
    Recorded(Recorded),
    /// There was nothing to write down; why.
    Skipped(&'static str),
    /// Something went wrong; it stands in the log.
    Failed(String),
}

impl HookOutcome {
    /// The exit code of the process: always 0.
    pub fn exit_code(&self) -> u8 {
        0
    }
}

/// Runs a hook on its input: JSON as Claude Code writes it. Unknown fields are passed over; all but
/// `hook_event_name` may be missing.
///
/// ```
/// use terrace_memory::hook::{Env, HookKind, HookOutcome, run_hook};
/// use terrace_memory::recall::Recorded;
///
/// let project = tempfile::tempdir()?;
/// let env = Env { project_dir: Some(project.path().into()), ..Env::from_process() };
/// let input = br#"{"hook_event_name":"UserPromptSubmit","session_id":"s","prompt":"Hello"}"#;
/// let outcome = run_hook(HookKind::UserPrompt, &input[..], &env);
/// assert_eq!(outcome, HookOutcome::Recorded(Recorded::Appended));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn run_hook(kind: HookKind, stdin: impl Read, env: &Env) -> HookOutcome {
    let mut input = Vec::new();
    let read = stdin.take(INPUT_LEN_MAX).read_to_end(&mut input);
    let run = || {
        read.map_err(Error::from)?;
        run(kind, &Payload::parse(&input)?, env)
    };
    let outcome = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => HookOutcome::Failed(error.to_string()),
        Err(_) => HookOutcome::Failed("a panic".to_owned()),
    };
    if let (HookOutcome::Failed(why), Some(root)) = (&outcome, &env.project_dir) {
        // The log itself may be what fails.
        drop(log(root, env.now, kind, why));
    }
    outcome
}

fn run(kind: HookKind, payload: &Payload, env: &Env) -> Result<HookOutcome> {
    let wanted = match kind {
        HookKind::UserPrompt => "UserPromptSubmit",
        HookKind::Stop => "Stop",
    };
    if payload.event != wanted {
        return Ok(HookOutcome::Skipped("another event"));
    }
    if payload.is_subagent {
        return Ok(HookOutcome::Skipped("a subagent"));
    }
    let Some(root) = env.project_dir.as_deref().or(payload.cwd.as_deref()) else {
        return Ok(HookOutcome::Skipped("no project"));
    };
    let memory = LongTerm::open(root, None)?.zone(env.zone.clone());
    let call = Call { memory, payload, root, now: env.now };
    match kind {
        HookKind::UserPrompt => call.user_prompt(),
        HookKind::Stop => call.stop(),
    }
}

/// One run of a hook.
struct Call<'c> {
    memory: LongTerm,
    payload: &'c Payload,
    root: &'c Path,
    now: Millis,
}

impl Call<'_> {
    fn turn(&self, role: Role, text: String, prompt: String) -> Turn {
        let project = self.root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Turn { role, text, at: self.now, session: self.payload.session.clone(), prompt, project }
    }

    fn user_prompt(&self) -> Result<HookOutcome> {
        // A failed repair must not keep what is asked now from being written down.
        let repaired = self.repair();
        let Some(text) = self.payload.prompt.clone().filter(|text| !text.trim().is_empty()) else {
            return Ok(HookOutcome::Skipped("an empty prompt"));
        };
        let turn = self.turn(Role::User, text, self.payload.prompt_id.clone());
        let recorded = self.memory.record(&turn)?;
        repaired?;
        Ok(HookOutcome::Recorded(recorded))
    }

    /// Reads the answer to the last prompt now, if it was not there when its turn ended.
    fn repair(&self) -> Result<()> {
        let Some(path) = &self.payload.transcript else { return Ok(()) };
        let last = self.memory.last_prompt(&self.payload.session, self.now)?;
        let Some(last) = last.filter(|last| last.missing) else { return Ok(()) };
        let answer = transcript::read_answer(path, Some(last.mark.text))?;
        if let Some(text) = answer {
            self.memory.record(&self.turn(Role::Assistant, text, last.mark.prompt))?;
        }
        Ok(())
    }

    fn stop(&self) -> Result<HookOutcome> {
        let last = self.memory.last_prompt(&self.payload.session, self.now)?;
        let mut prompt = self.payload.prompt_id.clone();
        if prompt.is_empty() {
            prompt = last.as_ref().map(|last| last.mark.prompt.clone()).unwrap_or_default();
        }
        let given = self.payload.last_message.clone().filter(|text| !text.trim().is_empty());
        let text = match given {
            Some(text) => text,
            None => self.read_transcript(last.map(|last| last.mark.text))?,
        };
        let recorded = self.memory.record(&self.turn(Role::Assistant, text, prompt))?;
        Ok(HookOutcome::Recorded(recorded))
    }

    /// The answer to the current prompt, waited for a little: the transcript is written beside us.
    /// An answer to an earlier prompt is worse than none.
    fn read_transcript(&self, asked: Option<u64>) -> Result<String> {
        let missing = || Ok(NOT_CAPTURED.to_owned());
        let (Some(path), Some(asked)) = (&self.payload.transcript, asked) else {
            return missing();
        };
        let watch = Stopwatch::start(TRANSCRIPT_WAIT);
        loop {
            if let Some(text) = transcript::read_answer(path, Some(asked))? {
                return Ok(text);
            }
            let Some(left) = watch.left() else { return missing() };
            std::thread::park_timeout(left.min(TRANSCRIPT_STEP));
        }
    }
}

fn log(root: &Path, now: Millis, kind: HookKind, why: &str) -> Result<()> {
    let path = root.join(LOG);
    let line: String = why.chars().filter(|letter| !letter.is_control()).take(500).collect();
    let line = format!("{now}: {kind:?}: {line}\n");
    let lock = files::lock(&root.join(".claude/conversations/.lock"))?;
    if files::stamp(&path)?.is_some_and(|found| found.len > LOG_LEN_MAX) {
        return files::replace(&lock, &path, &line);
    }
    files::append(&lock, &path, &line)
}

#[cfg(test)]
#[path = "hook_tests.rs"]
mod tests;
