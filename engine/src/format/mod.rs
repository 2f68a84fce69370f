//! Every structure on disk: pure encoders and decoders over slices. `format-spec.md` is the truth;
//! each file here names its section. No I/O, no clock, no state.

pub(crate) mod cursor;
