//! What each message becomes.

use super::{Sent, column, encode, message, raw, table};
use crate::contract::{Column, ColumnType, Commit, Format, RawRows, RowBatch, TableSchema};
use crate::encode::Encoder;
use Sent::{Null, Text, Unchanged};
use arrow::array::{Array, AsArray};
use arrow::datatypes::Int32Type;
use std::sync::Arc;

fn orders() -> Arc<TableSchema> {
    let id = Column { key: Some(0), nullable: false, ..column("id", ColumnType::Int4) };
    table(vec![id, column("note", ColumnType::Text), column("more", ColumnType::Text)])
}

/// Rows as `op ordinal id|note|more`, with `-` for null and `~` for unchanged.
fn shown(batches: &[RowBatch]) -> Vec<String> {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.len() {
            let cell = |at: usize| match &batch.columns[at] {
                _ if batch.unchanged.get(row, at).is_some() => "~".to_owned(),
                column if column.is_null(row) => "-".to_owned(),
                column if at == 0 => column.as_primitive::<Int32Type>().value(row).to_string(),
                column => column.as_string::<i32>().value(row).to_owned(),
            };
            rows.push(format!("{} {} {}|{}|{}", batch.ops[row] as char, batch.ordinal[row], cell(0), cell(1), cell(2)));
        }
    }
    rows
}

#[test]
fn changes() {
    let (one, two): (&[Sent<'_>], &[Sent<'_>]) = (&[Text(b"1"), Text(b"a"), Unchanged], &[Text(b"2"), Null, Unchanged]);
    let old: &[Sent<'_>] = &[Text(b"1"), Text(b"old"), Text(b"big")];
    let key: &[Sent<'_>] = &[Text(b"1"), Null, Null];
    let key_unsent: &[Sent<'_>] = &[Unchanged, Text(b"a"), Null];
    let mut truncate = message(b'T', &[]);
    truncate.extend([0, 0, 0, 0]);
    for (message, expected) in [
        (message(b'I', &[(b'N', old)]), vec!["i 0 1|old|big"]),
        (message(b'U', &[(b'N', one)]), vec!["u 0 1|a|~"]),
        (message(b'U', &[(b'K', key), (b'N', two)]), vec!["d 0 1|-|-", "i 1 2|-|~"]),
        (message(b'U', &[(b'O', old), (b'N', one)]), vec!["u 0 1|a|big"]),
        (message(b'U', &[(b'O', old), (b'N', two)]), vec!["d 0 1|old|big", "i 1 2|-|big"]),
        (message(b'U', &[(b'O', old), (b'N', key_unsent)]), vec!["u 0 1|a|-"]),
        (message(b'U', &[(b'K', key), (b'N', key_unsent)]), vec!["u 0 1|a|-"]),
        (message(b'U', &[(b'K', key), (b'N', &[Unchanged, Unchanged, Null])]), vec!["u 0 1|~|-"]),
        (message(b'D', &[(b'K', key)]), vec!["d 0 1|-|-"]),
        (message(b'D', &[(b'O', old)]), vec!["d 0 1|old|big"]),
        (truncate, vec!["t 0 -|-|-"]),
    ] {
        let out = encode(&raw(&orders(), Format::PgOutput, &[message])).unwrap();
        assert_eq!(shown(&out), expected);
        assert!(out.iter().all(|b| b.commit_lsn.iter().all(|l| *l == 100) && b.commit_time.iter().all(|t| *t == 7)));
    }
}

#[test]
fn an_update_without_a_key_is_the_old_row_gone_and_the_new_one_there() {
    let table = table(vec![column("id", ColumnType::Int4), column("a", ColumnType::Text), column("b", ColumnType::Text)]);
    let update = message(b'U', &[(b'O', &[Text(b"1"), Null, Null]), (b'N', &[Text(b"2"), Null, Null])]);
    assert_eq!(shown(&encode(&raw(&table, Format::PgOutput, &[update])).unwrap()), ["d 0 1|-|-", "i 1 2|-|-"]);
}

#[test]
fn copied_tuples_are_reads() {
    let tuples = [b"\0\x03\0\0\0\x04\0\0\0\x09\0\0\0\x01x\xff\xff\xff\xff".to_vec()];
    assert_eq!(shown(&encode(&raw(&orders(), Format::CopyBinary, &tuples)).unwrap()), ["r 0 9|x|-"]);
    let other = table(vec![column("v", ColumnType::Other)]);
    let out = encode(&raw(&other, Format::CopyBinary, &[b"\0\x01\0\0\0\x0610.0.0".to_vec()])).unwrap();
    assert_eq!(out[0].columns[0].as_string::<i32>().value(0), "10.0.0");
}

fn insert(id: &str) -> Vec<u8> {
    message(b'I', &[(b'N', &[Text(id.as_bytes()), Null, Null])])
}

#[test]
fn batches_end_where_schema_order_or_size_says() {
    let (mut encoder, mut out) = (Encoder::new(), Vec::new());
    let first = orders();
    let mut wider = (*first).clone();
    wider.columns.pop();
    wider.columns.push(column("extra", ColumnType::Text));
    let second = Arc::new(wider);
    let mut other = (*first).clone();
    other.id += 1;
    other.name = "lines".into();
    let other = Arc::new(other);
    let rows = |table: &Arc<TableSchema>, lsn: u64, ids: &[&str]| {
        let mut messages: Vec<Vec<u8>> = ids.iter().map(|id| insert(id)).collect();
        messages.iter_mut().for_each(|m| m[1..5].copy_from_slice(&table.id.to_be_bytes()));
        RawRows { commits: vec![Commit { lsn, time: 0 }], ..raw(table, Format::PgOutput, &messages) }
    };
    encoder.push(&rows(&first, 1, &["1", "2"]), &mut out).unwrap();
    encoder.push(&rows(&other, 1, &["7"]), &mut out).unwrap();
    // an equal schema of another allocation goes on
    encoder.push(&rows(&Arc::new((*first).clone()), 2, &["3"]), &mut out).unwrap();
    assert!(out.is_empty());
    // another schema does not
    encoder.push(&rows(&second, 3, &["4"]), &mut out).unwrap();
    assert_eq!(out.iter().map(RowBatch::len).collect::<Vec<_>>(), [3]);
    // nor does a token that was there
    encoder.push(&rows(&second, 3, &["5"]), &mut out).unwrap();
    assert_eq!(out.iter().map(RowBatch::len).collect::<Vec<_>>(), [3, 1]);
    // tables come in the order they were touched: the other before the second schema
    encoder.flush(&mut out);
    assert_eq!(out.iter().map(|b| (b.table.id - first.id, b.len())).collect::<Vec<_>>(), [(0, 3), (0, 1), (1, 1), (0, 1)]);
    encoder.push(&rows(&other, 9, &["8"]), &mut out).unwrap();
    encoder.flush_table(&first, &mut out);
    assert_eq!(out.len(), 4);
    encoder.flush_table(&other, &mut out);
    encoder.flush(&mut out);
    assert_eq!(out.len(), 5);
}

#[test]
fn limits() {
    let messages: Vec<Vec<u8>> = (0..150_000).map(|id: u32| insert(&id.to_string())).collect();
    let out = encode(&raw(&orders(), Format::PgOutput, &messages)).unwrap();
    assert_eq!(out.iter().map(RowBatch::len).collect::<Vec<_>>(), [65_536, 65_536, 150_000 - 2 * 65_536]);
    let ids: Vec<i32> = out.iter().flat_map(|b| b.columns[0].as_primitive::<Int32Type>().values().to_vec()).collect();
    assert_eq!(ids, (0..150_000).collect::<Vec<i32>>());
    let large = vec![b'x'; 3 << 20];
    let messages = vec![message(b'I', &[(b'N', &[Text(b"1"), Text(&large), Null])]); 7];
    let out = encode(&raw(&orders(), Format::PgOutput, &messages)).unwrap();
    assert_eq!(out.iter().map(RowBatch::len).collect::<Vec<_>>(), [3, 3, 1]);
}
