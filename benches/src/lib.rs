//! Benches of Terrace, and its peers behind features.

#![forbid(unsafe_code)]

#[cfg(feature = "peers")]
pub mod replay;
