//! What stands in for planted bugs in the kernels that the models run: there are none.

/// The bugs that these kernels could hold.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Canary {
    SkipDataSync,
    RetryFlush,
}

/// Never.
pub(crate) const fn planted(_: Canary) -> bool {
    false
}
