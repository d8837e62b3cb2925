//! Entry points for fuzzing: one function for each parser of bytes from outside.
//!
//! ```text
//! fuzz/corpus/<target>/* ──┬── fuzz/fuzz_targets/<target>.rs (libFuzzer, `make fuzz`) ──┐
//!                          └── tests below: each file and mutations of it ──────────────┴──> target(bytes)
//! ```
//! A target may refuse its bytes and must not panic; what it accepts has the properties it asserts: both forms of
//! a value agree, what is read and written again is the same, cuts in a stream do not matter. Nothing here is
//! part of the crate's interface; it is there with the feature `fuzzing` and in tests.

use crate::contract::{Column, ColumnType, Commit, Format, Item, PgType, RawItem, RawRow, RawRows, ReplicaIdentity, RowBatch, TableSchema};
use crate::{contract, encode, sink, source, transform};
use std::sync::Arc;

/// A target: its name, and what to do with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this crate.
pub const TARGETS: &[Target] = &[
    ("array_binary", encode::fuzz::array_binary),
    ("array_text", encode::fuzz::array_text),
    ("capture_file", source::replay::fuzz::capture_file),
    ("cast", transform::fuzz::cast),
    ("conninfo", source::postgres::fuzz::conninfo),
    ("copy_stream", source::postgres::fuzz::copy_stream),
    ("file_names", sink::file::fuzz::names),
    ("numeric", encode::fuzz::numeric),
    ("passfile", source::postgres::fuzz::passfile),
    ("pgoutput_rows", encode::fuzz::pgoutput_rows),
    ("pgoutput_stream", source::postgres::fuzz::pgoutput_stream),
    ("position", contract::fuzz::position),
    ("predicate", transform::fuzz::predicate),
    ("replication_stream", source::postgres::fuzz::replication_stream),
    ("row_batch_wire", contract::fuzz::wire),
    ("scalar", encode::fuzz::scalar),
    ("snowflake_response", sink::snowflake::fuzz::response),
    ("startup", source::postgres::fuzz::startup),
    ("temporal", encode::fuzz::temporal),
];

/// Runs a target of [`TARGETS`].
///
/// # Panics
/// When a property does not hold, or there is no such target.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("the target is listed");
    target(bytes);
}

/// The relation that every table of a target has.
pub(crate) const RELATION: u32 = 16_400;

/// Takes decisions off the front of the input.
pub(crate) struct Feed<'a>(pub(crate) &'a [u8]);

impl<'a> Feed<'a> {
    /// A byte; 0 when nothing is left.
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// One of several.
    pub(crate) fn pick<'t, T>(&mut self, among: &'t [T]) -> &'t T {
        let at = usize::from(self.byte()) % among.len();
        &among[at]
    }

    /// Bytes with a length of two bytes in front; those that are there.
    pub(crate) fn piece(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.0.split_first_chunk::<2>()?;
        let (piece, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        self.0 = rest;
        Some(piece)
    }
}

/// Every family of types that is not an array.
pub(crate) fn families() -> Vec<ColumnType> {
    use ColumnType::{
        Bool, Bytea, Date, Float4, Float8, Int2, Int4, Int8, Interval, Json, Jsonb, Numeric, NumericText, Oid, Other, Text, Time, TimeTz,
        Timestamp, TimestampTz, Uuid,
    };
    let short = Numeric { precision: 5, scale: 2 };
    let long = Numeric { precision: 38, scale: 37 };
    vec![
        Bool,
        Int2,
        Int4,
        Int8,
        Oid,
        Float4,
        Float8,
        short,
        long,
        NumericText,
        Text,
        Bytea,
        Date,
        Time,
        TimeTz,
        Timestamp,
        TimestampTz,
        Interval,
        Uuid,
        Json,
        Jsonb,
        Other,
    ]
}

/// A table of given columns: `c0`, `c1`, …; the first is the key.
pub(crate) fn table(types: Vec<ColumnType>) -> Arc<TableSchema> {
    let column = |(at, ty): (usize, ColumnType)| {
        let oid = if ty == ColumnType::Text { 25 } else { 0 };
        let pg_type = PgType { oid, modifier: -1, name: format!("{ty:?}").into() };
        Column {
            name: format!("c{at}").into(),
            ty,
            pg_type,
            nullable: at > 0,
            key: (at == 0).then_some(0),
            missing: None,
            number: None,
            filled: false,
        }
    };
    let columns = types.into_iter().enumerate().map(column).collect();
    let (source, schema, name) = ("shop".into(), "public".into(), "orders".into());
    Arc::new(TableSchema { source, id: RELATION, schema, name, columns, identity: ReplicaIdentity::Default, storage: None })
}

/// Messages as a source gives them: commit 100, ordinals two apart.
pub(crate) fn raw(table: &Arc<TableSchema>, format: Format, messages: &[impl AsRef<[u8]>]) -> RawRows {
    let (mut bytes, mut rows) = (Vec::new(), Vec::new());
    for (at, message) in messages.iter().enumerate() {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(message.as_ref());
        rows.push(RawRow { start, end: bytes.len() as u32, commit: 0, ordinal: 2 * at as u64 });
    }
    RawRows { table: Arc::clone(table), format, bytes: bytes.into(), commits: vec![Commit { lsn: 100, time: 7 }], rows }
}

/// An insert of texts; nothing is null.
pub(crate) fn insert(kind: u8, values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut message = vec![b'I'];
    message.extend(RELATION.to_be_bytes());
    message.push(b'N');
    message.extend((values.len() as u16).to_be_bytes());
    for value in values {
        match value {
            None => message.push(b'n'),
            Some(value) => {
                message.push(kind);
                message.extend((value.len() as u32).to_be_bytes());
                message.extend_from_slice(value);
            }
        }
    }
    message
}

/// What a batch promises, whatever made it.
pub(crate) fn check(batch: &RowBatch) {
    assert_eq!(batch.columns.len(), batch.table.columns.len());
    for (array, column) in batch.columns.iter().zip(&batch.table.columns) {
        assert_eq!(array.len(), batch.len());
        assert_eq!(*array.data_type(), column.ty.arrow());
        array.to_data().validate_full().expect("the array is whole");
    }
    for lengths in [batch.commit_lsn.len(), batch.ordinal.len(), batch.commit_time.len()] {
        assert_eq!(lengths, batch.len());
    }
    assert!((1..batch.len()).all(|row| batch.token(row - 1) < batch.token(row)), "tokens ascend");
    for (row, column, ()) in batch.unchanged.iter() {
        assert!(batch.columns[column].is_null(row));
    }
    for (row, column, _) in batch.exact.iter() {
        assert!(row < batch.len() && column < batch.columns.len());
    }
}

/// The rows of some items, in their order.
pub(crate) fn raws(items: &[RawItem]) -> impl Iterator<Item = &RawRows> {
    items.iter().filter_map(|item| match item {
        RawItem::Raw(raw) => Some(raw),
        RawItem::Ready(Item::Rows(_) | Item::Mark(_)) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::TARGETS;
    use crate::testing::replay::replay;
    use std::path::Path;

    fn corpus(target: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
    }

    /// One test for each target, so that they run in parallel and a failure names its parser.
    macro_rules! replayed {
        ($($name:ident)*) => {
            $(#[test]
            fn $name() {
                let target = TARGETS.iter().find(|(name, _)| *name == stringify!($name)).expect("listed").1;
                replay(&corpus(stringify!($name)), target);
            })*

            #[test]
            fn every_target_is_replayed_and_has_its_file() {
                let replayed = [$(stringify!($name)),*];
                assert_eq!(TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>(), replayed);
                for name in replayed {
                    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/fuzz_targets/{name}.rs"));
                    assert!(file.exists(), "{}", file.display());
                }
            }
        };
    }

    replayed! {
        array_binary array_text capture_file cast conninfo copy_stream file_names numeric passfile pgoutput_rows pgoutput_stream position predicate
        replication_stream row_batch_wire scalar snowflake_response startup temporal
    }
}
