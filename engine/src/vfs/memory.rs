//! How much memory the system has left for pages of files.
//! Knows what the kernel tells; knows nothing of who wants it.
#![expect(clippy::disallowed_methods, reason = "the kernel's figures are files")]

use std::fs::read_to_string;
use std::path::Path;

/// Where the kernel shows the memory cgroups of version 2, and of version 1.
const GROUPS: &str = "/sys/fs/cgroup";
const GROUPS_V1: &str = "/sys/fs/cgroup/memory";

/// How a version of the memory cgroups names its figures: the limit, what is used of it, and what
/// of that pages of files take.
type Names = [&'static str; 3];

const NAMES: Names = ["memory.max", "memory.current", "file"];
const NAMES_V1: Names = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"];

/// Bytes that pages of files may take before something of them must go: what the kernel calls
/// available, or what the limits of this process's memory cgroups leave, if less. `None` where the
/// system does not tell.
pub(crate) fn available_for_pages() -> Option<u64> {
    let system = read_to_string("/proc/meminfo").ok();
    let system = system.and_then(|text| field(&text, "MemAvailable:")).map(|kib| kib << 10);
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = groups.lines().filter_map(place_of);
    groups.filter_map(|(root, path, names)| left_in_groups(root, path, names)).chain(system).min()
}

/// Root, path and names of a line of `/proc/self/cgroup`, if it is about memory.
fn place_of(line: &str) -> Option<(&'static str, &str, Names)> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    match controllers {
        "" => Some((GROUPS, path, NAMES)),
        list if list.split(',').any(|name| name == "memory") => Some((GROUPS_V1, path, NAMES_V1)),
        _ => None,
    }
}

/// What the tightest of a group and those above it leaves; `None` where none has a limit.
fn left_in_groups(root: &str, path: &str, names: Names) -> Option<u64> {
    let root = Path::new(root);
    let path = root.join(path.trim_start_matches('/'));
    let groups = path.ancestors().take_while(|path| path.starts_with(root));
    groups.filter_map(|path| left_in_group(path, names)).min()
}

/// What one group's limit leaves; `None` where it has none.
fn left_in_group(path: &Path, [limit, used, pages]: Names) -> Option<u64> {
    let number = |name| read_to_string(path.join(name)).ok()?.trim().parse::<u64>().ok();
    let (limit, used) = (number(limit)?, number(used)?);
    let known = read_to_string(path.join("memory.stat")).ok();
    let pages = known.and_then(|text| field(&text, pages)).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(pages)))
}

/// The number behind a name at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let words = text.lines().map(str::split_whitespace);
    let mut values = words.filter_map(|mut words| (words.next() == Some(name)).then_some(words));
    values.next()?.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_read() {
        let text = "MemTotal:  100 kB\nMemAvailable:    42 kB\n";
        assert_eq!(field(text, "MemAvailable:"), Some(42));
        assert_eq!((field(text, "Mem"), field("file x\n", "file")), (None, None));
        assert!(available_for_pages().is_none_or(|bytes| bytes > 0));
    }

    #[test]
    fn groups_of_both_versions_are_found() {
        assert_eq!(place_of("0::/a/b"), Some((GROUPS, "/a/b", NAMES)));
        assert_eq!(place_of("4:memory:/a"), Some((GROUPS_V1, "/a", NAMES_V1)));
        assert_eq!(place_of("4:cpu,memory:/a:b"), Some((GROUPS_V1, "/a:b", NAMES_V1)));
        assert_eq!((place_of("3:cpuset:/"), place_of("odd")), (None, None));
    }

    #[test]
    fn what_a_limit_leaves_for_pages_is_the_least_of_a_group_and_those_above() {
        let root = tempfile::tempdir().unwrap();
        let below = root.path().join("below");
        std::fs::create_dir(&below).unwrap();
        let write = |dir: &Path, name: &str, text: &str| std::fs::write(dir.join(name), text);
        for (dir, limit) in [(root.path(), "1000"), (&*below, "9000")] {
            write(dir, "memory.limit_in_bytes", limit).unwrap();
            write(dir, "memory.usage_in_bytes", "700").unwrap();
            write(dir, "memory.stat", "cache 5\ntotal_cache 500\n").unwrap();
        }
        let root = root.path().to_str().unwrap();
        assert_eq!(left_in_groups(root, "/below", NAMES_V1), Some(800));
        assert_eq!(left_in_groups(root, "/below", NAMES), None);
    }
}
