//! One parquet file: opened by its footer, read row by row.
//!
//! A row is found through the row group it lies in: pages before it are stepped over by their headers,
//! and only the page that holds it is read (with the chunk's dictionary, where there is one).
//!
//! A file is hostile until its fingerprint is the agreed one, and may be broken after that: the footer
//! is bounded and walked before the library reads it, pages are bounded by their headers, and the
//! library's own panics on nonsense become errors.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::{Compression, Type};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::SchemaDescriptor;

use super::features::Features;
use super::file::{Positioned, fault_of_disk};
use super::layout::{FOOTER, MAX_SCHEMA};
use super::thrift;

/// Bytes of a footer: 20 000 row groups of three columns.
const MAX_FOOTER: u64 = 16 << 20;

/// Rows of a row group; the hub's writer makes groups of 100 images.
const MAX_GROUP_ROWS: i64 = 1 << 20;

/// What a parquet file begins and ends with.
const MAGIC: &[u8; 4] = b"PAR1";

/// A column of labels, by how its numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Int32(usize),
    Int64(usize),
}

/// An open shard.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) path: PathBuf,
    pub(super) features: Features,
    pub(super) rows: u64,
    pub(super) file: Arc<Positioned>,
    /// Bytes of the footer, which what is held of it is proportional to.
    pub(super) footer: u64,
    metadata: ParquetMetaData,
    /// The first row of each row group.
    starts: Vec<u64>,
    image: usize,
    label: Option<Label>,
}

/// A row that could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum RowError {
    /// The row is at fault, in words for people.
    #[error("{0}")]
    Row(String),
    /// The disk is.
    #[error(transparent)]
    Disk(io::Error),
    /// The file is another than the one that was opened.
    #[error("changed")]
    Changed,
}

impl From<String> for RowError {
    fn from(why: String) -> Self {
        Self::Row(why)
    }
}

/// Runs what the library does; a panic of its is an error.
fn guarded<T>(what: &str, run: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T, RowError> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(e)) => Err(fault_of_disk(&e).map_or_else(|| RowError::Row(format!("{what}: {e}")), RowError::Disk)),
        Err(_) => Err(RowError::Row(format!("{what}: it contradicts itself"))),
    }
}

fn footer(file: &Positioned) -> Result<Vec<u8>, String> {
    let io = |e: io::Error| e.to_string();
    let size = file.size();
    if size < 12 {
        return Err(format!("{size} bytes are no parquet file"));
    }
    let (head, tail) = (file.piece(0, 4).map_err(io)?, file.piece(size - 8, 8).map_err(io)?);
    if head != MAGIC || tail[4..] != *MAGIC {
        return Err("not a parquet file, or an encrypted one".into());
    }
    let length = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    if length > MAX_FOOTER || length > size - 12 {
        return Err(format!("a footer of {length} bytes, at most {} are possible here", MAX_FOOTER.min(size - 12)));
    }
    let footer = file.piece(size - 8 - length, length).map_err(io)?;
    check_footer(&footer)?;
    Ok(footer)
}

/// A footer must be whole, and no element of its schema (2) may announce more children (2.5) than there
/// can be elements: the library takes memory by that number.
fn check_footer(footer: &[u8]) -> Result<(), String> {
    let mut children = None;
    let walked = thrift::walk(footer, FOOTER, &mut |path, value| {
        if matches!(path, [2, 0, 5]) && !(0..=MAX_SCHEMA as i64).contains(&value) {
            children.get_or_insert(value);
        }
    });
    walked.map_err(|e| format!("its footer: {e}"))?;
    children.map_or(Ok(()), |n| Err(format!("its footer: a column of {n} columns, at most {MAX_SCHEMA} are accepted")))
}

/// The leaf column of a path, which must not repeat within a row.
fn column(schema: &SchemaDescriptor, path: &[&str]) -> Result<Option<(usize, Type)>, String> {
    let found =
        schema.columns().iter().position(|c| c.path().parts().iter().map(String::as_str).eq(path.iter().copied()));
    let Some(at) = found else { return Ok(None) };
    let column = schema.column(at);
    if column.max_rep_level() > 0 {
        return Err(format!("column `{}` has several values a row", path.join(".")));
    }
    Ok(Some((at, column.physical_type())))
}

impl Shard {
    /// Opens a shard: reads its footer, and nothing else.
    ///
    /// # Errors
    /// What is wrong with the file, for people.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let file = Positioned::open(path).map_err(|e| e.to_string())?;
        let footer = footer(&file)?;
        let metadata = guarded("its footer", || ParquetMetaDataReader::decode_metadata(&footer));
        let metadata = metadata.map_err(|e| e.to_string())?;
        let about = metadata.file_metadata();
        let texts = about.key_value_metadata().map_or(&[][..], Vec::as_slice);
        let text = texts.iter().find(|kv| kv.key == "huggingface").and_then(|kv| kv.value.as_deref());
        let features = Features::read(text)?;
        let schema = about.schema_descr();
        let image = match column(schema, &[&features.image, "bytes"])? {
            Some((at, Type::BYTE_ARRAY)) => at,
            Some((_, other)) => return Err(format!("column `{}.bytes` holds {other}, no bytes", features.image)),
            None => return Err(format!("no column `{}.bytes`", features.image)),
        };
        let label = match column(schema, &[&features.label])? {
            Some((at, Type::INT32)) => Some(Label::Int32(at)),
            Some((at, Type::INT64)) => Some(Label::Int64(at)),
            // Labels without names are not used, whatever they are.
            Some(_) if features.names.is_empty() => None,
            Some((_, other)) => return Err(format!("column `{}` holds {other}, no whole numbers", features.label)),
            None => None,
        };
        let mut starts = Vec::with_capacity(metadata.num_row_groups());
        let mut rows = 0u64;
        for (at, group) in metadata.row_groups().iter().enumerate() {
            starts.push(rows);
            rows += check_group(group, schema, file.size(), [Some(image), label.map(Label::column)])
                .map_err(|why| format!("row group {at}: {why}"))?;
        }
        if u64::try_from(about.num_rows()) != Ok(rows) {
            return Err(format!("{} rows announced, its row groups have {rows}", about.num_rows()));
        }
        let (path, file, footer) = (path.to_owned(), Arc::new(file), footer.len() as u64);
        Ok(Self { path, features, rows, file, footer, metadata, starts, image, label })
    }

    /// The columns that are read, as they enter the fingerprint.
    pub(super) fn columns(&self) -> String {
        let label = match self.label {
            Some(Label::Int32(_)) => format!("{}:INT32", self.features.label),
            Some(Label::Int64(_)) => format!("{}:INT64", self.features.label),
            None => String::new(),
        };
        format!("{}.bytes:BYTE_ARRAY,{label}", self.features.image)
    }

    /// The bytes of row `row`'s image, at most `most`, and its label, as they were when the shard was
    /// opened.
    ///
    /// # Errors
    /// The row, the disk, or a file that changed.
    pub(super) fn row(&self, row: u64, most: usize) -> Result<(Vec<u8>, Option<i64>), RowError> {
        let read = self.read_row(row, most);
        // Asked afterwards, so that what was read is what had been verified.
        match self.file.unchanged() {
            Ok(true) => read,
            Ok(false) => Err(RowError::Changed),
            Err(e) => Err(RowError::Disk(e)),
        }
    }

    fn read_row(&self, row: u64, most: usize) -> Result<(Vec<u8>, Option<i64>), RowError> {
        let group = self.starts.partition_point(|start| *start <= row).saturating_sub(1);
        let start = self.starts.get(group).filter(|_| row < self.rows).ok_or_else(|| "no such row".to_owned())?;
        let within = usize::try_from(row - start).map_err(|e| e.to_string())?;
        let bytes = self.value::<ByteArrayType>(group, self.image, within)?;
        let bytes = bytes.ok_or_else(|| "no image in this row".to_owned())?;
        if bytes.len() > most {
            return Err(format!("an image of {} bytes, at most {most} are accepted", bytes.len()).into());
        }
        let label = match self.label {
            Some(Label::Int32(at)) => self.value::<Int32Type>(group, at, within)?.map(i64::from),
            Some(Label::Int64(at)) => self.value::<Int64Type>(group, at, within)?,
            None => None,
        };
        Ok((bytes.data().to_vec(), label))
    }

    /// The value of a column in row `within` of a row group; none where it is null.
    fn value<T: DataType>(&self, group: usize, column: usize, within: usize) -> Result<Option<T::T>, RowError> {
        guarded("a page", || {
            let group = self.metadata.row_group(group);
            let chunk = group.column(column);
            let rows = usize::try_from(group.num_rows()).unwrap_or(0);
            let pages = SerializedPageReader::new(self.file.clone(), chunk, rows, None)?;
            let mut reader = ColumnReaderImpl::<T>::new(chunk.column_descr_ptr(), Box::new(pages));
            let (mut levels, mut values) = (Vec::new(), Vec::new());
            if reader.skip_records(within)? != within {
                return Err(parquet::errors::ParquetError::EOF("the row group has fewer rows than it says".into()));
            }
            let (records, ..) = reader.read_records(1, Some(&mut levels), None, &mut values)?;
            if records != 1 {
                return Err(parquet::errors::ParquetError::EOF("the row group has fewer rows than it says".into()));
            }
            Ok(values.pop())
        })
    }

    /// Bytes read from the file so far.
    #[cfg(test)]
    pub(super) fn bytes_read(&self) -> u64 {
        self.file.bytes_read()
    }
}

impl Label {
    const fn column(self) -> usize {
        match self {
            Self::Int32(at) | Self::Int64(at) => at,
        }
    }
}

/// Rows of a row group whose columns lie within the file.
fn check_group(
    group: &RowGroupMetaData,
    schema: &SchemaDescriptor,
    size: u64,
    columns: [Option<usize>; 2],
) -> Result<u64, String> {
    if !(0..=MAX_GROUP_ROWS).contains(&group.num_rows()) {
        return Err(format!("{} rows, at most {MAX_GROUP_ROWS} are accepted", group.num_rows()));
    }
    if group.num_columns() != schema.num_columns() {
        return Err(format!("{} columns, the schema has {}", group.num_columns(), schema.num_columns()));
    }
    for column in columns.into_iter().flatten().map(|at| group.column(at)) {
        let name = column.column_path().string();
        if !matches!(column.compression(), Compression::UNCOMPRESSED | Compression::SNAPPY) {
            return Err(format!("column `{name}` is packed by {}: only snappy is read", column.compression()));
        }
        let start = column.dictionary_page_offset().unwrap_or_else(|| column.data_page_offset());
        let end = start.checked_add(column.compressed_size());
        let inside = start >= 4 && column.compressed_size() >= 0;
        if !inside || end.and_then(|e| u64::try_from(e).ok()).is_none_or(|e| e > size) {
            return Err(format!("column `{name}` lies outside the file"));
        }
        if column.file_path().is_some() {
            return Err(format!("column `{name}` lies in another file"));
        }
    }
    Ok(group.num_rows().unsigned_abs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_footer_that_hides_what_it_announces_is_refused() {
        // 1: version; 2: no schema; 3: rows; 4: "a double", which the library reads as 2^31 - 1 row groups.
        let hidden = [0x15, 2, 0x19, 0x0c, 0x16, 0, 0x17, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0, 0, 0];
        let refused = check_footer(&hidden).unwrap_err();
        assert!(refused.contains("field 4 is declared as type 7"), "{refused}");
    }

    #[test]
    fn a_column_of_more_columns_than_there_can_be_is_refused() {
        // 2: a schema of one element, { 4: "a"; 5: children }.
        let schema = |children: &[u8]| [&[0x29, 0x1c, 0x48, 1, b'a', 0x15], children, &[0, 0]].concat();
        assert_eq!(check_footer(&schema(&[2])), Ok(()));
        for children in [&[0xfe, 0xff, 0xff, 0xff, 0x0f][..], &[1], &[0x82, 4]] {
            let refused = check_footer(&schema(children)).unwrap_err();
            assert!(refused.contains("at most 256"), "{refused}");
        }
    }
}
