//! The command line of Terrace.

#![forbid(unsafe_code)]
