//! JSON Lines: one record a line, base64 where bytes are not UTF-8.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// A record as a line tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub keyspace: Option<String>,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    pub expires_at_ms: Option<u64>,
}

fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.into(), text.into()),
        Err(_) => object.insert(format!("{name}_base64"), STANDARD.encode(bytes).into()),
    };
}

/// One line, without its end.
pub(crate) fn encode(
    keyspace: Option<&str>,
    key: &[u8],
    value: Option<&[u8]>,
    expires_at_ms: Option<u64>,
) -> String {
    let mut object = Map::new();
    if let Some(keyspace) = keyspace {
        object.insert("keyspace".into(), keyspace.into());
    }
    put_bytes(&mut object, "key", key);
    if let Some(value) = value {
        put_bytes(&mut object, "value", value);
    }
    if let Some(ms) = expires_at_ms {
        object.insert("expires_at_ms".into(), ms.into());
    }
    Value::Object(object).to_string()
}

fn take_bytes(object: &mut Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    let encoded = format!("{name}_base64");
    match (object.remove(name), object.remove(&encoded)) {
        (Some(Value::String(text)), None) => Ok(text.into_bytes()),
        (None, Some(Value::String(text))) => {
            STANDARD.decode(text).map_err(|error| format!("{encoded}: {error}"))
        }
        (None, None) => Err(format!("neither {name} nor {encoded} is there")),
        _ => Err(format!("{name} must be one string, as {name} or as {encoded}")),
    }
}

/// Reads one line; fields that are not known are refused, so that nothing is lost in silence.
pub(crate) fn decode(line: &str) -> Result<Line, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let Value::Object(mut object) = value else { return Err("not an object".into()) };
    let key = take_bytes(&mut object, "key")?;
    let value = take_bytes(&mut object, "value")?;
    let keyspace = match object.remove("keyspace") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name),
        Some(other) => return Err(format!("keyspace must be a string, not {other}")),
    };
    let expires_at_ms = match object.remove("expires_at_ms") {
        None | Some(Value::Null) => None,
        Some(ms) => Some(ms.as_u64().ok_or("expires_at_ms must be a whole number")?),
    };
    match object.keys().next() {
        Some(unknown) => Err(format!("unknown field {unknown:?}")),
        None => Ok(Line { keyspace, key, value, expires_at_ms }),
    }
}

/// What a fuzzer calls: any bytes are refused, or come back from what they are encoded to.
#[cfg(any(test, fuzzing))]
pub(crate) fn any_bytes(data: &[u8]) {
    for line in String::from_utf8_lossy(data).lines() {
        let Ok(read) = decode(line) else { continue };
        let keyspace = read.keyspace.as_deref();
        let again = encode(keyspace, &read.key, Some(&read.value), read.expires_at_ms);
        assert_eq!(decode(&again), Ok(read));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_of_the_fuzzer_passes() {
        let seeds =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds/json_lines");
        let mut count = 0;
        for entry in std::fs::read_dir(seeds).unwrap() {
            any_bytes(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count >= 3);
    }

    #[test]
    fn any_bytes_come_back_from_a_line() {
        for (key, value) in [
            (&b"a"[..], &b"b"[..]),
            (b"", b""),
            (b"\xFF\0", b"\x80"),
            ("\u{D55C}".as_bytes(), b"\n\""),
        ] {
            let line = encode(Some("notes"), key, Some(value), Some(7));
            let expected = Line {
                keyspace: Some("notes".into()),
                key: key.to_vec(),
                value: value.to_vec(),
                expires_at_ms: Some(7),
            };
            assert_eq!(decode(&line), Ok(expected));
            assert!(!line.contains('\n'));
        }
    }

    #[test]
    fn what_is_missing_doubled_or_unknown_is_refused() {
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"key":"a"}"#,
            r#"{"key":1,"value":"b"}"#,
            r#"{"key":"a","key_base64":"YQ==","value":"b"}"#,
            r#"{"key":"a","value_base64":"***"}"#,
            r#"{"key":"a","value":"b","ttl":5}"#,
            r#"{"key":"a","value":"b","expires_at_ms":-1}"#,
        ] {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }
}
