//! Looks through a structure in thrift's compact protocol before the parquet library reads it.
//!
//! Footers and page headers announce sizes; the library takes memory by them. Here the structure is
//! walked without taking any: its bytes must suffice for what it announces, and lists and nesting stay
//! within bounds. The numbers on the way are shown to the caller, who bounds those that it knows.

/// Structures within structures: parquet's own have six levels.
const MAX_DEPTH: usize = 16;

/// Elements of all lists together: a footer with 20 000 row groups of three columns.
const MAX_ELEMENTS: u64 = 1 << 20;

/// What is wrong with a structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ThriftError {
    #[error("the structure ends too early")]
    Truncated,
    #[error("the structure is nested too deeply")]
    Depth,
    #[error("the structure's lists have too many elements")]
    Elements,
    #[error("type {0} is unknown")]
    Type(u8),
    #[error("a number is too long")]
    Number,
}

struct Walker<'a, 'v> {
    bytes: &'a [u8],
    at: usize,
    elements: u64,
    path: Vec<i16>,
    visit: &'v mut dyn FnMut(&[i16], i64),
}

/// Walks the structure that `bytes` begin with and shows every whole number in it with the field ids
/// that lead to it. Returns its length in bytes.
///
/// # Errors
/// It does not end within `bytes`, or is beyond the bounds.
pub(super) fn walk(bytes: &[u8], visit: &mut dyn FnMut(&[i16], i64)) -> Result<usize, ThriftError> {
    let mut walker = Walker { bytes, at: 0, elements: 0, path: Vec::new(), visit };
    walker.structure()?;
    Ok(walker.at)
}

impl Walker<'_, '_> {
    fn byte(&mut self) -> Result<u8, ThriftError> {
        let byte = *self.bytes.get(self.at).ok_or(ThriftError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    fn skip(&mut self, count: u64) -> Result<(), ThriftError> {
        let left = (self.bytes.len() - self.at) as u64;
        if count > left {
            return Err(ThriftError::Truncated);
        }
        self.at += count as usize;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, ThriftError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ThriftError::Number)
    }

    fn zigzag(&mut self) -> Result<i64, ThriftError> {
        let raw = self.varint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    fn structure(&mut self) -> Result<(), ThriftError> {
        if self.path.len() >= MAX_DEPTH {
            return Err(ThriftError::Depth);
        }
        let mut id = 0i16;
        loop {
            let head = self.byte()?;
            let kind = head & 0x0f;
            if kind == 0 {
                return Ok(());
            }
            id = match head >> 4 {
                0 => self.zigzag()? as i16,
                delta => id.wrapping_add(i16::from(delta)),
            };
            self.path.push(id);
            // A field's truth value is its type.
            if kind > 2 {
                self.value(kind)?;
            }
            self.path.pop();
        }
    }

    fn value(&mut self, kind: u8) -> Result<(), ThriftError> {
        match kind {
            1..=3 => self.skip(1),
            4..=6 => {
                let number = self.zigzag()?;
                (self.visit)(&self.path, number);
                Ok(())
            }
            7 => self.skip(8),
            8 => {
                let length = self.varint()?;
                self.skip(length)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                self.list(count, &[head & 0x0f])
            }
            11 => {
                let count = self.varint()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                self.list(count, &[kinds >> 4, kinds & 0x0f])
            }
            12 => self.structure(),
            13 => self.skip(16),
            other => Err(ThriftError::Type(other)),
        }
    }

    fn list(&mut self, count: u64, kinds: &[u8]) -> Result<(), ThriftError> {
        // Every element has a byte at least: a longer list cannot be whole.
        if count > (self.bytes.len() - self.at) as u64 {
            return Err(ThriftError::Truncated);
        }
        self.elements += count;
        if self.elements > MAX_ELEMENTS {
            return Err(ThriftError::Elements);
        }
        if self.path.len() >= MAX_DEPTH {
            return Err(ThriftError::Depth);
        }
        self.path.push(0);
        for _ in 0..count {
            for kind in kinds {
                self.value(*kind)?;
            }
        }
        self.path.pop();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    /// Field ids and number.
    type Seen = (Vec<i16>, i64);

    fn seen(bytes: &[u8]) -> Result<(usize, Vec<Seen>), ThriftError> {
        let mut seen = Vec::new();
        let length = walk(bytes, &mut |path, value| seen.push((path.to_vec(), value)))?;
        Ok((length, seen))
    }

    #[test]
    fn a_structure_by_hand() {
        // 1: i32 -3; 3: struct { 1: i64 300 }; 4: list<i32> [1, 2]; 5: true; 6: binary "ab"; stop.
        let bytes = [0x15, 5, 0x2c, 0x16, 0xd8, 4, 0, 0x19, 0x25, 2, 4, 0x11, 0x18, 2, 97, 98, 0, 99];
        let (length, seen) = seen(&bytes).unwrap();
        assert_eq!(length, 17);
        assert_eq!(seen, [(vec![1], -3), (vec![3, 1], 300), (vec![4, 0], 1), (vec![4, 0], 2)]);
    }

    #[test]
    fn what_is_announced_must_be_there() {
        // A list of 2^32 structures, a text of 2^40 bytes, a number without an end.
        assert_eq!(seen(&[0x19, 0xfc, 0x80, 0x80, 0x80, 0x80, 0x10, 0]), Err(ThriftError::Truncated));
        assert_eq!(seen(&[0x18, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 0]), Err(ThriftError::Truncated));
        assert_eq!(seen(&[[0x16].as_slice(), &[0xff; 20]].concat()), Err(ThriftError::Number));
        assert_eq!(seen(&[0x1c; 100]), Err(ThriftError::Depth));
        assert_eq!(seen(&[0x1e, 0]), Err(ThriftError::Type(14)));
    }

    proptest! {
        #[test]
        fn noise_ends_in_an_error_or_within_its_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((length, _)) = seen(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
