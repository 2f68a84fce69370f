//! What the kernel says of this process.
#![expect(clippy::disallowed_methods, reason = "no file of a store is read")]

/// Anonymous memory in bytes; 0 where there is no `/proc`.
#[must_use]
pub fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) * 1024
}
