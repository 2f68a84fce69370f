//! Typed values as bytes: JSON behind a schema version, and a hook that lifts old versions.
//! The one place where a value of a caller becomes bytes; knows no keys and no store.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | format: 1 is JSON |
//! | 2 | schema version, little-endian |
//! | rest | the value as JSON |

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// A JSON value.
pub type Json = serde_json::Value;

/// The deepest nesting that can be read back.
pub const DEPTH_MAX: u64 = 127;

const FORMAT_JSON: u8 = 1;
const HEADER_LEN: usize = 3;

type Migrate = dyn Fn(u16, Json) -> Result<Json> + Send + Sync;

/// Which version of a caller's types is written, and how older ones are read.
///
/// ```
/// use terrace_memory::codec::Schema;
/// use serde_json::json;
///
/// // Version 0 had a name; version 1 has first and last.
/// let schema = Schema::new(1).migrate(|_from, mut old| {
///     let name = old["name"].as_str().unwrap_or("").to_owned();
///     let (first, last) = name.split_once(' ').unwrap_or((&name, ""));
///     old = json!({ "first": first, "last": last });
///     Ok(old)
/// });
/// let stored = Schema::new(0).encode(&json!({ "name": "Ada Lovelace" }))?;
/// let read: serde_json::Value = schema.decode(&stored)?;
/// assert_eq!(read["last"], "Lovelace");
/// # Ok::<(), terrace_memory::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Schema {
    version: u16,
    migrate: Option<Arc<Migrate>>,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Schema {
    /// Values of this version; older ones cannot be read.
    pub fn new(version: u16) -> Self {
        Self { version, migrate: None }
    }

    /// Older values are handed to `lift` with their version; it returns what they are today. What
    /// is stored changes when it is written next.
    #[must_use]
    pub fn migrate(
        mut self,
        lift: impl Fn(u16, Json) -> Result<Json> + Send + Sync + 'static,
    ) -> Self {
        self.migrate = Some(Arc::new(lift));
        self
    }

    /// The value as bytes.
    ///
    /// JSON has no number that is not finite: NaN and infinities are written as null.
    /// Errors: [`Error::Codec`] for what JSON cannot hold, such as maps whose keys are no text;
    /// [`Error::Limit`] for nesting deeper than [`DEPTH_MAX`].
    pub fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Bytes> {
        let mut out = Vec::with_capacity(64);
        out.push(FORMAT_JSON);
        out.extend_from_slice(&self.version.to_le_bytes());
        serde_json::to_writer(&mut out, value).map_err(|error| Error::Codec(error.to_string()))?;
        let depth = depth(out.get(HEADER_LEN..).unwrap_or(&[]));
        if depth > DEPTH_MAX {
            return Err(Error::Limit { what: "nesting of a value", max: DEPTH_MAX, got: depth });
        }
        Ok(out.into())
    }

    /// The value that the bytes hold.
    ///
    /// Errors: [`Error::Codec`] when it is not of type `T`, or of a version that cannot be read;
    /// [`Error::Corrupt`] when the bytes are no value of this crate.
    pub fn decode<T: DeserializeOwned>(&self, stored: &[u8]) -> Result<T> {
        let [FORMAT_JSON, low, high, json @ ..] = stored else {
            let found = stored.first();
            return Err(Error::corrupt("value", format!("format {found:?}, expected 1")));
        };
        let version = u16::from_le_bytes([*low, *high]);
        let codec = |error: serde_json::Error| Error::Codec(error.to_string());
        if version == self.version {
            return serde_json::from_slice(json).map_err(codec);
        }
        let refused = || {
            let own = self.version;
            Error::Codec(format!("a value of schema version {version}, this program has {own}"))
        };
        let lift = self.migrate.as_ref().filter(|_| version < self.version).ok_or_else(refused)?;
        let old = serde_json::from_slice(json).map_err(codec)?;
        serde_json::from_value(lift(version, old)?).map_err(codec)
    }
}

/// How deeply arrays and objects of this JSON text are nested.
fn depth(json: &[u8]) -> u64 {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_u64, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    proptest! {
        #[test]
        fn any_stored_bytes_never_panic(bytes in proptest::collection::vec(0_u8.., 0..40)) {
            let _ = Schema::new(1).migrate(|_, old| Ok(old)).decode::<Json>(&bytes);
        }

        #[test]
        fn text_and_numbers_come_back_exactly(
            text in ".*",
            float in any::<f64>(),
            int in any::<i64>(),
        ) {
            let schema = Schema::default();
            let value = (text, int);
            let stored = schema.encode(&value).unwrap();
            prop_assert_eq!(schema.decode::<(String, i64)>(&stored).unwrap(), value);
            let stored = schema.encode(&float).unwrap();
            let read: Option<f64> = schema.decode(&stored).unwrap();
            prop_assert_eq!(read.map(f64::to_bits), float.is_finite().then(|| float.to_bits()));
        }
    }

    #[test]
    fn null_is_a_value_and_a_wrong_type_is_an_error() {
        let schema = Schema::default();
        let stored = schema.encode(&Json::Null).unwrap();
        assert_eq!(schema.decode::<Option<u8>>(&stored).unwrap(), None);
        assert!(matches!(schema.decode::<u8>(&stored), Err(Error::Codec(_))));
        let keys = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(matches!(schema.encode(&keys), Err(Error::Codec(_))));
    }

    #[test]
    fn what_is_nested_too_deeply_to_be_read_is_not_written() {
        let schema = Schema::default();
        let nested = |n: usize| (0..n).fold(json!("[[{"), |inner, _| json!([inner]));
        let stored = schema.encode(&nested(127)).unwrap();
        assert_eq!(schema.decode::<Json>(&stored).unwrap(), nested(127));
        assert!(matches!(schema.encode(&nested(128)), Err(Error::Limit { got: 128, .. })));
    }

    #[test]
    fn a_newer_value_is_refused_and_an_older_one_lifted() {
        let stored = Schema::new(2).encode(&1).unwrap();
        assert!(matches!(Schema::new(1).decode::<u8>(&stored), Err(Error::Codec(_))));
        assert!(matches!(Schema::new(3).decode::<u8>(&stored), Err(Error::Codec(_))));
        let lifting = Schema::new(3).migrate(|from, _| Ok(json!(from + 40)));
        assert_eq!(lifting.decode::<u8>(&stored).unwrap(), 42);
        let lone = b"\x01\x00\x00\"\\ud800\"";
        assert!(matches!(Schema::new(0).decode::<String>(lone), Err(Error::Codec(_))));
    }
}
