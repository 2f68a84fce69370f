//! A whole directory in one run of bytes, and opening it: strictly, degraded, for reading, and by
//! salvage. Knows names and lengths.

use std::path::Path;
use std::sync::Arc;

use crate::db::Db;
use crate::internals::mend;
use crate::options::{OpenPolicy, Options};
use crate::repair::salvage_with;
use crate::vfs::sim::SimVfs;
use crate::vfs::{Dir, Vfs};

/// Largest directory that is tried.
const IMAGE_LEN_MAX: usize = 4 << 20;
/// Longest file, zeros at its end included.
const FILE_LEN_MAX: u32 = 2 << 20;
const HOME: &str = "/store";

/// Packs files: for each the length of its name (1 byte), the name, its length (4), the length
/// without zeros at the end (4), and so many bytes.
pub fn pack<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in files {
        let kept = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        out.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        out.extend_from_slice(name.as_bytes());
        for len in [bytes.len(), kept] {
            out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        }
        out.extend_from_slice(bytes.get(..kept).unwrap_or_default());
    }
    out
}

fn unpack(mut data: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut all = 0;
    while let Some((&name_len, rest)) = data.split_first() {
        let Some((name, rest)) = rest.split_at_checked(usize::from(name_len)) else { break };
        let Some((len, rest)) = rest.split_first_chunk::<4>() else { break };
        let Some((kept, rest)) = rest.split_first_chunk::<4>() else { break };
        let len = u32::from_le_bytes(*len).min(FILE_LEN_MAX) as usize;
        let kept = (u32::from_le_bytes(*kept) as usize).min(rest.len()).min(len);
        let Some((bytes, rest)) = rest.split_at_checked(kept) else { break };
        all += len;
        if all > IMAGE_LEN_MAX {
            break;
        }
        let mut bytes = bytes.to_vec();
        bytes.resize(len, 0);
        files.push((String::from_utf8_lossy(name).into_owned(), bytes));
        data = rest;
    }
    files
}

/// Opens the packed directory in every way. With an odd first byte checksums are set right before.
pub fn open_image(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let disk = SimVfs::new(1);
    let Ok(dir) = disk.create_dir(Path::new(HOME)) else { return };
    for (name, mut bytes) in unpack(rest) {
        if first % 2 == 1 {
            set_right(&name, &mut bytes);
        }
        write(&*dir, &name, &bytes);
    }
    let options = || {
        let options = Options::new().memory_budget(4 << 20).warm_budget(4 << 20);
        options.without_workers().file_system(Arc::new(disk.clone_image()))
    };
    let degraded = || options().open_policy(OpenPolicy::Degraded);
    read_all(options().open_read_only(HOME).ok());
    read_all(options().open(HOME).ok());
    read_all(degraded().open(HOME).ok());
    let salvaged = salvage_with(Path::new(HOME), Path::new("/saved"), options(), |_| ());
    assert!(!matches!(salvaged, Err(crate::error::Error::Corrupt(_))), "{salvaged:?}");
}

fn write(dir: &dyn Dir, name: &str, bytes: &[u8]) {
    if let Ok(file) = dir.create(name) {
        let written = file.write_all_at(bytes, 0).and_then(|()| file.sync());
        assert!(written.is_ok(), "{written:?}");
    }
}

fn set_right(name: &str, bytes: &mut [u8]) {
    let number = name.split('.').next().and_then(|digits| digits.parse().ok());
    match name.rsplit('.').next() {
        Some("seg") => mend::segment(bytes),
        Some("arc") => mend::archive(bytes),
        Some("bit") => mend::dead_bits(bytes, number.unwrap_or(0)),
        Some("man0" | "man1") => mend::manifest(bytes),
        _ => {}
    }
}

/// Asks everything that can be asked of a store.
fn read_all(db: Option<Db>) {
    let Some(db) = db else { return };
    for name in db.keyspaces().unwrap_or_default() {
        let Ok(ks) = db.keyspace(&name) else { continue };
        let found: Vec<_> = ks.iter().take(1000).filter_map(Result::ok).collect();
        for (key, _) in &found {
            drop(ks.get(key));
        }
        drop(ks.put("a key of the test", "a value"));
        drop(ks.delete("a key of the test"));
    }
    drop(db.verify(|_| ()));
    for _ in 0..20 {
        if !db.step().unwrap_or(false) {
            break;
        }
    }
    std::hint::black_box(db.ledger());
    drop(db.close());
}
