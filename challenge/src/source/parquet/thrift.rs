//! Looks through a structure in thrift's compact protocol before the parquet library reads it.
//!
//! Footers and page headers announce sizes; the library takes memory by them, and a request for memory
//! that fails ends the process. Here the structure is walked without taking any: its bytes must suffice
//! for what it announces, lists and nesting stay within bounds, and every field that the library knows
//! must be of the kind that the library takes it for ([`super::layout`]): so that the walk sees what the
//! library will see. The numbers on the way are shown to the caller, who bounds those that it knows.

use super::layout::{Fields, Kind};

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
    #[error("field {field} is declared as type {declared}, which it is not")]
    Kind { field: i16, declared: u8 },
    #[error("field {0} is a list of truth values, whose length is read in two ways")]
    Truths(i16),
    #[error("a field's number is too large")]
    Field,
    #[error("a number is too long")]
    Number,
}

/// The protocol's types.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;
const UUID: u8 = 13;

impl Kind {
    /// Whether a declared type is this kind.
    const fn is(self, declared: u8) -> bool {
        match self {
            Self::Bool => matches!(declared, TRUE | FALSE),
            Self::I8 => declared == BYTE,
            Self::I16 => declared == I16,
            Self::I32 => declared == I32,
            Self::I64 => declared == I64,
            Self::Double => declared == DOUBLE,
            Self::Binary => declared == BINARY,
            Self::Struct(_) => declared == STRUCT,
            Self::List(..) => declared == LIST,
        }
    }
}

struct Walker<'a, 'v> {
    bytes: &'a [u8],
    at: usize,
    elements: u64,
    path: Vec<i16>,
    visit: &'v mut dyn FnMut(&[i16], i64),
}

/// Walks the structure of `fields` that `bytes` begin with and shows every whole number in it with the
/// field ids that lead to it; a list's elements have the id 0. Returns its length in bytes.
///
/// # Errors
/// It does not end within `bytes`, is beyond the bounds, or has a known field of another kind.
pub(super) fn walk(bytes: &[u8], fields: Fields, visit: &mut dyn FnMut(&[i16], i64)) -> Result<usize, ThriftError> {
    let mut walker = Walker { bytes, at: 0, elements: 0, path: Vec::new(), visit };
    walker.structure(fields)?;
    Ok(walker.at)
}

impl Walker<'_, '_> {
    fn byte(&mut self) -> Result<u8, ThriftError> {
        let byte = *self.bytes.get(self.at).ok_or(ThriftError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    fn skip(&mut self, count: u64) -> Result<(), ThriftError> {
        if count > self.left() {
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

    /// The id of the field that this one is in.
    fn field(&self) -> i16 {
        self.path.iter().rev().copied().find(|id| *id != 0).unwrap_or(0)
    }

    fn structure(&mut self, fields: Fields) -> Result<(), ThriftError> {
        if self.path.len() >= MAX_DEPTH {
            return Err(ThriftError::Depth);
        }
        let mut id = 0i16;
        loop {
            let head = self.byte()?;
            let declared = head & 0x0f;
            if declared == 0 {
                return Ok(());
            }
            id = match head >> 4 {
                0 => i16::try_from(self.zigzag()?).map_err(|_| ThriftError::Field)?,
                delta => id.checked_add(i16::from(delta)).ok_or(ThriftError::Field)?,
            };
            self.path.push(id);
            let known = fields.iter().find(|(field, _)| *field == id).map(|(_, kind)| *kind);
            if known.is_some_and(|kind| !kind.is(declared)) {
                return Err(ThriftError::Kind { field: id, declared });
            }
            // A field's truth value is its type.
            if declared != TRUE && declared != FALSE {
                self.value(declared, known)?;
            }
            self.path.pop();
        }
    }

    /// A value of a declared type, which is the known kind's where one is known.
    fn value(&mut self, declared: u8, known: Option<Kind>) -> Result<(), ThriftError> {
        match declared {
            BYTE => self.skip(1),
            I16 | I32 | I64 => {
                let number = self.zigzag()?;
                (self.visit)(&self.path, number);
                Ok(())
            }
            DOUBLE => self.skip(8),
            BINARY => {
                let length = self.varint()?;
                self.skip(length)
            }
            LIST | SET => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                self.list(count, head & 0x0f, known)
            }
            MAP => {
                let count = self.varint()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                self.elements(count, &[kinds >> 4, kinds & 0x0f], None)
            }
            STRUCT => self.structure(if let Some(Kind::Struct(fields)) = known { fields } else { &[] }),
            UUID => self.skip(16),
            other => Err(ThriftError::Type(other)),
        }
    }

    fn list(&mut self, count: u64, declared: u8, known: Option<Kind>) -> Result<(), ThriftError> {
        let Some(Kind::List(most, element)) = known else { return self.elements(count, &[declared], None) };
        if count > most {
            return Err(ThriftError::Elements);
        }
        // Some writers leave the type of an empty list's elements out.
        if count > 0 && !element.is(declared) {
            return Err(ThriftError::Kind { field: self.field(), declared });
        }
        self.elements(count, &[declared], Some(*element))
    }

    fn elements(&mut self, count: u64, declared: &[u8], known: Option<Kind>) -> Result<(), ThriftError> {
        // Every element has a byte at least: a longer list cannot be whole.
        if count > self.left() {
            return Err(ThriftError::Truncated);
        }
        // The library steps over a truth value in a list as over one in a structure: by no byte.
        if count > 0 && declared.iter().any(|d| matches!(*d, TRUE | FALSE)) {
            return Err(ThriftError::Truths(self.field()));
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
            for declared in declared {
                self.value(*declared, known)?;
            }
        }
        self.path.pop();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::super::layout::{FOOTER, PAGE};
    use super::*;
    use proptest::prelude::*;

    /// Field ids and number.
    type Seen = (Vec<i16>, i64);

    fn seen_in(bytes: &[u8], fields: Fields) -> Result<(usize, Vec<Seen>), ThriftError> {
        let mut seen = Vec::new();
        let length = walk(bytes, fields, &mut |path, value| seen.push((path.to_vec(), value)))?;
        Ok((length, seen))
    }

    fn seen(bytes: &[u8]) -> Result<(usize, Vec<Seen>), ThriftError> {
        seen_in(bytes, &[])
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
    fn a_known_field_of_another_kind_is_refused_at_every_depth() {
        const DICTIONARY_AS_DOUBLE: &[u8] =
            &[0x15, 4, 0x15, 0x14, 0x15, 0x14, 0x4c, 0x17, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 0, 0, 0, 0];
        // Skipped by eight bytes, field 7.1 looks harmless; the library reads 2147483647 values there.
        assert_eq!(seen_in(DICTIONARY_AS_DOUBLE, PAGE), Err(ThriftError::Kind { field: 1, declared: DOUBLE }));
        assert!(seen(DICTIONARY_AS_DOUBLE).is_ok(), "nothing else is wrong with it");

        // 1: version; 2: an empty schema; 3: rows; 4: row groups "as a double", a list of 2^31 - 1.
        let footer = [0x15, 2, 0x19, 0x0c, 0x16, 0, 0x17, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0, 0, 0];
        assert_eq!(seen_in(&footer, FOOTER), Err(ThriftError::Kind { field: 4, declared: DOUBLE }));
        assert!(seen(&footer).is_ok());

        // A set for a list; texts for structures as the elements of one.
        assert_eq!(seen_in(&[0x4a, 0x0c, 0], FOOTER), Err(ThriftError::Kind { field: 4, declared: SET }));
        assert_eq!(seen_in(&[0x49, 0x18, 0, 0], FOOTER), Err(ThriftError::Kind { field: 4, declared: BINARY }));
        // Two levels of structures in two lists: the number of a column's values.
        let nested = [0x49, 0x1c, 0x19, 0x1c, 0x3c, 0x55, 0, 0, 0, 0, 0];
        assert_eq!(seen_in(&nested, FOOTER), Err(ThriftError::Kind { field: 5, declared: I32 }));
        let nested = [0x49, 0x1c, 0x19, 0x1c, 0x3c, 0x56, 0, 0, 0, 0, 0];
        assert!(seen_in(&nested, FOOTER).is_ok());
    }

    #[test]
    fn what_the_library_counts_otherwise_is_refused() {
        // A list of three truth values under an unknown field: three bytes here, none there.
        assert_eq!(seen_in(&[0x09, 0x40, 0x31, 1, 1, 1, 0], FOOTER), Err(ThriftError::Truths(32)));
        // A map from truth values.
        assert_eq!(seen_in(&[0x0b, 0x40, 1, 0x15, 1, 2, 0], FOOTER), Err(ThriftError::Truths(32)));
        // Field numbers beyond 16 bits: 2^17, and 32767 + 1.
        assert_eq!(seen_in(&[0x05, 0x80, 0x80, 0x10, 0, 0], FOOTER), Err(ThriftError::Field));
        assert_eq!(seen_in(&[0x05, 0xfe, 0xff, 0x03, 0, 0x15, 0, 0], FOOTER), Err(ThriftError::Field));
    }

    #[test]
    fn a_schema_is_no_deeper_than_its_elements_are_many() {
        // The library goes down by recursion: a schema of so many elements is not read.
        let schema = |count: u64| {
            let mut bytes = vec![0x29, 0xfc];
            bytes.extend([(count & 0x7f) as u8 | 0x80, (count >> 7) as u8]);
            bytes.extend(std::iter::repeat_n(0, count as usize + 1));
            seen_in(&bytes, FOOTER)
        };
        assert!(schema(256).is_ok());
        assert_eq!(schema(257), Err(ThriftError::Elements));
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
            for fields in [&[] as Fields, FOOTER, PAGE] {
                if let Ok((length, _)) = seen_in(&bytes, fields) {
                    prop_assert!(length <= bytes.len());
                }
            }
        }
    }
}
