//! Operations with crashes between them, on the simulated disk.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| terrace_tests::fuzzed::crashes(data));
