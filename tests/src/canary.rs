//! What stands in for the planted bugs of the engine in its kernels: none is planted here, the
//! models plant their own.

#[derive(Debug, Clone, Copy)]
pub(crate) enum Canary {
    SkipDataSync,
    RetryFlush,
}

/// Never.
pub(crate) const fn planted(_: Canary) -> bool {
    false
}
