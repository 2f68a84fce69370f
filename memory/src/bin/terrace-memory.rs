//! `terrace-memory`: hooks of Claude Code, their installation, the long-term memory by hand.
//! A hook prints nothing and exits with 0, whatever happens.
#![forbid(unsafe_code)]

use std::env;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use terrace_memory::hook::settings::{self, Change};
use terrace_memory::hook::{Env, HookKind, run_hook};
use terrace_memory::recall::{Date, LongTerm, SearchOptions, TimeZone, WrapUp};
use terrace_memory::{Error, Result};

const USAGE: &str = "\
terrace-memory hook user-prompt     writes down a prompt: JSON on the input, as Claude Code gives it
terrace-memory hook stop            writes down an answer
terrace-memory install [SETTINGS]   enters both hooks; default: .claude/settings.json
terrace-memory uninstall [SETTINGS] takes them out again
terrace-memory search WORDS...      the sections that answer best
terrace-memory audit                repeats, secrets, dead links; exit code 1 when there are any
terrace-memory wrap-up [YYYY-MM-DD] keywords of a day into its file; default: today

The project is $CLAUDE_PROJECT_DIR, else the current directory.
";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if words.first() == Some(&"hook") {
        return hook(words.get(1).copied());
    }
    let mut out = io::stdout().lock();
    match command(&words, &mut out) {
        Ok(code) => code,
        // Whoever read us has gone.
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "terrace-memory: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn hook(kind: Option<&str>) -> ExitCode {
    // Exit code 2 would erase the user's prompt, and any text would be read by the model.
    std::panic::set_hook(Box::new(|_| {}));
    let kind = match kind {
        Some("user-prompt") => HookKind::UserPrompt,
        Some("stop") => HookKind::Stop,
        _ => return ExitCode::SUCCESS,
    };
    let outcome = run_hook(kind, io::stdin().lock(), &Env::from_process());
    ExitCode::from(outcome.exit_code())
}

fn project() -> Result<PathBuf> {
    match Env::from_process().project_dir {
        Some(dir) => Ok(dir),
        None => Ok(env::current_dir()?),
    }
}

fn command(words: &[&str], out: &mut impl Write) -> Result<ExitCode> {
    match words {
        ["install", rest @ ..] if rest.len() < 2 => {
            let path = settings_path(rest.first().copied())?;
            let change = settings::install(&path, &env::current_exe()?)?;
            report(out, &path, change)?;
        }
        ["uninstall", rest @ ..] if rest.len() < 2 => {
            let path = settings_path(rest.first().copied())?;
            report(out, &path, settings::uninstall(&path)?)?;
        }
        ["search", query @ ..] if !query.is_empty() => search(&query.join(" "), out)?,
        ["audit"] => return audit(out),
        ["wrap-up", rest @ ..] if rest.len() < 2 => wrap_up(rest.first().copied(), out)?,
        ["help" | "-h" | "--help"] => write!(out, "{USAGE}")?,
        _ => {
            write!(io::stderr(), "{USAGE}")?;
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn settings_path(given: Option<&str>) -> Result<PathBuf> {
    match given {
        Some(path) => Ok(PathBuf::from(path)),
        None => Ok(project()?.join(".claude/settings.json")),
    }
}

fn report(out: &mut impl Write, path: &Path, change: Change) -> Result<()> {
    let what = match change {
        Change::Written => "written",
        Change::Unchanged => "unchanged",
    };
    Ok(writeln!(out, "{}: {what}", path.display())?)
}

fn search(query: &str, out: &mut impl Write) -> Result<()> {
    let memory = LongTerm::open(project()?, None)?;
    for hit in memory.search(query, SearchOptions::default())? {
        writeln!(out, "{}:{}: {} ({:.2})", hit.file, hit.line, hit.heading, hit.score)?;
        writeln!(out, "  found: {}; {:?}", hit.matched.join(", "), hit.status)?;
        for line in hit.text.lines().take(12) {
            writeln!(out, "  {line}")?;
        }
    }
    Ok(())
}

fn audit(out: &mut impl Write) -> Result<ExitCode> {
    let audit = LongTerm::open(project()?, None)?.audit()?;
    for found in &audit.findings {
        writeln!(out, "{}:{}: {:?}: {}", found.file, found.line, found.kind, found.detail)?;
    }
    writeln!(out, "{} files, {} findings", audit.files, audit.findings.len())?;
    let sound = audit.findings.is_empty();
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn wrap_up(day: Option<&str>, out: &mut impl Write) -> Result<()> {
    let date = match day {
        Some(text) => text.parse::<Date>().map_err(|_| Error::Invalid("a date is YYYY-MM-DD"))?,
        None => today(),
    };
    let WrapUp { keywords, done, .. } = LongTerm::open(project()?, None)?.wrap_up(date, None)?;
    writeln!(out, "{date}: {}", keywords.join(", "))?;
    for line in done {
        writeln!(out, "- {line}")?;
    }
    Ok(())
}

fn today() -> Date {
    let now = i64::try_from(Env::from_process().now.0).unwrap_or(0);
    let now = jiff::Timestamp::from_millisecond(now).unwrap_or_default();
    now.to_zoned(TimeZone::system()).date()
}
