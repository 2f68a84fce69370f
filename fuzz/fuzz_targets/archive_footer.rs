//! Any bytes as archive footer: see `terrace::internals`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use terrace::internals::DECODERS;

fuzz_target!(|data: &[u8]| {
    let body = DECODERS.iter().find(|(name, _)| *name == "archive_footer");
    let (_, body) = body.expect("the decoder of this target");
    body(data);
});
