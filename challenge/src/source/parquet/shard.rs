//! One parquet file: opened by its footer, read row by row.
//!
//! A row is found through the row group it lies in: pages before it are stepped over by their headers,
//! and only the page that holds it is read (with the chunk's dictionary, where there is one).
//!
//! A file is hostile until its fingerprint is the agreed one, and may be broken after that: the footer
//! is bounded and walked before the library reads it, pages are bounded by their headers, and the
//! library's own panics on nonsense become errors.

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
use super::file::Positioned;
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
    file: Arc<Positioned>,
    metadata: ParquetMetaData,
    /// The first row of each row group.
    starts: Vec<u64>,
    image: usize,
    label: Option<Label>,
}

/// Runs what the library does; a panic of its is an error.
fn guarded<T>(what: &str, run: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(e)) => Err(format!("{what}: {e}")),
        Err(_) => Err(format!("{what}: it contradicts itself")),
    }
}

fn footer(file: &Positioned) -> Result<Vec<u8>, String> {
    let io = |e: std::io::Error| e.to_string();
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
    thrift::walk(&footer, &mut |_, _| {}).map_err(|e| format!("its footer: {e}"))?;
    Ok(footer)
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
        let metadata = guarded("its footer", || ParquetMetaDataReader::decode_metadata(&footer))?;
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
        Ok(Self { path: path.to_owned(), features, rows, file: Arc::new(file), metadata, starts, image, label })
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

    /// The bytes of row `row`'s image, at most `most`, and its label.
    ///
    /// # Errors
    /// What is wrong with the row, for people.
    pub(super) fn row(&self, row: u64, most: usize) -> Result<(Vec<u8>, Option<i64>), String> {
        let group = self.starts.partition_point(|start| *start <= row).saturating_sub(1);
        let start = self.starts.get(group).filter(|_| row < self.rows).ok_or("no such row")?;
        let within = usize::try_from(row - start).map_err(|e| e.to_string())?;
        let bytes = self.value::<ByteArrayType>(group, self.image, within)?.ok_or("no image in this row")?;
        if bytes.len() > most {
            return Err(format!("an image of {} bytes, at most {most} are accepted", bytes.len()));
        }
        let label = match self.label {
            Some(Label::Int32(at)) => self.value::<Int32Type>(group, at, within)?.map(i64::from),
            Some(Label::Int64(at)) => self.value::<Int64Type>(group, at, within)?,
            None => None,
        };
        Ok((bytes.data().to_vec(), label))
    }

    /// The value of a column in row `within` of a row group; none where it is null.
    fn value<T: DataType>(&self, group: usize, column: usize, within: usize) -> Result<Option<T::T>, String> {
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
