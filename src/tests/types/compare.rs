//! PostgreSQL's judgement: what arrived, cast to the columns' types, is what the source has.

use crate::types::arrived::Lines;
use crate::types::columns::{Column, Compare};
use tokio_postgres::Client;

/// Puts what arrived into `got`, and makes of each row the source's row type: its first line, then its last over it,
/// exact texts over both.
pub(crate) async fn load(client: &Client, table: &str, rows: impl IntoIterator<Item = Lines>) {
    client.batch_execute("DROP TABLE IF EXISTS got; CREATE TEMP TABLE got (first json, last json)").await.unwrap();
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for lines in rows {
        first.push(lines[0].clone());
        last.push(lines[lines.len() - 1].clone());
    }
    let sql = "INSERT INTO got SELECT f::json, l::json FROM unnest($1::text[], $2::text[]) AS r(f, l)";
    client.execute(sql, &[&first, &last]).await.unwrap_or_else(|e| panic!("{table}: what arrived is not JSON: {e:?}"));
}

/// The rows of `got` as `back`, each of the table's type.
pub(crate) fn back(table: &str) -> String {
    let exact = |line: &str| format!("COALESCE({line} -> '_etl_exact', '{{}}')");
    format!(
        "got g, LATERAL json_populate_record(NULL::{table}, g.first) a, LATERAL json_populate_record(a, {}) b,
         LATERAL json_populate_record(b, g.last) c, LATERAL json_populate_record(c, {}) back",
        exact("g.first"),
        exact("g.last")
    )
}

/// The arrived document of a column: null only when nothing says that it is JSON's null.
fn document(name: &str) -> String {
    format!(
        "CASE WHEN g.last -> '_etl_exact' ->> '{name}' IS NOT NULL THEN g.last -> '_etl_exact' ->> '{name}'
         WHEN json_typeof(g.last -> '{name}') = 'null' THEN NULL ELSE (g.last -> '{name}')::text END"
    )
}

/// A column's text in the source, and of what came back.
fn texts(column: &Column) -> (String, String) {
    let name = &column.name;
    match column.compare {
        Compare::Text => (format!("format('%L', s.{name})"), format!("format('%L', back.{name})")),
        Compare::Document => (format!("translate(s.{name}::text, E'\\n\\r\\t', '   ')"), document(name)),
        Compare::Documents => {
            let both = |row: &str| format!("to_jsonb({row}.{name})::text || COALESCE(array_dims({row}.{name}), '')");
            (both("s"), both("back"))
        }
    }
}

/// What differs, as `id column: source is not arrived`.
pub(crate) async fn differences(client: &Client, table: &str, columns: &[Column]) -> Vec<String> {
    let pairs: Vec<String> = columns
        .iter()
        .map(|column| {
            let (source, arrived) = texts(column);
            format!("('{} {}', {source}, {arrived})", column.name, column.ty.replace('\'', "''"))
        })
        .collect();
    let sql = format!(
        "SELECT s.id::text, v.name, v.source, v.arrived FROM {table} s, {}, LATERAL (VALUES ('n', s.n::text, back.n::text), {}) v(name, source, arrived)
         WHERE back.id = s.id AND v.source IS DISTINCT FROM v.arrived ORDER BY s.id",
        back(table),
        pairs.join(", ")
    );
    let rows = client.query(&sql, &[]).await.unwrap_or_else(|e| panic!("{table}: what arrived is not of its type: {e:?}"));
    let mut found: Vec<String> = rows
        .iter()
        .map(|row| {
            let text = |at: usize| row.get::<_, Option<String>>(at).map_or("∅".into(), |t| t.chars().take(200).collect::<String>());
            format!("{table} {} {}: {} is not {}", text(0), text(1), text(2), text(3))
        })
        .collect();
    let sql = format!(
        "SELECT s.id::text, back.id::text FROM {table} s FULL JOIN (SELECT back.id FROM {}) back ON back.id = s.id WHERE s.id IS NULL OR back.id IS NULL",
        back(table)
    );
    for row in client.query(&sql, &[]).await.unwrap() {
        let id = |at: usize| row.get::<_, Option<String>>(at).unwrap_or("no row".into());
        found.push(format!("{table}: {} is not {}", id(0), id(1)));
    }
    found
}

/// A key that came back: a document's is not read by `json_populate_record` where it is null.
pub(crate) fn key(ty: &str) -> String {
    if ty == "jsonb" { format!("({})::jsonb", document("k")) } else { "back.k".into() }
}
