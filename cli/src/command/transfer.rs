//! `import` and `export`: JSON Lines, or a directory of files.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use terrace::{Db, Keyspace, PutOptions};

use crate::output::progress;
use crate::{Answer, Failure, jsonl};

/// Longest line that import reads: a value of 256 MiB in base64, and room.
const LINE_LEN_MAX: u64 = 400 << 20;

pub(crate) fn import(db: &Db, files: &[PathBuf], keyspace: &str) -> Result<Answer, Failure> {
    let mut imported = 0_u64;
    for file in files {
        let name = file.display().to_string();
        if name == "-" {
            imported += import_lines(db, "-", std::io::stdin().lock(), keyspace)?;
        } else {
            let opened =
                File::open(file).map_err(|error| Failure::Io(format!("{name}: {error}")))?;
            imported += import_lines(db, &name, BufReader::new(opened), keyspace)?;
        }
    }
    db.sync()?;
    eprintln!("{imported} records imported");
    Ok(Answer::Done)
}

fn import_lines(
    db: &Db,
    name: &str,
    mut from: impl BufRead,
    keyspace: &str,
) -> Result<u64, Failure> {
    let bar = progress(0, "import");
    let mut imported = 0;
    let mut number = 0_u64;
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut from).take(LINE_LEN_MAX).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(imported);
        }
        number += 1;
        let at = |text: String| {
            Failure::Io(format!("{name}, line {number}: {text}; {imported} records were imported"))
        };
        let text = std::str::from_utf8(&line).map_err(|error| at(error.to_string()))?;
        if text.trim().is_empty() {
            continue;
        }
        let record = jsonl::decode(text.trim_end()).map_err(at)?;
        let target = db.keyspace(record.keyspace.as_deref().unwrap_or(keyspace))?;
        put_line(&target, &record).map_err(|error| at(error.to_string()))?;
        imported += 1;
        bar.inc(1);
    }
}

/// A record that expired meanwhile is not written: it is gone already.
fn put_line(keyspace: &Keyspace, record: &jsonl::Line) -> terrace::Result<()> {
    let mut options = PutOptions::new();
    if let Some(ms) = record.expires_at_ms {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let Some(ttl) = Duration::from_millis(ms).checked_sub(now).filter(|ttl| !ttl.is_zero())
        else {
            return Ok(());
        };
        options = options.ttl(ttl);
    }
    keyspace.put_with(&record.key, &record.value, options)
}

pub(crate) fn import_dir(db: &Db, dir: &Path, keyspace: &str) -> Result<Answer, Failure> {
    let keyspace = db.keyspace(keyspace)?;
    let files = files_below(dir, u64::MAX)?;
    let bar = progress(files.len() as u64, "import");
    for file in &files {
        let name = |error| Failure::Io(format!("{}: {error}", file.display()));
        let bytes = std::fs::read(file).map_err(name)?;
        let key = file.strip_prefix(dir).unwrap_or(file);
        keyspace.put(key.as_os_str().as_encoded_bytes(), bytes)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    db.sync()?;
    eprintln!("{} files imported", files.len());
    Ok(Answer::Done)
}

/// Regular files below a directory, sorted, up to so many bytes in all. Links are not followed.
pub(crate) fn files_below(dir: &Path, most: u64) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    let mut len = 0;
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        let entries = std::fs::read_dir(&dir)
            .map_err(|error| Failure::Io(format!("{}: {error}", dir.display())))?;
        let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let kind = entry.file_type()?;
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() && len < most {
                len += entry.metadata()?.len();
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

pub(crate) fn export(
    db: &Db,
    out: Option<&Path>,
    keyspace: Option<&str>,
) -> Result<Answer, Failure> {
    let names = match keyspace {
        Some(name) => vec![name.to_owned()],
        None => db.keyspaces()?,
    };
    let mut out: Box<dyn Write> = match out {
        Some(path) => Box::new(BufWriter::new(
            File::create(path)
                .map_err(|error| Failure::Io(format!("{}: {error}", path.display())))?,
        )),
        None => Box::new(BufWriter::new(std::io::stdout().lock())),
    };
    let bar = progress(0, "export");
    for name in names {
        let keyspace = db.keyspace(&name)?;
        for item in &keyspace {
            let (key, value) = item?;
            let expires = keyspace.info(&key)?.and_then(|info| info.expires_at);
            writeln!(out, "{}", jsonl::encode(Some(&name), &key, Some(&value), expires))?;
            bar.inc(1);
        }
    }
    out.flush()?;
    bar.finish_and_clear();
    Ok(Answer::Done)
}
