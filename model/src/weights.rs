//! Reading and writing safetensors files, strictly.
//!
//! A safetensors file is a length (u64 LE), a JSON header of that many bytes naming each tensor's
//! type, shape and byte range, and the bytes. Model files come from outside, so the reader here
//! accepts only what it can account for: a bounded header, exactly the expected tensors in F32 with
//! the expected shapes, byte ranges that tile the data without gap or overlap, and finite values.
//! All sums are checked; nothing reaches libtorch before everything has been verified.
//!
//! The writer orders tensors by name and pads the header to 8 bytes: equal weights give equal files.

use crate::error::WeightsError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Largest accepted file: the demo network has under 1 MB of weights; this leaves room for wider
/// ones and keeps a wrong path (a disk image, a pipe) from filling the memory.
pub const MAX_FILE_BYTES: u64 = 16 << 20;

/// Largest accepted header: a few dozen tensors take under 4 KiB.
const MAX_HEADER_BYTES: u64 = 256 << 10;

/// The key of free-form metadata in the header.
const METADATA: &str = "__metadata__";

/// Name and shape of one tensor of an architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the file.
    pub name: String,
    /// Shape, outermost dimension first.
    pub shape: Vec<u64>,
}

/// One tensor on the host: row-major 32-bit floats.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Shape, outermost dimension first.
    pub shape: Vec<u64>,
    /// As many values as the shape's product.
    pub values: Vec<f32>,
}

/// A tensor's entry in the header.
#[derive(Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) dtype: String,
    pub(crate) shape: Vec<u64>,
    /// Where its bytes begin and end, counted from the end of the header.
    pub(crate) data_offsets: (u64, u64),
}

pub(crate) fn malformed(what: impl Into<String>) -> WeightsError {
    WeightsError::Malformed(what.into())
}

/// Reads exactly the tensors of `specs`, in that order, from the bytes of a file.
///
/// # Errors
/// The first mismatch between the bytes and `specs`.
pub fn read(bytes: &[u8], specs: &[TensorSpec]) -> Result<Vec<HostTensor>, WeightsError> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(WeightsError::TooLarge { limit: MAX_FILE_BYTES });
    }
    let (header, data) = split(bytes)?;
    let entries = parse_header(header)?;
    check_ranges(&entries, data.len() as u64)?;
    if let Some((name, entry)) = entries.iter().find(|(name, _)| !specs.iter().any(|spec| spec.name == **name))
        && specs.iter().all(|spec| entries.contains_key(&spec.name))
    {
        return Err(WeightsError::Unknown { name: printable(name), found: entry.shape.clone() });
    }
    specs.iter().map(|spec| read_tensor(spec, &entries, data)).collect()
}

/// Separates the header's bytes from the data's.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), WeightsError> {
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| malformed("shorter than 8 bytes"))?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(malformed(format!("the header claims {length} bytes, at most {MAX_HEADER_BYTES} are accepted")));
    }
    rest.split_at_checked(length as usize)
        .ok_or_else(|| malformed(format!("cut off inside a header of {length} bytes")))
}

/// The tensors that a header names; metadata is left out.
pub(crate) fn parse_header(header: &[u8]) -> Result<BTreeMap<String, Entry>, WeightsError> {
    let mut fields: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(header).map_err(|error| malformed(format!("the header is not JSON: {error}")))?;
    fields.remove(METADATA);
    let mut entries = BTreeMap::new();
    for (name, value) in fields {
        let entry =
            serde_json::from_value(value).map_err(|error| malformed(format!("entry {}: {error}", printable(&name))))?;
        entries.insert(name, entry);
    }
    Ok(entries)
}

/// The byte ranges must tile `0..length`: no gap, no overlap, nothing left over.
pub(crate) fn check_ranges(entries: &BTreeMap<String, Entry>, length: u64) -> Result<(), WeightsError> {
    let mut ranges: Vec<(u64, u64)> = entries.values().map(|entry| entry.data_offsets).collect();
    ranges.sort_unstable();
    let mut at = 0;
    for (start, end) in ranges {
        if start != at || end < start {
            return Err(malformed(format!("byte range {start}..{end} where {at}.. was due")));
        }
        at = end;
    }
    if at == length { Ok(()) } else { Err(malformed(format!("{length} bytes of data, the header accounts for {at}"))) }
}

fn read_tensor(spec: &TensorSpec, entries: &BTreeMap<String, Entry>, data: &[u8]) -> Result<HostTensor, WeightsError> {
    let name = || spec.name.clone();
    let entry =
        entries.get(&spec.name).ok_or_else(|| WeightsError::Missing { name: name(), expected: spec.shape.clone() })?;
    if entry.dtype != "F32" {
        return Err(WeightsError::Type { name: name(), found: printable(&entry.dtype) });
    }
    if entry.shape != spec.shape {
        return Err(WeightsError::Shape {
            name: name(),
            expected: spec.shape.clone(),
            found: entry.shape.iter().copied().take(8).collect(),
        });
    }
    let (start, end) = entry.data_offsets;
    let wanted = spec.shape.iter().try_fold(4_u64, |bytes, side| bytes.checked_mul(*side));
    if wanted != Some(end - start) {
        return Err(malformed(format!("tensor {} has {} bytes", spec.name, end - start)));
    }
    let raw = data
        .get(start as usize..end as usize)
        .ok_or_else(|| malformed(format!("tensor {} lies outside the file", spec.name)))?;
    let values: Vec<f32> = raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    if values.iter().all(|value| value.is_finite()) {
        Ok(HostTensor { shape: spec.shape.clone(), values })
    } else {
        Err(WeightsError::NotFinite { name: name() })
    }
}

/// A foreign string, shortened and without control characters, for an error message.
pub(crate) fn printable(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_default).collect()
}

/// The bytes of a safetensors file with these tensors.
///
/// # Errors
/// Never for tensors whose values fill their shape; `Malformed` names the one that does not.
pub fn write(tensors: &BTreeMap<String, HostTensor>) -> Result<Vec<u8>, WeightsError> {
    let mut entries = BTreeMap::new();
    let mut data = Vec::new();
    for (name, tensor) in tensors {
        if tensor.shape.iter().product::<u64>() != tensor.values.len() as u64 {
            return Err(malformed(format!("tensor {name} does not fill its shape")));
        }
        let start = data.len() as u64;
        for value in &tensor.values {
            data.extend_from_slice(&value.to_le_bytes());
        }
        let data_offsets = (start, data.len() as u64);
        let shape = tensor.shape.clone();
        entries.insert(name, Entry { dtype: "F32".to_owned(), shape, data_offsets });
    }
    let mut header = serde_json::to_vec(&entries).map_err(|error| malformed(format!("header: {error}")))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(&data);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn specs() -> Vec<TensorSpec> {
        vec![TensorSpec { name: "b".into(), shape: vec![2, 3] }, TensorSpec { name: "a".into(), shape: vec![1] }]
    }

    fn file() -> Vec<u8> {
        let mut tensors = BTreeMap::new();
        let values = vec![1.0, -2.0, 3.5, 0.0, -0.0, 1e-9];
        tensors.insert("b".to_owned(), HostTensor { shape: vec![2, 3], values });
        tensors.insert("a".to_owned(), HostTensor { shape: vec![1], values: vec![7.0] });
        write(&tensors).unwrap()
    }

    fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    #[test]
    fn what_is_written_is_read_back_in_the_order_asked_for() {
        let tensors = read(&file(), &specs()).unwrap();
        assert_eq!(tensors[0].values, vec![1.0, -2.0, 3.5, 0.0, -0.0, 1e-9]);
        assert_eq!(tensors[1].values, vec![7.0]);
        assert_eq!(file(), file());
    }

    #[test]
    fn metadata_is_ignored() {
        let header = r#"{"__metadata__":{"x":"y"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        assert!(read(&with_header(header, &[0; 4]), &specs()[1..]).is_ok());
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = file();
        for length in 0..whole.len() {
            assert!(read(&whole[..length], &specs()).is_err(), "{length}");
        }
        let mut longer = whole;
        longer.push(0);
        assert!(matches!(read(&longer, &specs()), Err(WeightsError::Malformed(_))));
    }

    #[test]
    fn every_changed_header_byte_is_an_error_or_harmless() {
        let whole = file();
        for at in 0..whole.len() {
            for flip in [1_u8, 0x20, 0x80, 0xFF] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                if let Ok(tensors) = read(&bytes, &specs()) {
                    assert_eq!(tensors.len(), 2);
                    assert_eq!(tensors[0].values.len(), 6);
                }
            }
        }
    }

    #[test]
    fn ranges_that_overflow_overlap_or_leave_gaps_are_errors() {
        let one = |shape: &str, range: &str| {
            let header = format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{range}}}}}"#);
            read(&with_header(&header, &[0; 4]), &specs()[1..])
        };
        assert!(one("[1]", "[0,4]").is_ok());
        for (shape, range) in [
            ("[18446744073709551615]", "[0,18446744073709551612]"),
            ("[1]", "[0,18446744073709551615]"),
            ("[1]", "[4,0]"),
            ("[1]", "[1,4]"),
            ("[1]", "[0,8]"),
            ("[-1]", "[0,4]"),
            ("[1.5]", "[0,4]"),
            ("[1]", "[0]"),
            ("null", "[0,4]"),
        ] {
            assert!(matches!(one(shape, range), Err(WeightsError::Malformed(_))), "{shape} {range}");
        }
        let twice = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        assert!(matches!(read(&with_header(twice, &[0; 4]), &specs()), Err(WeightsError::Malformed(_))));
    }

    #[test]
    fn the_first_mismatch_is_named() {
        let wrong = vec![TensorSpec { name: "b".into(), shape: vec![3, 2] }, specs()[1].clone()];
        assert_eq!(
            read(&file(), &wrong),
            Err(WeightsError::Shape { name: "b".into(), expected: vec![3, 2], found: vec![2, 3] })
        );
        let missing = vec![TensorSpec { name: "c".into(), shape: vec![4] }];
        assert_eq!(read(&file(), &missing), Err(WeightsError::Missing { name: "c".into(), expected: vec![4] }));
        assert_eq!(read(&file(), &specs()[1..]), Err(WeightsError::Unknown { name: "b".into(), found: vec![2, 3] }));
        let half = r#"{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}}"#;
        assert_eq!(
            read(&with_header(half, &[0; 2]), &specs()[1..]),
            Err(WeightsError::Type { name: "a".into(), found: "F16".into() })
        );
        let header = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        assert_eq!(
            read(&with_header(header, &f32::NAN.to_le_bytes()), &specs()[1..]),
            Err(WeightsError::NotFinite { name: "a".into() })
        );
    }

    #[test]
    fn garbage_is_an_error() {
        for bytes in [&b"hello, I am not a model file"[..], &[0xFF; 64], &[0; 64], b"{}", b""] {
            assert!(matches!(read(bytes, &specs()), Err(WeightsError::Malformed(_))));
        }
        let deep = "[".repeat(100_000);
        assert!(read(&with_header(&deep, &[]), &specs()).is_err());
    }
}
