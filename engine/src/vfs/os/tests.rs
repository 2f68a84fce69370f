//! The kernel as the store sees it: modes, links, locks, maps.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn dir() -> (tempfile::TempDir, Arc<dyn Dir>) {
    let temporary = tempfile::tempdir().unwrap();
    let dir = OsVfs.create_dir(&temporary.path().join("a/b")).unwrap();
    (temporary, dir)
}

fn mode_of(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn files_are_0600_and_directories_0700() {
    let (_temporary, dir) = dir();
    dir.create("x").unwrap();
    assert_eq!(mode_of(&dir.path()), 0o700);
    assert_eq!(mode_of(dir.path().parent().unwrap()), 0o700);
    assert_eq!(mode_of(&dir.path().join("x")), 0o600);
    assert_eq!(dir.create("x").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn links_fifos_and_directories_in_place_of_a_file_are_refused() {
    let (_temporary, dir) = dir();
    dir.create("target").unwrap();
    symlink("target", dir.path().join("link")).unwrap();
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    sys::mknodat(sys::CWD, dir.path().join("fifo"), FileType::Fifo, FILE_MODE, 0).unwrap();
    for name in ["link", "folder", "fifo", "..", "", "a/b", "nul\0"] {
        assert_eq!(dir.open(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
        assert!(dir.lock(name, b"").is_err(), "{name}");
    }
    let mut kinds: Vec<_> = dir.list().unwrap().into_iter().map(|e| (e.name, e.kind)).collect();
    kinds.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("fifo", EntryKind::Other),
        ("folder", EntryKind::Dir),
        ("link", EntryKind::Other),
        ("target", EntryKind::File),
    ];
    assert_eq!(kinds, expected.map(|(name, kind)| (name.to_owned(), kind)));
}

#[test]
fn a_link_to_the_store_directory_is_accepted_and_a_file_in_its_place_is_not() {
    let (temporary, dir) = dir();
    let link = temporary.path().join("link");
    symlink(dir.path(), &link).unwrap();
    OsVfs.create_dir(&link).unwrap().create("x").unwrap();
    assert!(dir.open("x").is_ok());
    let file = dir.path().join("x");
    let refused = OsVfs.create_dir(&file).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::NotADirectory);
    assert!(OsVfs.dir_exists(&link) && !OsVfs.dir_exists(&file));
}

#[test]
fn a_store_is_locked_once_and_the_refused_can_read_by_whom() {
    let (_temporary, dir) = dir();
    let held = dir.lock("LOCK", b"long content").unwrap();
    let refused = dir.lock("LOCK", b"other").unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    let mut content = [0; 12];
    dir.open("LOCK").unwrap().read_exact_at(&mut content, 0).unwrap();
    assert_eq!(&content, b"long content");
    drop(held);
    drop(dir.lock("LOCK", b"short").unwrap());
    assert_eq!(dir.open("LOCK").unwrap().len().unwrap(), 5);
}

#[test]
fn a_lock_held_elsewhere_refuses_and_stays_held_after_the_refusal() {
    let (_temporary, dir) = dir();
    drop(dir.lock("LOCK", b"").unwrap());
    let other = StdFile::open(dir.path().join("LOCK")).unwrap();
    other.try_lock().unwrap();
    for _ in 0..2 {
        let refused = dir.lock("LOCK", b"").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    }
    drop(other);
    assert!(dir.lock("LOCK", b"").is_ok());
}

#[test]
fn stores_and_writes_meet_in_one_file() {
    let (_temporary, dir) = dir();
    let file = dir.create("x").unwrap();
    file.write_all_at(b"head", 0).unwrap();
    let map = file.map(1 << 20, 4).unwrap();
    file.allocate(4, 1 << 16).unwrap();
    assert_eq!(file.len().unwrap(), 1 << 16);
    assert!(file.allocated_len().unwrap() >= 1 << 16);
    let mut writer = map.writer().unwrap();
    writer.set_writable(1 << 16);
    writer.populate(0, 1 << 16).unwrap();
    writer.store(4, b"tail");
    file.write_all_at(b"!", 8).unwrap();
    writer.publish(9);
    file.sync_range(&map, 4, 9).unwrap();
    assert_eq!(map.slice(0..9).unwrap(), b"headtail!");
    file.punch_to_end(9).unwrap();
    assert_eq!(file.len().unwrap(), 1 << 16);
    assert!(file.allocated_len().unwrap() < 1 << 16);
    dir.unlink("x").unwrap();
    drop(file);
    assert_eq!(map.slice(0..9).unwrap(), b"headtail!");
    map.advise_random();
    map.prefetch(0..u64::MAX);
}

#[test]
fn reading_and_mapping_behind_the_end_are_errors() {
    let (_temporary, dir) = dir();
    let file = dir.create("x").unwrap();
    file.write_all_at(b"four", 0).unwrap();
    let short = file.read_exact_at(&mut [0; 5], 0).unwrap_err();
    assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(file.map(64, 5).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert_eq!(file.map(u64::MAX, 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    file.sync().unwrap();
    dir.sync().unwrap();
}

#[test]
fn random_bytes_differ() {
    assert_ne!(random_bytes::<16>().unwrap(), random_bytes::<16>().unwrap());
}
