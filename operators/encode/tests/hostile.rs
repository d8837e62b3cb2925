//! Bytes that PostgreSQL does not send: typed errors, never a panic, never a value in a message.

use super::{Sent, column, encode, message, raw, single, table};
use crate::contract::{ColumnType, Format};
use crate::fuzzing::families;
use proptest::prelude::*;

/// Every family, and arrays.
fn every_family() -> Vec<ColumnType> {
    let arrays = families().into_iter().map(|ty| ColumnType::Array(Box::new(ty)));
    let nested = ColumnType::Array(Box::new(ColumnType::Array(Box::new(ColumnType::Int4))));
    families().into_iter().chain(arrays).chain([nested]).collect()
}

#[test]
fn messages_cut_anywhere() {
    let table = table(vec![column("id", ColumnType::Int4), column("tags", ColumnType::Array(Box::new(ColumnType::Text)))]);
    let row: &[Sent<'_>] = &[Sent::Text(b"1"), Sent::Text(b"{a,\"b c\"}")];
    let whole = message(b'U', &[(b'O', row), (b'N', row)]);
    encode(&raw(&table, Format::PgOutput, std::slice::from_ref(&whole))).unwrap();
    for cut in 0..whole.len() {
        let error = encode(&raw(&table, Format::PgOutput, &[whole[..cut].to_vec()])).unwrap_err();
        assert!(error.code.id == "DEC0002" && !error.is_transient(), "{cut}: {error:?}");
    }
    let tuple = b"\0\x02\0\0\0\x04\0\0\0\x01\0\0\0\x0c\0\0\0\0\0\0\0\0\0\0\0\x19".to_vec();
    encode(&raw(&table, Format::CopyBinary, std::slice::from_ref(&tuple))).unwrap();
    for cut in 0..tuple.len() {
        assert_eq!(encode(&raw(&table, Format::CopyBinary, &[tuple[..cut].to_vec()])).unwrap_err().code.id, "DEC0002", "{cut}");
    }
}

#[test]
fn errors_name_the_place_and_not_the_value() {
    let expect = |ty: ColumnType, sent: &[Sent<'_>], code: &str| {
        let error = encode(&raw(&single(ty.clone()), Format::PgOutput, &[message(b'I', &[(b'N', sent)])])).unwrap_err();
        assert_eq!(error.code.id, code, "{ty:?}");
        let report = error.report();
        assert!(report.contains("public.orders") && !report.contains("s3cret"), "{report}");
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/errors/{code}.md"));
        assert!(std::fs::read_to_string(page).unwrap().starts_with(&format!("# {code}: ")));
    };
    expect(ColumnType::Int4, &[Sent::Text(b"1"), Sent::Null], "DEC0001");
    expect(ColumnType::Int4, &[Sent::Text(b"s3cret")], "DEC0003");
    expect(ColumnType::Other, &[Sent::Binary(b"s3cret")], "DEC0004");
    expect(ColumnType::Text, &[Sent::Text(b"s3cret \xff")], "DEC0005");
    expect(ColumnType::Array(Box::new(ColumnType::Text)), &[Sent::Text(b"{s3cret \xc3}")], "DEC0005");
    let mut wrong = raw(&single(ColumnType::Int4), Format::PgOutput, &[message(b'I', &[(b'N', &[Sent::Null])])]);
    wrong.rows[0].commit = 1;
    assert_eq!(encode(&wrong).unwrap_err().code.id, "DEC0002");
    wrong.rows[0].commit = 0;
    wrong.rows[0].end = u32::MAX;
    assert_eq!(encode(&wrong).unwrap_err().code.id, "DEC0002");
    // two values that are UTF-8 only together
    let halves = [&b"\xc3"[..], b"\xa9"].map(|half| message(b'I', &[(b'N', &[Sent::Text(half)])]));
    assert_eq!(encode(&raw(&single(ColumnType::Text), Format::PgOutput, &halves)).unwrap_err().code.id, "DEC0005");
}

#[test]
fn arrays_that_are_not() {
    let ints = ColumnType::Array(Box::new(ColumnType::Int4));
    for text in [
        "",
        "{",
        "}",
        "1",
        "{1",
        "{1,",
        "{1,}",
        "{,1}",
        "{1}}",
        "{{1}",
        "{1}x",
        "{1 2}",
        "{\"1",
        "{\"1\\",
        "{\"1\"2}",
        "{1{2}}",
        "{{1}{2}}",
        "[0:1]",
        "[0:1]=",
        "{{{{{{{1}}}}}}}",
        "{a}",
        "{1;2}",
        "{null}",
        "{}}",
        "{}{}",
    ] {
        let message = message(b'I', &[(b'N', &[Sent::Text(text.as_bytes())])]);
        let error = encode(&raw(&single(ints.clone()), Format::PgOutput, &[message])).expect_err(text);
        assert_eq!(error.code.id, "DEC0003", "{text}");
    }
    let head = |dimensions: &[(i32, i32)], rest: &[i32]| -> Vec<u8> {
        let head = [dimensions.len() as i32, 0, 23];
        let dimensions = dimensions.iter().flat_map(|(length, low)| [*length, *low]);
        head.into_iter().chain(dimensions).chain(rest.iter().copied()).flat_map(i32::to_be_bytes).collect()
    };
    for bytes in [
        head(&[(i32::MAX, 1)], &[]),
        head(&[(i32::MAX, 1); 6], &[-1]),
        head(&[(0, 1)], &[]),
        head(&[(-1, 1)], &[]),
        head(&[(2, 1)], &[-1]),
        head(&[(1, 1)], &[-2]),
        head(&[(1, 1)], &[4]),
        head(&[(1, 1)], &[-1, 0]),
        head(&[(1, 1); 7], &[-1]),
        vec![0xff; 12],
        vec![0; 11],
    ] {
        let message = message(b'I', &[(b'N', &[Sent::Binary(&bytes)])]);
        assert_eq!(encode(&raw(&single(ints.clone()), Format::PgOutput, &[message])).unwrap_err().code.id, "DEC0003", "{bytes:?}");
    }
}

fn any_form(bytes: &[u8]) {
    for ty in every_family() {
        for sent in [Sent::Text(bytes), Sent::Binary(bytes)] {
            let message = message(b'I', &[(b'N', &[sent])]);
            if let Ok(batches) = encode(&raw(&single(ty.clone()), Format::PgOutput, &[message])) {
                assert_eq!(batches.iter().map(crate::contract::RowBatch::len).sum::<usize>(), 1);
            }
        }
    }
}

proptest! {
    #[test]
    fn no_value_panics(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        any_form(&bytes);
    }

    #[test]
    fn no_near_value_panics(text in "[-+{}\\[\\]\",.:\\\\0-9eENaTn \u{e9}]{0,40}") {
        any_form(text.as_bytes());
    }

    #[test]
    fn no_near_binary_panics(words in prop::collection::vec(prop::sample::select(vec![0_i16, 1, 2, 3, -1, 0x4000, 9999, i16::MAX, i16::MIN]), 0..24)) {
        any_form(&words.iter().flat_map(|w| w.to_be_bytes()).collect::<Vec<u8>>());
    }
}
