//! bincode behind one door: legacy configuration, a limit, no bytes left over.
//! Used for manifest edits alone; never for records, blocks or anything that is read often.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};

use crate::limits::EDIT_LEN_MAX;

fn config() -> Configuration<LittleEndian, Fixint, Limit<EDIT_LEN_MAX>> {
    bincode::config::legacy().with_limit::<EDIT_LEN_MAX>()
}

/// Encodes; `None` when the value is larger than an edit may be.
pub(crate) fn encode(value: &impl bincode::Encode) -> Option<Vec<u8>> {
    bincode::encode_to_vec(value, config()).ok().filter(|bytes| bytes.len() <= EDIT_LEN_MAX)
}

/// Decodes all of `bytes`; allocates no more than the limit allows. The error says what was found.
pub(crate) fn decode<T: bincode::Decode<()>>(bytes: &[u8]) -> Result<T, String> {
    match bincode::decode_from_slice(bytes, config()) {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        Ok((_, read)) => Err(format!("{} bytes, {read} of them decoded", bytes.len())),
        Err(error) => Err(error.to_string()),
    }
}
