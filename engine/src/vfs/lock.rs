//! The content of the lock file: who holds the store, and since when.
//! Knows two lines of text; knows nothing of how the lock is taken.

/// What the holder of a store writes into its lock file, for whoever is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LockContent {
    /// The process that holds the lock.
    pub pid: u32,
    /// Since when, in wall-clock milliseconds since 1970.
    pub since_ms: u64,
}

/// Longest lock file that is read: two names, two numbers, two line ends, with room to spare.
pub(crate) const LOCK_CONTENT_LEN_MAX: usize = 128;

impl LockContent {
    /// `pid 17` and `since_ms 1700000000000`, a line each.
    pub(crate) fn encode(self) -> Vec<u8> {
        format!("pid {}\nsince_ms {}\n", self.pid, self.since_ms).into_bytes()
    }

    /// Reads both lines, or answers `None`: the file was being written, or is not ours.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > LOCK_CONTENT_LEN_MAX {
            return None;
        }
        let mut lines = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.split('\n');
        let pid = lines.next()?.strip_prefix("pid ")?.parse().ok()?;
        let since_ms = lines.next()?.strip_prefix("since_ms ")?.parse().ok()?;
        lines.next().is_none().then_some(Self { pid, since_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_can_be_read_back() {
        let content = LockContent { pid: u32::MAX, since_ms: u64::MAX };
        assert_eq!(LockContent::decode(&content.encode()), Some(content));
        assert!(content.encode().len() <= LOCK_CONTENT_LEN_MAX);
    }

    #[test]
    fn half_written_and_foreign_lock_files_name_nobody() {
        let whole = LockContent { pid: 17, since_ms: 42 }.encode();
        for len in 0..whole.len() {
            let (half, _) = whole.split_at(len);
            assert_eq!(LockContent::decode(half), None, "{len} bytes");
        }
        for foreign in
            [&b"pid -1\nsince_ms 2\n"[..], b"pid 1\nsince_ms 2\n\n", b"\xff\n", &[b' '; 200]]
        {
            assert_eq!(LockContent::decode(foreign), None);
        }
    }
}
