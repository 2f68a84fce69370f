//! Any bytes as a segment that is scanned: see `terrace::internals`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use terrace::internals::DECODERS;

fuzz_target!(|data: &[u8]| {
    let body = DECODERS.iter().find(|(name, _)| *name == "segment_scan");
    let (_, body) = body.expect("the decoder of this target");
    body(data);
});
