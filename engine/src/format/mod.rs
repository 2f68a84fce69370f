//! Every structure on disk: pure encoders and decoders over slices. `format-spec.md` is the truth;
//! each file here names its section. No I/O, no clock, no state.

pub(crate) mod archive;
pub(crate) mod block;
pub(crate) mod block_index;
pub(crate) mod checksum;
pub(crate) mod cursor;
pub(crate) mod deadbits;
pub(crate) mod deadline;
pub(crate) mod dictionary;
pub(crate) mod filter;
pub(crate) mod image;
pub(crate) mod manifest;
pub(crate) mod record;
pub(crate) mod segment;
pub(crate) mod trailer;

/// The numbers of all bits, for tests that flip one at a time. Miri takes a few of them: there the
/// paths count.
#[cfg(test)]
fn every_bit(bytes: &[u8]) -> impl Iterator<Item = usize> + use<> {
    (0..bytes.len() * 8).step_by(if cfg!(miri) { 101 } else { 1 })
}
