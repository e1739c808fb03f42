//! A parquet file as the library reads it: by position, in bounded pieces, with every page header
//! looked at first.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

use super::super::digests::Stamp;
use super::layout::PAGE;
use super::thrift::{self, ThriftError};
use crate::file;

/// Bytes of a page, packed and unpacked. Writers aim at 1 MiB and exceed it by an image at most.
pub(super) const MAX_PAGE: u64 = 64 << 20;

/// Values of a page, and of a dictionary.
const MAX_VALUES: i64 = 1 << 20;

/// Bytes of a page's header: some writers put the smallest and the largest value into it.
const MAX_HEADER: u64 = 64 << 10;

/// Bytes that nearly every header fits into.
const USUAL_HEADER: u64 = 1 << 10;

/// Encodings of values that are read, by parquet's numbers: plain, and two names of dictionaries. What
/// else there is has to be unpacked from a page's first value on, all of it held in memory.
const ENCODINGS: [i64; 3] = [0, 2, 8];

#[derive(Debug)]
struct Inner {
    file: File,
    /// What the file was when it was opened.
    stamp: Stamp,
    read: AtomicU64,
}

/// An open file; reading moves no cursor, so that threads do not disturb each other.
#[derive(Debug)]
pub(super) struct Positioned(Arc<Inner>);

/// The system could not read what is within the file: no fault of the file's contents.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unreadable(io::Error);

/// The fault of the disk that an error of the library's comes from, if it does.
pub(super) fn fault_of_disk(error: &ParquetError) -> Option<io::Error> {
    let ParquetError::External(inner) = error else { return None };
    let Unreadable(why) = inner.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()?;
    Some(why.raw_os_error().map_or_else(|| io::Error::new(why.kind(), why.to_string()), io::Error::from_raw_os_error))
}

impl Positioned {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (file, _) = file::open_regular(path, u64::MAX)?;
        let stamp = Stamp::of(&file)?;
        Ok(Self::of(file, stamp))
    }

    fn of(file: File, stamp: Stamp) -> Self {
        Self(Arc::new(Inner { file, stamp, read: AtomicU64::new(0) }))
    }

    pub(super) fn size(&self) -> u64 {
        self.0.stamp.size
    }

    /// The file itself, and what it was when it was opened.
    pub(super) fn file(&self) -> (&File, &Stamp) {
        (&self.0.file, &self.0.stamp)
    }

    /// Whether the file is what it was when it was opened.
    pub(super) fn unchanged(&self) -> io::Result<bool> {
        Ok(Stamp::of(&self.0.file)? == self.0.stamp)
    }

    /// The same, with another file behind it.
    #[cfg(test)]
    pub(super) fn behind(&self, file: File) -> Self {
        Self::of(file, self.0.stamp)
    }

    /// Bytes read so far.
    #[cfg(test)]
    pub(super) fn bytes_read(&self) -> u64 {
        self.0.read.load(Ordering::Relaxed)
    }

    /// `length` bytes from `start`; the caller has bounded the length.
    pub(super) fn piece(&self, start: u64, length: u64) -> io::Result<Vec<u8>> {
        self.0.piece(start, length)
    }
}

impl Inner {
    fn piece(&self, start: u64, length: u64) -> io::Result<Vec<u8>> {
        if start.checked_add(length).is_none_or(|end| end > self.stamp.size) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the file"));
        }
        let mut piece = vec![0; length as usize];
        self.file.read_exact_at(&mut piece, start).map_err(|e| io::Error::new(e.kind(), Unreadable(e)))?;
        self.read.fetch_add(length, Ordering::Relaxed);
        Ok(piece)
    }

    /// The bytes at `start`, which begin with a page's header that is within the bounds.
    fn header(&self, start: u64) -> io::Result<Vec<u8>> {
        let left = self.stamp.size.saturating_sub(start);
        let mut most = USUAL_HEADER.min(left);
        loop {
            let bytes = self.piece(start, most)?;
            match check_header(&bytes) {
                Ok(()) => return Ok(bytes),
                Err(HeaderError::Thrift(ThriftError::Truncated)) if most < MAX_HEADER.min(left) => {
                    most = MAX_HEADER.min(left);
                }
                Err(e) => return Err(io::Error::other(e)),
            }
        }
    }
}

/// A page's header. The library also opens one where it has the header already, and then leaves it
/// unread: so nothing is looked at before the first byte is wanted.
#[derive(Debug)]
pub(super) struct Header {
    file: Arc<Inner>,
    start: u64,
    bytes: Option<io::Cursor<Vec<u8>>>,
}

impl io::Read for Header {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if let Some(bytes) = &mut self.bytes {
            return bytes.read(to);
        }
        let bytes = self.file.header(self.start)?;
        self.bytes.insert(io::Cursor::new(bytes)).read(to)
    }
}

/// What a page's header says must be within the bounds: sizes (fields 2 and 3), values of a data page
/// (5.1, 8.1), of a dictionary (7.1), nulls and rows (8.2, 8.3); and encodings must be among those that
/// are read (5.2, 7.2, 8.4).
fn check_header(bytes: &[u8]) -> std::result::Result<(), HeaderError> {
    let mut fault = None;
    let walked = thrift::walk(bytes, PAGE, &mut |path, value| {
        let most = match path {
            [5 | 7, 2] | [8, 4] => {
                if !ENCODINGS.contains(&value) {
                    fault.get_or_insert(HeaderError::Encoding(value));
                }
                return;
            }
            [2 | 3] => MAX_PAGE as i64,
            [5 | 7 | 8, 1] | [8, 2 | 3] => MAX_VALUES,
            [8, 5 | 6] => MAX_PAGE as i64,
            _ => return,
        };
        if !(0..=most).contains(&value) {
            fault.get_or_insert(HeaderError::Bound { value, most });
        }
    });
    walked?;
    fault.map_or(Ok(()), Err)
}

#[derive(Debug, thiserror::Error)]
enum HeaderError {
    #[error("a page's header: {0}")]
    Thrift(#[from] ThriftError),
    #[error("a page's header says {value}, at most {most} is accepted")]
    Bound { value: i64, most: i64 },
    #[error("a page's values are of encoding {0}: only plain ones and dictionaries are read")]
    Encoding(i64),
}

impl Length for Positioned {
    fn len(&self) -> u64 {
        self.0.stamp.size
    }
}

impl ChunkReader for Positioned {
    type T = Header;

    /// The library asks for this where a page's header begins; the footer is read by us.
    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(Header { file: self.0.clone(), start, bytes: None })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        if length as u64 > MAX_PAGE {
            return Err(ParquetError::General(format!("a page of {length} bytes, at most {MAX_PAGE} are accepted")));
        }
        Ok(self.piece(start, length as u64)?.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_page_header_that_announces_too_much_is_refused() {
        // 1: type 0; 2: unpacked; 3: packed; 5: struct { 1: values; 2: plain }; stop.
        let header = |unpacked: &[u8], values: &[u8]| {
            [&[0x15, 0, 0x15], unpacked, &[0x15, 20, 0x2c, 0x15], values, &[0x15, 0, 0, 0]].concat()
        };
        assert!(check_header(&header(&[20], &[2])).is_ok());
        let long = check_header(&header(&[0xfe, 0xff, 0xff, 0xff, 0x0f], &[2])).unwrap_err();
        assert!(long.to_string().contains("2147483647"), "{long}");
        assert!(check_header(&header(&[20], &[0xfe, 0xff, 0xff, 0xff, 0x0f])).is_err());
        assert!(check_header(&header(&[1], &[2])).is_err(), "a negative size");
        assert!(matches!(check_header(&[0x15, 0]), Err(HeaderError::Thrift(ThriftError::Truncated))));
    }

    #[test]
    fn only_plain_values_and_dictionaries_are_read() {
        // Zigzag: 2·number. 5.2 of a data page, 7.2 of a dictionary, 8.4 of a data page of version 2.
        let data = |encoding: u8| [0x15, 0, 0x15, 20, 0x15, 20, 0x2c, 0x15, 2, 0x15, 2 * encoding, 0, 0];
        let dictionary = |encoding: u8| [0x15, 4, 0x15, 20, 0x15, 20, 0x4c, 0x15, 2, 0x15, 2 * encoding, 0, 0];
        let version_2 = |encoding: u8| {
            [0x15, 6, 0x15, 20, 0x15, 20, 0x5c, 0x15, 2, 0x15, 0, 0x15, 2, 0x15, 2 * encoding, 0x15, 0, 0x15, 0, 0, 0]
        };
        for encoding in [0, 2, 8] {
            assert!(check_header(&data(encoding)).is_ok());
            assert!(check_header(&dictionary(encoding)).is_ok());
            assert!(check_header(&version_2(encoding)).is_ok());
        }
        for encoding in [1, 3, 4, 5, 6, 7, 9] {
            for header in [&data(encoding)[..], &dictionary(encoding), &version_2(encoding)] {
                let refused = check_header(header).unwrap_err().to_string();
                assert!(refused.contains(&format!("encoding {encoding}")), "{refused}");
            }
        }
    }

    #[test]
    fn a_dictionary_that_hides_its_number_of_values_is_refused() {
        // Declared as a double, the number is stepped over here; the library would read 2147483647.
        let hidden = [0x15, 4, 0x15, 0x14, 0x15, 0x14, 0x4c, 0x17, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 0, 0, 0, 0];
        let refused = check_header(&hidden).unwrap_err();
        assert!(matches!(refused, HeaderError::Thrift(ThriftError::Kind { field: 1, .. })), "{refused}");
    }
}
