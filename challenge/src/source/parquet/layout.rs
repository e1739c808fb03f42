//! The structures of a parquet footer and of a page's header: which field is of which kind.
//!
//! The library goes by a field's number alone and reads what it expects there, whatever kind the file
//! declares; who looks first must therefore insist on the declared kinds. Fields that are not in these
//! tables the library steps over by their declared kind, as the walk does.

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Bool,
    I8,
    I16,
    I32,
    I64,
    Double,
    /// Bytes or a text.
    Binary,
    Struct(Fields),
    /// A list of at most so many elements of one kind.
    List(u64, &'static Kind),
}

/// The known fields of a structure; of a union, its variants.
pub(super) type Fields = &'static [(i16, Kind)];

use Kind::{Binary, Bool, Double, I8, I16, I32, I64, List, Struct};

/// Elements of a schema: a set of images has a handful. The library goes down into them by recursion.
pub(super) const MAX_SCHEMA: u64 = 256;

/// Row groups of a file: the library numbers them by 16 bits.
const MAX_GROUPS: u64 = 1 << 15;

/// Elements of a list that nothing here depends on.
const MAX_LIST: u64 = 1 << 16;

/// A file's footer.
pub(super) const FOOTER: Fields = &[
    (1, I32),
    (2, List(MAX_SCHEMA, &Struct(SCHEMA_ELEMENT))),
    (3, I64),
    (4, List(MAX_GROUPS, &Struct(ROW_GROUP))),
    (5, List(MAX_LIST, &Struct(KEY_VALUE))),
    (6, Binary),
    (7, List(MAX_SCHEMA, &Struct(&[(1, Struct(EMPTY))]))),
];

/// A page's header.
pub(super) const PAGE: Fields = &[
    (1, I32),
    (2, I32),
    (3, I32),
    (4, I32),
    (5, Struct(&[(1, I32), (2, I32), (3, I32), (4, I32), (5, Struct(STATISTICS))])),
    (6, Struct(EMPTY)),
    (7, Struct(&[(1, I32), (2, I32), (3, Bool)])),
    (8, Struct(&[(1, I32), (2, I32), (3, I32), (4, I32), (5, I32), (6, I32), (7, Bool), (8, Struct(STATISTICS))])),
];

const EMPTY: Fields = &[];

const SCHEMA_ELEMENT: Fields = &[
    (1, I32),
    (2, I32),
    (3, I32),
    (4, Binary),
    (5, I32),
    (6, I32),
    (7, I32),
    (8, I32),
    (9, I32),
    (10, Struct(LOGICAL_TYPE)),
];

const LOGICAL_TYPE: Fields = &[
    (1, Struct(EMPTY)),
    (2, Struct(EMPTY)),
    (3, Struct(EMPTY)),
    (4, Struct(EMPTY)),
    (5, Struct(&[(1, I32), (2, I32)])),
    (6, Struct(EMPTY)),
    (7, Struct(TIME)),
    (8, Struct(TIME)),
    (10, Struct(&[(1, I8), (2, Bool)])),
    (11, Struct(EMPTY)),
    (12, Struct(EMPTY)),
    (13, Struct(EMPTY)),
    (14, Struct(EMPTY)),
    (15, Struct(EMPTY)),
    (16, Struct(&[(1, I8)])),
    (17, Struct(&[(1, Binary)])),
    (18, Struct(&[(1, Binary), (2, I32)])),
];

const TIME: Fields = &[(1, Bool), (2, Struct(&[(1, Struct(EMPTY)), (2, Struct(EMPTY)), (3, Struct(EMPTY))]))];

const ROW_GROUP: Fields = &[
    (1, List(MAX_SCHEMA, &Struct(COLUMN_CHUNK))),
    (2, I64),
    (3, I64),
    (4, List(MAX_SCHEMA, &Struct(&[(1, I32), (2, Bool), (3, Bool)]))),
    (5, I64),
    (6, I64),
    (7, I16),
];

const COLUMN_CHUNK: Fields = &[(1, Binary), (2, I64), (3, Struct(COLUMN)), (4, I64), (5, I32), (6, I64), (7, I32)];

const COLUMN: Fields = &[
    (1, I32),
    (2, List(MAX_LIST, &I32)),
    (3, List(MAX_SCHEMA, &Binary)),
    (4, I32),
    (5, I64),
    (6, I64),
    (7, I64),
    (8, List(MAX_LIST, &Struct(KEY_VALUE))),
    (9, I64),
    (10, I64),
    (11, I64),
    (12, Struct(STATISTICS)),
    (13, List(MAX_LIST, &Struct(&[(1, I32), (2, I32), (3, I32)]))),
    (14, I64),
    (15, I32),
    (16, Struct(&[(1, I64), (2, List(MAX_LIST, &I64)), (3, List(MAX_LIST, &I64))])),
    (17, Struct(&[(1, Struct(BOX)), (2, List(MAX_LIST, &I32))])),
];

const STATISTICS: Fields =
    &[(1, Binary), (2, Binary), (3, I64), (4, I64), (5, Binary), (6, Binary), (7, Bool), (8, Bool)];

const BOX: Fields =
    &[(1, Double), (2, Double), (3, Double), (4, Double), (5, Double), (6, Double), (7, Double), (8, Double)];

const KEY_VALUE: Fields = &[(1, Binary), (2, Binary)];
