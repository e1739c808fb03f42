//! Opening a set of ImageNet-100's size, and drawing from it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use perturb_challenge::pixels::{Pixels, PngLimits};
use perturb_challenge::source::ImageSource;
use perturb_challenge::source::digests::Digests;
use perturb_challenge::source::parquet::ParquetSource;
use tempfile::TempDir;

/// Images of ImageNet-100's training split, its shards, and the images of a row group.
const ROWS: usize = 126_689;
const SHARDS: usize = 17;
const GROUP: usize = 100;

const SCHEMA: &str = "message schema {
    optional group image { optional binary bytes; optional binary path (STRING); }
    optional int64 label;
}";

fn main() {
    divan::main();
}

/// A small picture of noise, half a kilobyte long.
fn image(number: usize) -> ByteArray {
    let mut state = number as u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let pixels = Pixels::new(12, 12, (0..432).map(|_| noise()).collect()).unwrap();
    pixels.encode_png().unwrap().into()
}

fn shard(path: &Path, from: usize, rows: usize) {
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
    for start in (0..rows).step_by(GROUP) {
        let count = GROUP.min(rows - start);
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let images: Vec<ByteArray> = (0..count).map(|n| image(from + start + n)).collect();
        column.typed::<ByteArrayType>().write_batch(&images, Some(&vec![2; count]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&[], Some(&vec![1; count]), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&vec![7; count], Some(&vec![1; count]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// The set, written once.
static SET: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    for at in 0..SHARDS {
        let (from, to) = (at * ROWS / SHARDS, (at + 1) * ROWS / SHARDS);
        shard(&folder.path().join(format!("train-{at:05}-of-{SHARDS:05}.parquet")), from, to - from);
    }
    folder
});

fn open(digests: &mut Digests) -> ParquetSource {
    ParquetSource::open(SET.path(), None, digests, PngLimits::default()).unwrap()
}

#[divan::bench]
fn open_for_the_first_time(bencher: divan::Bencher<'_, '_>) {
    LazyLock::force(&SET);
    bencher.bench(|| open(&mut Digests::default()));
}

#[divan::bench]
fn open_with_known_digests(bencher: divan::Bencher<'_, '_>) {
    let mut digests = Digests::default();
    open(&mut digests);
    bencher.bench_local(|| open(&mut digests));
}

#[divan::bench]
fn draw(bencher: divan::Bencher<'_, '_>) {
    let set = open(&mut Digests::default());
    let mut at = 0;
    bencher.bench_local(|| {
        at = (at + 7_919) % ROWS as u64;
        set.get(at).unwrap()
    });
}
