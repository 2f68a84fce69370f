//! What the suites of tests share.

#![forbid(unsafe_code)]
