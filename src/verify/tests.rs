//! Folding histories and comparing rows.

use super::rows::{Compared, Rows};
use etl_stream_operators::contract::{Column, ColumnType, Lsn, PgType, ReplicaIdentity, TableSchema};

/// A table of `id` (its key), `v`, and `w`, which came later with a default.
fn table() -> TableSchema {
    let column = |name: &str, key: Option<u16>, missing: Option<&str>| Column {
        name: name.into(),
        ty: ColumnType::Text,
        pg_type: PgType { oid: 25, modifier: -1, name: "text".into() },
        nullable: true,
        key,
        missing: missing.map(Into::into),
        number: None,
        filled: false,
    };
    TableSchema {
        source: "s".into(),
        id: 1,
        schema: "p".into(),
        name: "t".into(),
        columns: vec![column("id", Some(0), None), column("v", None, None), column("w", None, Some("d"))],
        identity: ReplicaIdentity::Default,
        storage: None,
    }
}

fn line(op: char, lsn: u64, rest: &str) -> String {
    format!("{{\"_op\":\"{op}\",\"_seq\":\"{lsn:016x}/0000000000000000\",\"_commit_ts\":\"x\"{rest}}}\n")
}

fn source(lines: &[&str]) -> Rows {
    let mut rows = Rows::new(&table(), true);
    lines.iter().for_each(|rest| rows.add(&table(), line('r', 1, rest).as_bytes()).unwrap());
    rows
}

fn history(lines: &[(char, u64, &str)]) -> Rows {
    let mut rows = Rows::new(&table(), true);
    lines.iter().for_each(|(op, lsn, rest)| rows.change(&table(), line(*op, *lsn, rest).as_bytes(), Lsn(100)).unwrap());
    rows
}

fn compare(source: Rows, sink: Rows) -> Compared {
    source.compare(sink, &table(), 10)
}

fn counts(found: &Compared) -> (u64, u64, u64) {
    (found.missing, found.extra, found.differing)
}

const A: &str = r#","id":1,"v":"a","w":null"#;

#[test]
fn histories_are_folded_up_to_the_point() {
    let long = r#","_unchanged":["v"],"id":1,"w":"x""#;
    let moved = r#","_unchanged":["v"],"id":2,"w":null"#;
    for (what, here, there, expected) in [
        ("same", vec![A], vec![('r', 5, A)], (0, 0, 0)),
        ("updated", vec![r#","id":1,"v":"b","w":null"#], vec![('r', 5, A), ('u', 6, r#","id":1,"v":"b","w":null"#)], (0, 0, 0)),
        ("not updated", vec![r#","id":1,"v":"b","w":null"#], vec![('r', 5, A)], (0, 0, 1)),
        ("deleted", vec![], vec![('i', 5, A), ('d', 6, r#","id":1,"v":null,"w":null"#)], (0, 0, 0)),
        ("truncated", vec![], vec![('i', 5, A), ('t', 6, r#","id":null"#)], (0, 0, 0)),
        ("missing", vec![A], vec![], (1, 0, 0)),
        ("extra", vec![], vec![('i', 5, A)], (0, 1, 0)),
        ("after the point", vec![A], vec![('r', 5, A), ('d', 100, r#","id":1"#), ('i', 100, r#","id":2"#)], (0, 0, 0)),
        ("just before it", vec![], vec![('r', 5, A), ('d', 99, r#","id":1"#)], (0, 0, 0)),
        ("copied anew", vec![A], vec![('r', 5, r#","id":9"#), ('i', 6, r#","id":8"#), ('r', 7, A)], (0, 0, 0)),
        ("unchanged", vec![r#","id":1,"v":"a","w":"x""#], vec![('r', 5, A), ('u', 6, long)], (0, 0, 0)),
        (
            "unchanged, its key moved",
            vec![r#","id":2,"v":"a","w":null"#],
            vec![('r', 5, A), ('d', 6, r#","id":1"#), ('i', 6, moved)],
            (0, 0, 0),
        ),
        ("unchanged, never told", vec![r#","id":2,"v":"a","w":null"#], vec![('u', 6, moved)], (0, 0, 1)),
        ("a column that came later, with a default", vec![r#","id":1,"v":"a","w":"d""#], vec![('r', 5, r#","id":1,"v":"a""#)], (0, 0, 0)),
        ("a column that came later, without", vec![r#","id":1,"v":"a","w":null"#], vec![('r', 5, r#","id":1,"w":null"#)], (0, 0, 1)),
        ("a column that went", vec![A], vec![('r', 5, r#","gone":1,"id":1,"v":"a","w":null"#)], (0, 0, 0)),
        ("another order", vec![A], vec![('r', 5, r#","w":null,"v":"a","id":1"#)], (0, 0, 0)),
        ("a string is no number", vec![A], vec![('r', 5, r#","id":"1","v":"a","w":null"#)], (1, 1, 0)),
    ] {
        let found = compare(source(&here), history(&there));
        assert_eq!(counts(&found), expected, "{what}");
        assert_eq!(found.equal(), expected == (0, 0, 0), "{what}");
        assert_eq!(
            found.equal() && !what.contains("default"),
            found.source.checksum == found.sink.checksum && !what.contains("default"),
            "{what}"
        );
    }
}

#[test]
fn rows_that_changed_since_the_point_are_left_out() {
    let mut sink = Rows::new(&table(), true);
    for (op, lsn, rest) in [
        ('r', 5, A),
        ('r', 100, r#","id":2,"v":"new","w":null"#),
        ('d', 101, r#","id":3"#),
        ('r', 7, r#","id":4,"v":"wrong","w":null"#),
        ('i', 102, r#","id":5"#),
    ] {
        sink.current(&table(), line(op, lsn, rest).as_bytes(), Lsn(100)).unwrap();
    }
    let here = source(&[A, r#","id":2,"v":"old","w":null"#, r#","id":3,"v":"x","w":null"#, r#","id":4,"v":"y","w":null"#]);
    let found = compare(here, sink);
    assert_eq!((counts(&found), found.touched, found.source.rows, found.sink.rows), ((0, 0, 1), 2, 2, 2));
    assert_eq!((found.keys.as_slice(), found.columns.get("v")), (["4: differs".to_owned()].as_slice(), Some(&1)));
    assert_eq!(found.buckets.values().sum::<u64>(), 1);
    let mut emptied = Rows::new(&table(), false);
    emptied.current(&table(), line('t', 101, "").as_bytes(), Lsn(100)).unwrap();
    let found = compare(source(&[A]), emptied);
    assert_eq!((counts(&found), found.touched), ((0, 0, 0), 1));
}

#[test]
fn keys_are_kept_only_to_be_shown() {
    let mut quiet = Rows::new(&table(), false);
    quiet.add(&table(), line('r', 1, A).as_bytes()).unwrap();
    assert!(!format!("{quiet:?}").contains("\"1\""));
    let found = quiet.compare(history(&[]), &table(), 0);
    assert_eq!((counts(&found), found.keys.len()), ((1, 0, 0), 0));
    assert_eq!(history(&[]).change(&table(), b"{\"_op\":\"i\"}", Lsn(1)).unwrap_err().code.id, "RUN0034");
}
