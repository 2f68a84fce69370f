//! Any text as a line of an import.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../cli/src/jsonl.rs"]
mod jsonl;

fuzz_target!(|data: &[u8]| jsonl::any_bytes(data));
