//! Any bytes as a directory of files: opened in every way, and saved.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| terrace::internals::open_image(data));
