//! Any bytes as an index image: see `terrace::internals`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use terrace::internals::DECODERS;

fuzz_target!(|data: &[u8]| {
    let body = DECODERS.iter().find(|(name, _)| *name == "index_image");
    let (_, body) = body.expect("the decoder of this target");
    body(data);
});
