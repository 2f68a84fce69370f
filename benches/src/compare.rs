//! `compare`: every engine side by side, each group of rows in a process of its own, in turns.
//! Knows processes and directories; measures nothing itself.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::Value;
use terrace_benches::workload::VALUE_LEN;

use crate::cgroup::Cgroup;
use crate::engine::Outcome;
use crate::figures::Figures;
use crate::group::Group;
use crate::group::opening::READY;
use crate::group::reads::limited_data_bytes;
use crate::growth;
use crate::limited;
use crate::peers::{self, Named};
use crate::report::{self, Run};

/// The groups in their order; those of one directory come first.
pub(crate) const GROUPS: &[Group] = &[
    Group::Load,
    Group::Reads,
    Group::Ycsb,
    Group::Crash,
    Group::CrashOpen,
    Group::Synced,
    Group::Space,
    Group::Cold,
    Group::Limited,
];

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Under five minutes: 200,000 keys, one repetition.
    #[arg(long)]
    pub quick: bool,
    /// Records of the main rows.
    #[arg(long)]
    pub keys: Option<u64>,
    /// Operations of a row.
    #[arg(long)]
    pub ops: Option<u64>,
    /// Repetitions.
    #[arg(long)]
    pub repetitions: Option<u64>,
    /// Cache bytes of each engine, in MiB.
    #[arg(long)]
    pub cache_mib: Option<u64>,
    /// How cost grows instead: Terrace, or the engines named, over numbers of keys and lengths of
    /// values; under ten minutes.
    #[arg(long)]
    pub growth: bool,
    /// The rows again where memory is a quarter of the data; needs a memory cgroup.
    #[arg(long, conflicts_with = "growth")]
    pub limited: bool,
    /// Minutes after which no further group of rows begins; the report says what was left out.
    #[arg(long, default_value_t = 30)]
    pub minutes: u64,
    /// Only these engines, by name.
    #[arg(long, value_delimiter = ',')]
    pub engines: Vec<String>,
    /// Only these groups of rows; `reads`, `ycsb` and `crash-open` need `load`.
    #[arg(long, value_delimiter = ',')]
    pub groups: Vec<Group>,
    /// Where the stores lie while they are measured: on the disk that is meant, not on a tmpfs.
    #[arg(long, default_value = "target")]
    pub dir: PathBuf,
    /// Where table, JSON and charts go.
    #[arg(long, default_value = "target/compare")]
    pub out: PathBuf,
}

/// What one run is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub keys: u64,
    pub value_len: usize,
    pub ops: u64,
    pub repetitions: u64,
    pub cache_bytes: u64,
}

impl CompareArgs {
    fn sizes(&self) -> Sizes {
        let (keys, ops, repetitions, cache) =
            if self.quick { (200_000, 200_000, 1, 256) } else { (1_000_000, 1_000_000, 3, 512) };
        Sizes {
            keys: self.keys.unwrap_or(keys).max(1000),
            value_len: VALUE_LEN,
            ops: self.ops.unwrap_or(ops).max(1000),
            repetitions: self.repetitions.unwrap_or(repetitions).max(1),
            cache_bytes: self.cache_mib.unwrap_or(cache) << 20,
        }
    }

    fn wants(&self, engine: &Named) -> bool {
        self.engines.is_empty() || self.engines.iter().any(|name| name == engine.0)
    }

    pub(crate) fn wants_group(&self, group: Group) -> bool {
        self.groups.is_empty() || self.groups.contains(&group)
    }
}

/// Measures everything and writes the report; the table goes to standard output too.
pub(crate) fn run(args: &CompareArgs) -> Outcome<()> {
    let stores: Vec<Named> = peers::stores().into_iter().filter(|e| args.wants(e)).collect();
    let caches: Vec<Named> = peers::caches().into_iter().filter(|e| args.wants(e)).collect();
    if stores.is_empty() && caches.is_empty() {
        return Err("this build has none of the engines named".into());
    }
    if args.growth {
        return growth::run(args);
    }
    if args.limited {
        return limited::run(args, stores);
    }
    std::fs::create_dir_all(&args.dir)?;
    let scratch = tempfile::tempdir_in(&args.dir)?;
    let limit = Cgroup::of_a_quarter(limited_data_bytes(args.sizes().keys));
    let mut session = Session::new(args, scratch.path(), limit);
    for repetition in 0..session.sizes.repetitions {
        for &group in GROUPS.iter().filter(|&&group| args.wants_group(group)) {
            session.turn(group, &stores, repetition);
        }
        if args.wants_group(Group::Hot) {
            session.turn(Group::Hot, &caches, repetition);
        }
        for (name, _) in &stores {
            remove(&session.scratch.join(name));
        }
    }
    let Session { sizes, figures, failures, .. } = session;
    let what = format!(
        "{} keys of 24 bytes with values of {} bytes, {} operations a row, {} repetitions, caches \
         of {} MiB.",
        sizes.keys,
        sizes.value_len,
        sizes.ops,
        sizes.repetitions,
        sizes.cache_bytes >> 20
    );
    let run = Run { what, sizes, stores, caches, figures, failures };
    println!("{}", report::write(&run, &args.out)?);
    Ok(())
}

/// A run under way.
pub(crate) struct Session {
    pub sizes: Sizes,
    scratch: PathBuf,
    pub figures: Figures,
    pub failures: Vec<String>,
    limit: Outcome<Cgroup>,
    /// Every group has the limit, not the limited one alone.
    pub limits_all: bool,
    begin: Instant,
    time: Duration,
}

impl Session {
    pub(crate) fn new(args: &CompareArgs, scratch: &Path, limit: Outcome<Cgroup>) -> Self {
        Self {
            sizes: args.sizes(),
            scratch: scratch.to_path_buf(),
            figures: Figures::default(),
            failures: Vec::new(),
            limit,
            limits_all: false,
            begin: Instant::now(),
            time: Duration::from_secs(args.minutes.saturating_mul(60)),
        }
    }

    /// Whether there is no time for more; what is left out then is in the report.
    pub(crate) fn is_late(&mut self, what: std::fmt::Arguments<'_>) -> bool {
        let late = self.begin.elapsed() > self.time;
        if late {
            self.failures.push(format!("{what}: left out: the time was over"));
        }
        late
    }

    /// One group on each engine in turn; another one begins in each repetition.
    pub(crate) fn turn(&mut self, group: Group, engines: &[Named], repetition: u64) {
        let count = engines.len();
        let first = usize::try_from(repetition).unwrap_or(0);
        if let (Group::Limited, Err(error)) = (group, &self.limit) {
            if repetition == 0 {
                self.failures.push(format!("limited memory: left out: {error}"));
            }
            return;
        }
        if self.is_late(format_args!("{group:?}, repetition {}", repetition + 1)) {
            return;
        }
        for i in 0..count {
            let Some((name, _)) = engines.get((first + i) % count) else { continue };
            self.try_measure(group, name, name, repetition);
        }
    }

    /// One process, its figures under `label`; a failure is noted.
    pub(crate) fn try_measure(&mut self, group: Group, engine: &str, label: &str, repetition: u64) {
        eprintln!("repetition {} {group:?} {label}", repetition + 1);
        if let Err(error) = self.measure(group, engine, label, repetition) {
            eprintln!("  {error}");
            self.failures.push(format!("{group:?} {label}: {error}"));
        }
    }

    fn measure(&mut self, group: Group, engine: &str, label: &str, repetition: u64) -> Outcome<()> {
        let own = if group.shares_directory() { "main" } else { "own" };
        let dir = self.scratch.join(engine).join(own);
        let mut child = self.command(group, engine, &dir, repetition)?.spawn()?;
        let killed = self.read(&mut child, label)?;
        if killed {
            // `kill` sends SIGKILL: the row is about what that leaves.
            child.kill()?;
        }
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            stderr.read_to_string(&mut said)?;
        }
        let status = child.wait()?;
        if !group.shares_directory() {
            remove(&dir);
        }
        if status.success() || killed {
            return Ok(());
        }
        let last = said.lines().last().unwrap_or("no word").to_owned();
        Err(format!("{status}: {last}").into())
    }

    fn command(&self, group: Group, engine: &str, dir: &Path, repetition: u64) -> Outcome<Command> {
        let sizes = &self.sizes;
        let mut cache_bytes = sizes.cache_bytes;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("one");
        let is_limited = group == Group::Limited || self.limits_all;
        if let Some(limit) = self.limit.as_ref().ok().filter(|_| is_limited) {
            cache_bytes = limit.cache_bytes();
            command.arg("--cgroup").arg(&limit.dir);
        }
        let name = group.to_possible_value().map(|value| value.get_name().to_owned());
        command
            .args(["--engine", engine, "--group", &name.unwrap_or_default()])
            .args(["--keys", &sizes.keys.to_string(), "--ops", &sizes.ops.to_string()])
            .args(["--value-len", &sizes.value_len.to_string()])
            .args(["--cache-bytes", &cache_bytes.to_string()])
            .args(["--seed", &(repetition + 1).to_string()])
            .arg("--dir")
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }

    /// Takes the figures of a process as they come; answers whether it waits to be killed.
    fn read(&mut self, child: &mut Child, engine: &str) -> Outcome<bool> {
        let stdout = child.stdout.take().ok_or("the process has no output")?;
        for line in BufReader::new(stdout).lines() {
            let line: Value = serde_json::from_str(&line?)?;
            let (row, value) = (
                line.get("row").and_then(Value::as_str),
                line.get("value").and_then(Value::as_f64),
            );
            match (row, value) {
                (Some(READY), _) => return Ok(true),
                (Some(row), Some(value)) => self.figures.add(engine, row, value),
                _ => return Err(format!("a figure of {engine} reads {line}").into()),
            }
        }
        Ok(false)
    }
}

/// Removes a store that was measured. What stays is gone with the scratch directory.
pub(crate) fn remove(dir: &Path) {
    let _left = std::fs::remove_dir_all(dir);
}
