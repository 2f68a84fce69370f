//! `demo`: the three tiers at work on real text, in about a minute.
//!
//! Load with budgets so small that all tiers fill; read with a skewed pattern; let TTLs expire;
//! kill a writing child and find everything that it acknowledged; audit the ledger to the byte.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use terrace::{Db, Keyspace, Options, PutOptions};

use crate::args::{DemoArgs, WriterArgs};
use crate::command::bench::anonymous_memory;
use crate::command::transfer::files_below;
use crate::output::{bytes, ledger_table, time};
use crate::{Answer, Failure};

const MEMORY: u64 = 16 << 20;
const WARM: u64 = 16 << 20;
/// Files are cut into records of this many bytes.
const PART_LEN: usize = 4096;
/// Records that the child acknowledges before it is killed.
const ACKS: u64 = 20_000;

pub(crate) fn run(args: &DemoArgs) -> Result<Answer, Failure> {
    let source = match &args.path {
        Some(path) => path.clone(),
        None => cargo_sources()?,
    };
    let db = Options::new().memory_budget(MEMORY).warm_budget(WARM).temporary()?;
    println!("Terrace: memory budget {}, log budget {}", bytes(MEMORY), bytes(WARM));
    let (names, raw) = load(&db, &source, args.limit_mib << 20)?;
    read(&db, &names)?;
    expire(&db)?;
    kill()?;
    audit(&db, raw)
}

fn heading(text: &str) {
    println!("\n-- {text}");
}

/// Where Cargo keeps the sources that it downloaded.
fn cargo_sources() -> Result<PathBuf, Failure> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let sources = home.map(|home| home.join("registry").join("src"));
    match sources {
        Some(sources) if sources.is_dir() => Ok(sources),
        _ => Err(Failure::Usage("Cargo's sources were not found: name a directory of text".into())),
    }
}

/// Puts every file, cut into parts, and shows what moves.
fn load(db: &Db, source: &Path, most: u64) -> Result<(Vec<Vec<u8>>, u64), Failure> {
    heading(&format!(
        "load: every file below {}",
        source.file_name().map_or("the path".into(), |n| n.to_string_lossy())
    ));
    println!(
        "{:>10} {:>9} {:>12} {:>12} {:>9}",
        "input", "records", "in the log", "in archives", "memory"
    );
    let keyspace = db.keyspace("default")?;
    let mut names = Vec::new();
    let (mut raw, mut shown, mut chunk) = (0, 0, Vec::with_capacity(PART_LEN));
    let begin = Instant::now();
    for file in files_below(source, most)? {
        let Ok(mut content) = std::fs::File::open(&file) else { continue };
        let name = file.strip_prefix(source).unwrap_or(&file).to_string_lossy().into_owned();
        for part in 0.. {
            chunk.clear();
            let read = Read::by_ref(&mut content).take(PART_LEN as u64).read_to_end(&mut chunk);
            let key = format!("{name}#{part:05}").into_bytes();
            if read.is_err() || chunk.is_empty() || key.len() > terrace::KEY_LEN_MAX {
                break;
            }
            keyspace.put(&key, &chunk)?;
            raw += (key.len() + chunk.len()) as u64;
            names.push(key);
        }
        if raw - shown >= most / 8 {
            shown = raw;
            line(db, raw, names.len());
        }
    }
    if names.is_empty() {
        return Err(Failure::Usage(format!("no file below {}", source.display())));
    }
    db.settle(Duration::from_secs(20))?;
    line(db, raw, names.len());
    let moved = db.stats();
    println!(
        "{} in {}; {} records were demoted in {} segments, {} archives merged",
        bytes(raw),
        time(begin.elapsed()),
        moved.records_demoted,
        moved.segments_cleaned,
        moved.archives_merged
    );
    Ok((names, raw))
}

fn line(db: &Db, raw: u64, records: usize) {
    let ledger = db.ledger();
    println!(
        "{:>10} {records:>9} {:>12} {:>12} {:>9}",
        bytes(raw),
        bytes(ledger.warm.len),
        bytes(ledger.cold.len),
        bytes(ledger.memory.total)
    );
}

/// Reads with a skew: a few records are read often, most hardly ever.
fn read(db: &Db, names: &[Vec<u8>]) -> Result<(), Failure> {
    heading("read: 200,000 gets, skewed (zipf); which tier answers, and how fast");
    let keyspace = db.keyspace("default")?;
    let mut seen: HashMap<&'static str, Vec<u32>> = HashMap::new();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for _ in 0..200_000 {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = skewed(state >> 11, names.len());
        let Some(key) = names.get(index) else { continue };
        let before = db.hits();
        let begin = Instant::now();
        let found = keyspace.get_with(key, <[u8]>::len)?;
        let took = u32::try_from(begin.elapsed().as_nanos()).unwrap_or(u32::MAX);
        if found.is_none() {
            return Err(Failure::Io("a record that was put is not there".into()));
        }
        seen.entry(tier_name(before, db.hits())).or_default().push(took);
    }
    println!("{:<16}{:>9}{:>8}{:>11}{:>11}", "tier", "hits", "share", "p50", "p99");
    for name in ["L1 hot", "L2 warm", "L3 cold"] {
        let Some(times) = seen.get_mut(name) else { continue };
        times.sort_unstable();
        let at = |part: usize| {
            let nanos = times.get(times.len() * part / 100).copied().unwrap_or_default();
            Duration::from_nanos(u64::from(nanos))
        };
        let share = times.len() / 2000;
        println!(
            "{name:<16}{:>9}{share:>6} %{:>11}{:>11}",
            times.len(),
            time(at(50)),
            time(at(99))
        );
    }
    Ok(())
}

/// A position with a density that falls as one over the rank, spread over the keys.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a random position; any rounding will do"
)]
fn skewed(random: u64, count: usize) -> usize {
    let uniform = random as f64 / (1_u64 << 53) as f64;
    let rank = ((count as f64).powf(uniform) - 1.0) as usize;
    rank.wrapping_mul(2_654_435_761) % count
}

fn tier_name(before: [u64; 3], after: [u64; 3]) -> &'static str {
    match (before, after) {
        ([hot, ..], [now, ..]) if now > hot => "L1 hot",
        ([_, _, cold], [_, _, now]) if now > cold => "L3 cold",
        _ => "L2 warm",
    }
}

/// Records with a short TTL go by themselves, and so do their bytes.
fn expire(db: &Db) -> Result<(), Failure> {
    heading("expire: 2,000 sessions with a TTL of 3 seconds");
    let sessions = db.keyspace("sessions")?;
    let before = db.ledger().disk_len();
    for i in 0..2000_u32 {
        let options = PutOptions::new().ttl(Duration::from_secs(3));
        sessions.put_with(i.to_be_bytes(), vec![b's'; 2000], options)?;
    }
    let full = db.ledger();
    println!("{} before, {} with them", bytes(before), bytes(full.disk_len()));
    std::thread::sleep(Duration::from_millis(3100));
    let there =
        (0..2000_u32).filter(|i| sessions.contains(i.to_be_bytes()).unwrap_or(true)).count();
    let begin = Instant::now();
    while db.ledger().disk_len() > before && begin.elapsed() < Duration::from_secs(15) {
        std::thread::sleep(Duration::from_millis(200));
    }
    println!(
        "after 3.1 s {there} of 2000 are readable; {} later the files take {}",
        time(begin.elapsed()),
        bytes(db.ledger().disk_len())
    );
    if there > 0 {
        return Err(Failure::Io("an expired record was readable".into()));
    }
    Ok(())
}

/// A child writes and acknowledges until it is killed; everything acknowledged must be there.
fn kill() -> Result<(), Failure> {
    heading("kill -9: a child writes and acknowledges; it is killed; the store is opened again");
    let dir = std::env::temp_dir().join(format!("terrace-demo-{}", std::process::id()));
    let result = kill_in(&dir);
    std::fs::remove_dir_all(&dir)?;
    result
}

fn kill_in(dir: &Path) -> Result<(), Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("demo-writer")
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut acked = 0;
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines() {
            acked = line?.parse().unwrap_or(acked);
            if acked == ACKS {
                child.kill()?;
            }
        }
    }
    let status = child.wait()?;
    let begin = Instant::now();
    let db = Db::open(dir)?;
    let opened = begin.elapsed();
    let keyspace = db.keyspace("default")?;
    let lost = lost_of(&keyspace, acked)?;
    println!("{acked} writes acknowledged, then {status}; opened in {}", time(opened));
    println!("{lost} of them are lost");
    db.close()?;
    if lost > 0 {
        return Err(Failure::Io(format!("{lost} acknowledged writes are lost")));
    }
    Ok(())
}

fn lost_of(keyspace: &Keyspace, acked: u64) -> Result<u64, Failure> {
    let mut lost = 0;
    for i in 1..=acked {
        let found = keyspace.get(i.to_be_bytes())?;
        lost += u64::from(found.as_deref() != Some(&value(i)[..]));
    }
    Ok(lost)
}

fn value(i: u64) -> Vec<u8> {
    let len = usize::try_from(i % 500).unwrap_or(0);
    vec![i.to_le_bytes()[0]; len]
}

/// The child of the demonstration.
pub(crate) fn write_until_killed(args: &WriterArgs) -> Result<Answer, Failure> {
    let db = Options::new().open(&args.dir)?;
    let keyspace = db.keyspace("default")?;
    let mut out = std::io::stdout().lock();
    for i in 1..10_000_000_u64 {
        keyspace.put(i.to_be_bytes(), value(i))?;
        writeln!(out, "{i}")?;
    }
    Ok(Answer::Done)
}

fn audit(db: &Db, raw: u64) -> Result<Answer, Failure> {
    heading("ledger: where every byte is");
    db.settle(Duration::from_secs(10))?;
    let ledger = db.ledger();
    print!("{}", ledger_table(&ledger));
    let audit = db.audit()?;
    println!(
        "audit: {} records in {} files recounted: {}",
        audit.records,
        audit.files,
        if audit.is_exact() { "exact to the byte" } else { "DIFFERS" }
    );
    for line in audit.differences.iter().chain(&audit.orphans) {
        println!("  {line}");
    }
    let disk = ledger.disk_len();
    println!(
        "{} of input take {} on disk ({} %); {} anonymous memory in this process",
        bytes(raw),
        bytes(disk),
        disk * 100 / raw.max(1),
        bytes(anonymous_memory())
    );
    Ok(if audit.is_exact() { Answer::Done } else { Answer::Damage })
}
