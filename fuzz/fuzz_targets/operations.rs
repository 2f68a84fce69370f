//! Operations against the model of a map.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| terrace_tests::fuzzed::operations(data));
