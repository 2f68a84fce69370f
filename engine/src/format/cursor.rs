//! Reading and writing fixed little-endian fields: every field has a name, every read a check.
//! Knows widths; knows nothing of files, offsets in them, or what a field means.

/// A field that did not hold. The caller adds the file and the offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldError {
    /// Which field.
    pub field: &'static str,
    /// What stood there.
    pub found: String,
    /// What should have stood there.
    pub expected: String,
}

impl FieldError {
    pub(crate) fn new(
        field: &'static str,
        found: impl std::fmt::Display,
        expected: impl std::fmt::Display,
    ) -> Self {
        Self { field, found: found.to_string(), expected: expected.to_string() }
    }

    /// The same, as damage of a place in a file.
    pub(crate) fn at(self, doing: &'static str, file: &str, offset: u64) -> crate::error::Damage {
        crate::error::Damage::new(doing, file, offset, self.field, self.found, self.expected)
    }
}

/// The result of a pure decoder.
pub(crate) type Decoded<T> = Result<T, FieldError>;

/// A checked reader over bytes of a stranger.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn bytes(&mut self, field: &'static str, len: usize) -> Decoded<&'a [u8]> {
        let Some((head, tail)) = self.rest.split_at_checked(len) else {
            return Err(FieldError::new(
                field,
                format_args!("{} bytes left", self.rest.len()),
                format_args!("{len} bytes"),
            ));
        };
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Decoded<[u8; N]> {
        let bytes = self.bytes(field, N)?;
        bytes.try_into().map_err(|_| FieldError::new(field, bytes.len(), N))
    }

    pub(crate) fn array16(&mut self, field: &'static str) -> Decoded<[u8; 16]> {
        self.array(field)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Decoded<u8> {
        self.array(field).map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Decoded<u16> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Decoded<u32> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Decoded<u64> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A `u32` that must not exceed `max`: checked before anybody allocates.
    pub(crate) fn u32_at_most(&mut self, field: &'static str, max: u64) -> Decoded<u32> {
        let found = self.u32(field)?;
        if u64::from(found) > max {
            return Err(FieldError::new(field, found, format_args!("at most {max}")));
        }
        Ok(found)
    }

    /// A `u64` that must not exceed `max`.
    pub(crate) fn u64_at_most(&mut self, field: &'static str, max: u64) -> Decoded<u64> {
        let found = self.u64(field)?;
        if found > max {
            return Err(FieldError::new(field, found, format_args!("at most {max}")));
        }
        Ok(found)
    }

    /// LEB128: seven bits a byte, the lowest first, at most ten bytes, no redundant zero byte.
    #[inline]
    pub(crate) fn varint(&mut self, field: &'static str) -> Decoded<u64> {
        match self.rest {
            [byte @ 0..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            [low, high @ 1..0x80, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(low & 0x7F) | u64::from(*high) << 7)
            }
            _ => match self.short_varint() {
                Some(value) => Ok(value),
                None => self.long_varint(field),
            },
        }
    }

    /// One of at most eight bytes, where so many follow: without a step a byte.
    #[inline]
    fn short_varint(&mut self) -> Option<u64> {
        let word = u64::from_le_bytes(*self.rest.first_chunk::<8>()?);
        let last = (!word & 0x8080_8080_8080_8080).trailing_zeros().checked_sub(7)?;
        // A varint that ends in a zero byte has a byte too many, and none ends at bit 64.
        if last == 57 || (word >> last).trailing_zeros() >= 8 {
            return None;
        }
        self.rest = self.rest.get(last as usize / 8 + 1..)?;
        let bits = word << (56 - last) >> (56 - last) & 0x7F7F_7F7F_7F7F_7F7F;
        let bits = bits & 0x007F_007F_007F_007F | (bits & 0x7F00_7F00_7F00_7F00) >> 1;
        let bits = bits & 0x0000_3FFF_0000_3FFF | (bits & 0x3FFF_0000_3FFF_0000) >> 2;
        Some(bits & 0x0FFF_FFFF | (bits & 0x0FFF_FFFF_0000_0000) >> 4)
    }

    fn long_varint(&mut self, field: &'static str) -> Decoded<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(field)?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 || byte == 0 && shift > 0 {
                return Err(FieldError::new(field, "an overlong varint", "a shortest one"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(FieldError::new(field, "a varint of more than ten bytes", "a shorter one"))
    }

    /// A varint that fits 32 bits.
    #[inline]
    pub(crate) fn varint32(&mut self, field: &'static str) -> Decoded<u32> {
        let found = self.varint(field)?;
        u32::try_from(found).map_err(|_| FieldError::new(field, found, "at most 32 bits"))
    }

    /// Refuses bytes that nobody asked for.
    pub(crate) fn finish(self, field: &'static str) -> Decoded<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(FieldError::new(field, format_args!("{} bytes more", self.rest.len()), "the end"))
    }

    /// Expects exactly these bytes, for example a magic.
    pub(crate) fn expect(&mut self, field: &'static str, expected: &[u8]) -> Decoded<()> {
        let found = self.bytes(field, expected.len())?;
        if found != expected {
            return Err(FieldError::new(field, found.escape_ascii(), expected.escape_ascii()));
        }
        Ok(())
    }
}

/// Appends fields to a buffer; the mirror of [`Fields`].
pub(crate) trait Put {
    fn put_bytes(&mut self, bytes: &[u8]);
    fn put_u8(&mut self, value: u8) {
        self.put_bytes(&[value]);
    }
    fn put_u16(&mut self, value: u16) {
        self.put_bytes(&value.to_le_bytes());
    }
    fn put_u32(&mut self, value: u32) {
        self.put_bytes(&value.to_le_bytes());
    }
    fn put_u64(&mut self, value: u64) {
        self.put_bytes(&value.to_le_bytes());
    }
    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put_u8(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.put_u8(value.to_le_bytes()[0]);
    }
}

impl Put for Vec<u8> {
    fn put_bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_comes_back_and_the_end_is_an_error_with_the_fields_name() {
        let mut bytes = Vec::new();
        bytes.put_u8(1);
        bytes.put_u16(2);
        bytes.put_u32(3);
        bytes.put_u64(4);
        let mut fields = Fields::new(&bytes);
        assert_eq!(fields.u8("a"), Ok(1));
        assert_eq!(fields.u16("b"), Ok(2));
        assert_eq!(fields.u32("c"), Ok(3));
        assert_eq!(fields.u64("d"), Ok(4));
        assert_eq!(fields.u8("end").unwrap_err().field, "end");
        assert_eq!(fields.finish("end"), Ok(()));
        let mut fields = Fields::new(&bytes);
        assert_eq!((fields.remaining(), fields.expect("a", &[1])), (15, Ok(())));
        assert_eq!(fields.expect("b", &[3, 0]).unwrap_err().field, "b");
        assert_eq!(fields.clone().finish("rest").unwrap_err().field, "rest");
    }

    #[test]
    fn a_bound_is_the_last_number_that_is_taken() {
        let (five, long) = (5_u32.to_le_bytes(), 5_u64.to_le_bytes());
        for (max, taken) in [(4, false), (5, true), (6, true)] {
            assert_eq!(Fields::new(&five).u32_at_most("n", max).is_ok(), taken, "{max}");
            assert_eq!(Fields::new(&long).u64_at_most("n", max).is_ok(), taken, "{max}");
        }
    }

    #[test]
    fn a_varint_means_the_same_whatever_follows_it() {
        for bits in 0..=64_u32 {
            for value in [1_u64.checked_shl(bits).unwrap_or(0), u64::MAX >> (bits % 64)] {
                let mut bytes = Vec::new();
                bytes.put_varint(value);
                let len = bytes.len();
                for byte in [0, 0x7F, 0x80, 0xFF] {
                    bytes.resize(len + 12, byte);
                    let mut fields = Fields::new(&bytes);
                    assert_eq!(fields.varint("v"), Ok(value));
                    assert_eq!(fields.rest.len(), 12, "{value} in front of {byte}");
                    bytes.truncate(len);
                }
                // The same with a byte too many.
                bytes[len - 1] |= 0x80;
                bytes.resize(len + 12, 0);
                assert!(Fields::new(&bytes).varint("v").is_err(), "{value}");
            }
        }
    }

    #[test]
    fn varints_come_back_and_overlong_ones_are_refused() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            bytes.put_varint(value);
            assert_eq!(Fields::new(&bytes).varint("v"), Ok(value));
        }
        assert!(Fields::new(&[0x80, 0]).varint("v").is_err());
        assert!(Fields::new(&[0xFF; 11]).varint("v").is_err());
        assert!(Fields::new(&[0x80]).varint("v").is_err());
        let ten = |last| [&[0x80_u8; 9][..], &[last]].concat();
        assert_eq!(Fields::new(&ten(1)).varint("v"), Ok(1 << 63));
        for last in [0, 2, 0x7F, 0x80, 0x81] {
            assert!(Fields::new(&ten(last)).varint("v").is_err(), "{last}");
        }
        let large = [0xFF, 0xFF, 0xFF, 0xFF, 0x0F];
        assert_eq!(Fields::new(&large).varint32("v"), Ok(u32::MAX));
        assert!(Fields::new(&[0x80, 0x80, 0x80, 0x80, 0x10]).varint32("v").is_err());
    }
}
