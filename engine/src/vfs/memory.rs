//! How much memory the system has left for pages of files.
//! Knows what the kernel tells; knows nothing of who wants it.
#![expect(clippy::disallowed_methods, reason = "the kernel's figures are files")]

use std::fs::read_to_string;
use std::path::Path;

/// Bytes that pages of files may take before something of them must go: what the kernel calls
/// available, or what the limits of this process's memory cgroups (version 2) leave, if less.
/// `None` where the system does not tell.
pub(crate) fn available_for_pages() -> Option<u64> {
    let system = read_to_string("/proc/meminfo").ok();
    let system = system.and_then(|text| field(&text, "MemAvailable:")).map(|kib| kib << 10);
    let group = read_to_string("/proc/self/cgroup").ok();
    let group = group.as_deref().and_then(|text| text.lines().find_map(|l| l.strip_prefix("0::")));
    let root = Path::new("/sys/fs/cgroup");
    let path = root.join(group.unwrap_or("").trim_start_matches('/'));
    let groups = path.ancestors().take_while(|path| path.starts_with(root));
    groups.filter_map(left_in_group).chain(system).min()
}

/// What one group's limit leaves; `None` where it has none.
fn left_in_group(path: &Path) -> Option<u64> {
    let number = |name| read_to_string(path.join(name)).ok()?.trim().parse::<u64>().ok();
    let (limit, current) = (number("memory.max")?, number("memory.current")?);
    let pages = read_to_string(path.join("memory.stat")).ok();
    let pages = pages.and_then(|text| field(&text, "file")).unwrap_or(0);
    Some(limit.saturating_sub(current.saturating_sub(pages)))
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
}
