//! Seeds: what the engine itself writes, cut into the inputs of each target.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::format::archive::{ARCHIVE_FOOTER_LEN, ArchiveFooter, ArchiveHeader, Region};
use crate::internals::image::pack;
use crate::options::{Options, PutOptions};
use crate::vfs::Vfs;
use crate::vfs::clock::ManualTime;
use crate::vfs::sim::SimVfs;

/// One input: its target, its name, its bytes.
type Seed = (&'static str, String, Vec<u8>);

/// Files of one store by name.
type Files = Vec<(String, Vec<u8>)>;

/// Writes small stores with every kind of file and cuts them into inputs.
///
/// # Errors
///
/// What the engine says; none on a sound machine.
pub fn seeds() -> Result<Vec<(&'static str, String, Vec<u8>)>> {
    let mut seeds = Vec::new();
    for (name, files) in [("open", store(false)?), ("closed", store(true)?)] {
        let mut image = vec![1];
        image.extend(pack(files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))));
        seeds.push(("store", name.to_owned(), image));
        for (file, bytes) in &files {
            cut(file, bytes, &mut seeds);
        }
    }
    seeds.push(("dictionary", "none".into(), vec![0]));
    Ok(seeds)
}

fn seed(target: &'static str, name: &str, bytes: &[u8], seeds: &mut Vec<Seed>) {
    let mut input = vec![1];
    input.extend_from_slice(bytes);
    seeds.push((target, name.to_owned(), input));
}

fn cut(file: &str, bytes: &[u8], seeds: &mut Vec<Seed>) {
    let slice = |from: usize, len: usize| bytes.get(from..from + len).unwrap_or_default();
    if file.contains(".man") {
        seed("manifest", file, bytes, seeds);
    } else if file.contains(".bit") {
        seed("dead_bits", file, bytes, seeds);
    } else if file.contains(".idx") {
        seed("index_image", file, bytes, seeds);
    } else if file.contains(".seg") {
        seed("segment_header", file, slice(0, 64), seeds);
        seed("record", file, slice(64, 200), seeds);
        seed("segment_scan", file, slice(0, bytes.len().min(8 << 10)), seeds);
        let footer = bytes.windows(8).rposition(|window| window == b"TRCEND01");
        let trailer = bytes.windows(8).rposition(|window| window == b"TRCTRL01");
        if let (Some(trailer), Some(footer)) = (trailer, footer) {
            seed("segment_footer", file, slice(footer, 64), seeds);
            let len = slice(footer + 24, 4).first_chunk::<4>();
            let len = len.map_or(0, |len| u32::from_le_bytes(*len) as usize);
            seed("trailer", file, slice(trailer, len), seeds);
        }
    } else if file.contains(".arc") {
        cut_archive(file, bytes, seeds);
    }
}

fn cut_archive(file: &str, bytes: &[u8], seeds: &mut Vec<Seed>) {
    let Ok(header) = ArchiveHeader::decode(bytes) else { return };
    let Some(at) = bytes.len().checked_sub(ARCHIVE_FOOTER_LEN) else { return };
    let tail = bytes.get(at..).unwrap_or_default();
    let Ok(footer) = ArchiveFooter::decode(tail, &header, at as u64) else { return };
    seed("archive_header", file, bytes.get(..64).unwrap_or_default(), seeds);
    seed("archive_footer", file, tail, seeds);
    let region = |region: &Region| {
        let start = usize::try_from(region.offset).unwrap_or(0);
        let len = usize::try_from(region.len).unwrap_or(0);
        bytes.get(start..start + len).unwrap_or_default()
    };
    seed("dictionary", file, region(&footer.dictionary), seeds);
    seed("filter", file, region(&footer.filter), seeds);
    seed("block_index", file, region(&footer.index), seeds);
    seed("tables", file, region(&footer.tables), seeds);
    let end = usize::try_from(footer.data_end).unwrap_or(0).min(64 + 4096);
    seed("block", file, bytes.get(64..end).unwrap_or_default(), seeds);
}

/// A store of a few records in every tier, closed or as a killed process left it.
fn store(close: bool) -> Result<Files> {
    let disk = SimVfs::new(1);
    let time = Arc::new(ManualTime::new(1_700_000_000_000));
    let options = Options::new().memory_budget(4 << 20).warm_budget(4 << 20);
    let options = options.segment_size(1 << 20).without_workers();
    let db = options.file_system(Arc::new(disk.clone())).time(time).open("/store")?;
    let notes = db.keyspace("notes")?;
    for i in 0..24_u32 {
        let value = format!("{{\"number\": {i}, \"text\": \"the note of that number\"}}");
        notes.put(format!("note {i:03}"), value)?;
    }
    notes.put_with("brief", "gone in an hour", PutOptions::new().ttl(Duration::from_hours(1)))?;
    db.archive_all()?;
    for i in 0..8_u32 {
        notes.put(format!("note {i:03}"), "written anew")?;
    }
    notes.delete("note 009")?;
    db.compact()?;
    db.keyspace("other")?.put("a", "1")?;
    db.keyspace("other")?.clear()?;
    let mut batch = db.batch();
    batch.put(&notes, "one", "of two");
    batch.put(&notes, "two", "of two");
    batch.commit()?;
    drop(notes);
    if close {
        db.close()?;
    }
    let dir = disk.open_dir(Path::new("/store"));
    let names = dir.and_then(|dir| dir.list()).unwrap_or_default();
    let read = |name: &str| disk.read(format!("/store/{name}")).unwrap_or_default();
    let mut files: Files = names
        .into_iter()
        .map(|entry| (read(&entry.name), entry.name))
        .map(|(b, n)| (n, b))
        .collect();
    files.sort();
    Ok(files)
}
