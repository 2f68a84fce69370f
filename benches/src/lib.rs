//! What the benches share: keys, values and numbers that are the same in each run.

#![forbid(unsafe_code)]

pub mod histogram;
pub mod process;
#[cfg(feature = "peers")]
pub mod replay;
pub mod workload;
