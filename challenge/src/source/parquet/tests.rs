#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{File, OpenOptions};
use std::sync::Arc;
use std::time::SystemTime;

use parquet::basic::{Compression, Encoding};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use proptest::prelude::*;

use super::*;
use crate::pixels::Pixels;

const FEATURES: &str = r#"{"info": {"features": {"image": {"_type": "Image"},
    "label": {"names": ["bonnet, poke bonnet", "green mamba", "langur"], "_type": "ClassLabel"}}}}"#;

/// The columns as the hub's writer makes them.
const SCHEMA: &str = "message schema {
    optional group image { optional binary bytes; optional binary path (STRING); }
    optional int64 label;
}";

/// One shard: rows of (image bytes, label), `per_group` a row group.
fn write(path: &Path, rows: &[(Option<Vec<u8>>, i64)], per_group: usize, features: Option<&str>) {
    write_with(path, rows, per_group, features, |properties| properties);
}

fn write_with(
    path: &Path,
    rows: &[(Option<Vec<u8>>, i64)],
    per_group: usize,
    features: Option<&str>,
    how: impl FnOnce(WriterPropertiesBuilder) -> WriterPropertiesBuilder,
) {
    let about = features.map(|f| vec![KeyValue::new("huggingface".to_owned(), f.to_owned())]);
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).set_key_value_metadata(about);
    let properties = how(properties).build();
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
    for rows in rows.chunks(per_group) {
        let mut group = writer.next_row_group().unwrap();
        let images: Vec<ByteArray> = rows.iter().filter_map(|r| r.0.clone().map(ByteArray::from)).collect();
        let levels: Vec<i16> = rows.iter().map(|r| if r.0.is_some() { 2 } else { 1 }).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&images, Some(&levels), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&[], Some(&vec![1; rows.len()]), None).unwrap();
        column.close().unwrap();
        let labels: Vec<i64> = rows.iter().map(|r| r.1).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&labels, Some(&vec![1; rows.len()]), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// A noisy picture that begins with its number.
fn noisy(number: u64, side: u32) -> Pixels {
    let mut state = number;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut rgb: Vec<u8> = (0..side * side * 3).map(|_| noise()).collect();
    rgb[..4].copy_from_slice(&(number as u32).to_le_bytes());
    Pixels::new(side, side, rgb).unwrap()
}

fn picture(number: u64) -> Pixels {
    noisy(number, 4)
}

fn row(number: u64) -> (Option<Vec<u8>>, i64) {
    (Some(picture(number).encode_png().unwrap()), (number % 3) as i64)
}

fn open(folder: &Path) -> Result<ParquetSource, SourceError> {
    ParquetSource::open(folder, None, &mut Digests::default(), PngLimits::default())
}

#[test]
fn rows_are_numbered_through_all_shards_and_carry_their_labels() {
    let folder = tempfile::tempdir().unwrap();
    for (shard, rows) in [(0u64, 25u64), (1, 7)] {
        let rows: Vec<_> = (0..rows).map(|r| row(shard * 25 + r)).collect();
        write(&folder.path().join(format!("train-0000{shard}-of-00002.parquet")), &rows, 10, Some(FEATURES));
    }
    let set = open(folder.path()).unwrap();
    assert_eq!(set.len(), 32);
    assert_eq!(set.label_names(), ["bonnet, poke bonnet", "green mamba", "langur"]);
    for index in 0..32 {
        let image = set.get(index).unwrap();
        assert_eq!((image.pixels, image.label), (picture(index), Some((index % 3) as u16)), "image {index}");
    }
    assert!(matches!(set.get(32), Err(SourceError::Range { index: 32, len: 32 })));
}

#[test]
fn a_jpeg_in_a_row_is_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let jpeg = include_bytes!("../probes/420.jpg").to_vec();
    write(&folder.path().join("a.parquet"), &[(Some(jpeg.clone()), 0)], 1, None);
    let image = open(folder.path()).unwrap().get(0).unwrap();
    assert_eq!(image.pixels, decode::image(&jpeg, &PngLimits::default()).unwrap());
    assert_eq!(image.label, None, "labels without names are none");
}

#[test]
fn the_fingerprint_follows_contents_and_not_places() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let rows: Vec<_> = (0..9).map(row).collect();
    write(&one.path().join("x.parquet"), &rows, 4, Some(FEATURES));
    std::fs::create_dir(two.path().join("data")).unwrap();
    let copy = two.path().join("data/other-name.parquet");
    std::fs::copy(one.path().join("x.parquet"), &copy).unwrap();
    let print = open(one.path()).unwrap().fingerprint();
    assert_eq!(open(two.path()).unwrap().fingerprint(), print);
    write(&copy, &rows, 5, Some(FEATURES));
    assert_ne!(open(two.path()).unwrap().fingerprint(), print, "other bytes");
    write(&copy, &rows[..8], 4, Some(FEATURES));
    assert_ne!(open(two.path()).unwrap().fingerprint(), print, "fewer rows");
}

#[test]
fn the_hubs_cache_is_opened_and_a_damaged_download_is_noticed() {
    let cache = tempfile::tempdir().unwrap();
    let set = cache.path().join("datasets--clane9--imagenet-100");
    let snapshot = set.join("snapshots/0519dc2f402a3a18c6e57f7913db059215eee25b");
    std::fs::create_dir_all(snapshot.join("data")).unwrap();
    std::fs::create_dir_all(set.join("blobs")).unwrap();
    std::fs::create_dir_all(set.join("refs")).unwrap();
    std::fs::write(set.join("refs/main"), "0519dc2f402a3a18c6e57f7913db059215eee25b").unwrap();
    let file = cache.path().join("file");
    write(&file, &(0..5).map(row).collect::<Vec<_>>(), 2, Some(FEATURES));
    let digest = Digest::of(&std::fs::read(&file).unwrap());
    let link = snapshot.join("data/validation-00000-of-00001.parquet");
    let keep = |name: &str| {
        std::fs::copy(&file, set.join("blobs").join(name)).unwrap();
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(format!("../../../blobs/{name}"), &link).unwrap();
        let mut digests = Digests::default();
        ParquetSource::imagenet_100(cache.path(), "validation", "main", &mut digests, PngLimits::default())
    };
    assert_eq!(keep(&digest.to_string()).unwrap().len(), 5);
    let refused = keep(&"0".repeat(64)).unwrap_err().to_string();
    assert!(refused.contains("damaged"), "{refused}");
    let mut digests = Digests::default();
    let other = ParquetSource::imagenet_100(cache.path(), "train", "main", &mut digests, PngLimits::default());
    assert!(other.unwrap_err().to_string().contains("no parquet files"));
}

#[test]
fn the_whole_of_imagenet_100_opens_by_its_footers_and_drawing_reads_a_fraction_of_a_shard() {
    const ROWS: u64 = 126_689;
    const SHARDS: u64 = 17;
    let folder = tempfile::tempdir().unwrap();
    // About half a kilobyte each, all different.
    let row = |index| (Some(noisy(index, 12).encode_png().unwrap()), (index % 3) as i64);
    let mut biggest = 0;
    for shard in 0..SHARDS {
        let (from, to) = (shard * ROWS / SHARDS, (shard + 1) * ROWS / SHARDS);
        let rows: Vec<_> = (from..to).map(row).collect();
        let path = folder.path().join(format!("train-{shard:05}-of-{SHARDS:05}.parquet"));
        write(&path, &rows, 100, Some(FEATURES));
        biggest = path.metadata().unwrap().len().max(biggest);
    }
    let set = open(folder.path()).unwrap();
    assert_eq!(set.len(), ROWS);
    let footers = set.bytes_read();
    assert!(footers < 8 << 20, "{footers} bytes of footers");

    let mut seen = 0;
    for index in [0, 1, 99, 100, 7_451, 63_000, ROWS - 1] {
        let before = set.bytes_read();
        assert_eq!(set.get(index).unwrap().pixels, noisy(index, 12), "image {index}");
        seen = seen.max(set.bytes_read() - before);
    }
    assert!(seen * 20 < biggest, "{seen} bytes read of a shard of {biggest}");
}

#[test]
fn a_broken_row_is_an_error_of_that_row_alone() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [row(0), (None, 1), (Some(b"no image".to_vec()), 2), (row(3).0, -1), (row(4).0, 3)];
    write(&folder.path().join("a.parquet"), &rows, 10, Some(FEATURES));
    let set = open(folder.path()).unwrap();
    assert_eq!(set.get(0).unwrap().label, Some(0));
    for index in [1, 2] {
        assert!(set.get(index).unwrap_err().one_image());
    }
    assert_eq!(set.get(3).unwrap().label, None, "below zero");
    assert_eq!(set.get(4).unwrap().label, None, "no such name");
}

#[test]
fn what_is_no_such_set_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let refused = || open(folder.path()).unwrap_err().to_string();
    std::fs::write(&path, "PAR1").unwrap();
    assert!(refused().contains("no parquet file"));
    std::fs::write(&path, "PAR1 something else altogether").unwrap();
    assert!(refused().contains("not a parquet file"));
    std::fs::write(&path, [b"PAR1".as_slice(), &[0xff; 8], &[0xff, 0xff, 0xff, 0x7f], b"PAR1"].concat()).unwrap();
    assert!(refused().contains("a footer of 2147483647 bytes"));
    std::fs::write(&path, [b"PAR1".as_slice(), &[0xff; 8], &[8, 0, 0, 0], b"PAR1"].concat()).unwrap();
    assert!(refused().contains("its footer"), "{}", refused());
    write(&path, &[], 1, Some(FEATURES));
    assert!(refused().contains("0 images"));
    write(&path, &[row(0)], 1, Some(r#"{"info": {"features": {"photo": {"_type": "Image"}}}}"#));
    assert!(refused().contains("no column `photo.bytes`"));
    write(&path, &[row(0)], 1, Some(FEATURES));
    write(&folder.path().join("b.parquet"), &[row(0)], 1, None);
    assert!(refused().contains("other columns or label names"));
}

#[test]
fn a_shard_that_changes_is_refused_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write(&path, &(0..5).map(row).collect::<Vec<_>>(), 5, Some(FEATURES));
    let set = open(folder.path()).unwrap();
    assert!(set.get(0).is_ok());
    // In place, to a file of the same length; by the system's clock it may be the same moment.
    let other = folder.path().join("b");
    write(&other, &(0..5).map(|n| row(n ^ 1)).collect::<Vec<_>>(), 5, Some(FEATURES));
    std::fs::write(&path, std::fs::read(&other).unwrap()).unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    for index in 0..5 {
        let refused = set.get(index).unwrap_err();
        assert!(matches!(&refused, SourceError::Changed { path: at } if *at == path), "{refused}");
        assert!(!refused.one_image());
    }
}

#[test]
fn a_disk_that_fails_is_no_fault_of_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    write(&path, &(0..5).map(row).collect::<Vec<_>>(), 5, Some(FEATURES));
    let mut set = open(folder.path()).unwrap();
    // A handle that cannot be read by: the system refuses each time.
    let unreadable = OpenOptions::new().write(true).open(&path).unwrap();
    set.shards[0].file = Arc::new(set.shards[0].file.behind(unreadable));
    let refused = set.get(0).unwrap_err();
    assert!(matches!(&refused, SourceError::Io { path: at, error } if *at == path && error.raw_os_error().is_some()));
    assert!(!refused.one_image());
}

#[test]
fn values_that_must_be_unpacked_from_the_first_on_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<_> = (0..5).map(row).collect();
    write_with(&folder.path().join("a.parquet"), &rows, 5, Some(FEATURES), |properties| {
        let column = ColumnPath::from(vec!["image".to_owned(), "bytes".to_owned()]);
        properties.set_dictionary_enabled(false).set_column_encoding(column, Encoding::DELTA_BYTE_ARRAY)
    });
    let refused = open(folder.path()).unwrap().get(3).unwrap_err();
    assert!(refused.one_image() && refused.to_string().contains("encoding 7"), "{refused}");
}

#[test]
fn a_column_that_is_not_used_may_hold_anything() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let texts = |features: Option<&str>| {
        let schema =
            "message schema { optional group image { optional binary bytes; } optional binary label (STRING); }";
        let about = features.map(|f| vec![KeyValue::new("huggingface".to_owned(), f.to_owned())]);
        let properties = WriterProperties::builder().set_key_value_metadata(about).build();
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut writer = SerializedFileWriter::new(File::create(&path).unwrap(), schema, Arc::new(properties)).unwrap();
        let mut group = writer.next_row_group().unwrap();
        for (value, levels) in [(row(0).0.unwrap(), 2), (b"crane".to_vec(), 1)] {
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<ByteArrayType>().write_batch(&[ByteArray::from(value)], Some(&[levels]), None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
        open(folder.path())
    };
    assert_eq!(texts(None).unwrap().get(0).unwrap().label, None);
    assert!(texts(Some(FEATURES)).unwrap_err().to_string().contains("no whole numbers"));
}

#[test]
fn all_footers_together_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        write(&folder.path().join(name).with_extension("parquet"), &[row(0)], 1, Some(FEATURES));
    }
    let set = open(folder.path()).unwrap();
    let one = set.shards[0].footer;
    let bounded =
        |most| ParquetSource::bounded(folder.path(), None, &mut Digests::default(), PngLimits::default(), most);
    assert_eq!(bounded(3 * one).unwrap().len(), 3);
    let refused = bounded(3 * one - 1).unwrap_err().to_string();
    assert!(refused.contains("c.parquet") && refused.contains("its footer"), "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_damaged_file_is_refused_or_gives_errors_but_never_a_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        from_the_end: bool,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write(&path, &(0..12).map(row).collect::<Vec<_>>(), 5, Some(FEATURES));
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, value) in changes {
            // The footer, where most structure is, is the file's end.
            let last = bytes.len();
            let at = if from_the_end { last - 1 - at.index(900.min(last)) } else { at.index(last) };
            bytes[at] = value;
        }
        std::fs::write(&path, bytes).unwrap();
        if let Ok(set) = open(folder.path()) {
            for index in 0..set.len().min(20) {
                let _ = set.get(index);
            }
        }
    }
}
