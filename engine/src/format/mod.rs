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
