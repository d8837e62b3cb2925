//! Tables of all the types: their columns, the rows that fill them, and how a column is compared.

use crate::types::table::{BASES, Case, EXTENSIONS, MADE, MODIFIED, SETUP, WITHOUT_DOMAINS};
use tokio_postgres::Client;

/// Columns of one table; a statement over 100 columns is slow in the local Snowflake.
const WIDTH: usize = 45;

/// How a column's arrived values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    /// Cast to the type, the output function's texts are the same.
    Text,
    /// A document: its text is the same, but for line breaks.
    Document,
    /// An array of documents: the documents and the dimensions are the same.
    Documents,
}

/// A column and its values as SQL expressions.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: String,
    /// Its type, as in `CREATE TABLE`.
    pub(crate) ty: String,
    /// The type that `docs/types.md` has a row for.
    pub(crate) documented: String,
    values: Vec<String>,
    /// How it is compared.
    pub(crate) compare: Compare,
}

/// A table of types.
#[derive(Debug)]
pub(crate) struct Table {
    /// Its name, in `public`.
    pub(crate) name: String,
    /// Its columns beside `id` and `n`.
    pub(crate) columns: Vec<Column>,
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The texts of arrays of a type: with nulls, empty, of more dimensions, with lower bounds other than 1.
fn arrays(ty: &str, values: &[&str]) -> Vec<String> {
    let delimiter = if ty == "box" { ";" } else { "," };
    let quoted: Vec<String> = values.iter().map(|v| format!("\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\""))).collect();
    let (first, last) = (&quoted[0], &quoted[quoted.len() - 1]);
    vec![
        format!("{{{}{delimiter}NULL}}", quoted.join(delimiter)),
        "{}".into(),
        "{NULL}".into(),
        format!("{{{{{first}{delimiter}NULL}}{delimiter}{{{last}{delimiter}{first}}}}}"),
        format!("[0:1]={{{first}{delimiter}{last}}}"),
        format!("[-1:-1][2:3][0:0]={{{{{{{first}}}{delimiter}{{{last}}}}}}}"),
    ]
}

/// Whether the server has a type: versions and builds differ.
async fn has(client: &Client, (ty, values): &Case) -> bool {
    let known = client.batch_execute(&format!("SELECT {}::{ty}", literal(values[0]))).await;
    if let Err(error) = &known {
        let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
        // undefined_object, undefined_table for a name that is none, feature_not_supported for a build without XML
        assert!(["42704", "42P01", "0A000"].contains(&code.as_str()), "{ty}: {error:?}");
        println!("skipped: this server has no {ty}");
    }
    known.is_ok()
}

/// Makes the types, and says what to make columns of: each type, its arrays, domains over it, arrays of those and
/// domains over those; then composites of everything.
pub(crate) async fn columns(client: &Client) -> Vec<Column> {
    client.batch_execute(SETUP).await.unwrap();
    for (extension, types) in EXTENSIONS {
        if client.batch_execute(&format!("CREATE EXTENSION {extension}")).await.is_err() {
            println!("skipped: no {extension}, so no {}", types.join(", "));
        }
    }
    let mut all = Vec::new();
    let mut attributes = Vec::new();
    let mut fields: Vec<Vec<String>> = vec![Vec::new(); 3];
    for (case, plain) in BASES.iter().chain(MADE).map(|case| (case, true)).chain(MODIFIED.iter().map(|case| (case, false))) {
        let (ty, values) = case;
        if !has(client, case).await {
            continue;
        }
        let mut values = values.to_vec();
        if *ty == "interval" && client.batch_execute("SELECT 'infinity'::interval").await.is_ok() {
            values.extend(["infinity", "-infinity"]);
        }
        // the one base type whose arrays have another delimiter than a comma
        let array = if *ty == "box" { "box[]" } else { "array" };
        let document = matches!(*ty, "json" | "jsonb");
        let (one, many) = if document { (Compare::Document, Compare::Documents) } else { (Compare::Text, Compare::Text) };
        let scalars: Vec<String> = values.iter().map(|v| literal(v)).collect();
        let arrays: Vec<String> = arrays(ty, &values).iter().map(|v| literal(v)).collect();
        let mut add = |declared: String, documented: String, values: &[String], compare| {
            all.push(Column { name: format!("c{}", all.len()), ty: declared, documented, values: values.to_vec(), compare });
        };
        add((*ty).into(), (*ty).into(), &scalars, one);
        add(format!("{ty}[]"), array.into(), &arrays, many);
        if plain && !WITHOUT_DOMAINS.contains(ty) {
            let at = attributes.len();
            client
                .batch_execute(&format!("CREATE DOMAIN d{at} AS {ty}; CREATE DOMAIN dd{at} AS d{at}; CREATE DOMAIN da{at} AS {ty}[]"))
                .await
                .unwrap();
            add(format!("dd{at}"), (*ty).into(), &scalars, one);
            add(format!("d{at}[]"), array.into(), &arrays, many);
            add(format!("da{at}"), array.into(), &arrays, many);
            attributes.push(format!("\"a {at}\" {ty}, \"b{at}\" {ty}[]"));
            for (at, fields) in fields.iter_mut().enumerate() {
                let value = |values: &[String]| values.get(at * 2 + 1).map_or("NULL".into(), Clone::clone);
                fields.extend([value(&scalars) + "::" + ty, value(&arrays) + "::" + ty + "[]"]);
            }
        }
    }
    client
        .batch_execute(&format!(
            "CREATE TYPE \"Odd schéma\".\"every, (type)\" AS ({}); CREATE TYPE nested AS (a int, \"inner\" \"Odd schéma\".\"every, (type)\", many \"Odd schéma\".\"every, (type)\"[], t text);
             CREATE DOMAIN over_nested AS nested",
            attributes.join(", ")
        ))
        .await
        .unwrap();
    let rows: Vec<String> = fields.iter().map(|fields| format!("ROW({})::\"Odd schéma\".\"every, (type)\"", fields.join(","))).collect();
    let nested: Vec<String> = rows
        .iter()
        .map(|row| format!("ROW(1, {row}, ARRAY[{row}, NULL], 'a\"b\\c,(d)')::nested"))
        .chain(["ROW(NULL,NULL,NULL,NULL)::nested".into()])
        .collect();
    let many = vec![format!("ARRAY[{}, NULL]", nested.join(",")), "'{}'".into(), format!("ARRAY[ARRAY[{}]]", nested[0])];
    let mut add = |ty: &str, documented: &str, values: &[String]| {
        let (name, ty, documented) = (format!("c{}", all.len()), ty.into(), documented.into());
        all.push(Column { name, ty, documented, values: values.to_vec(), compare: Compare::Text });
    };
    add("\"Odd schéma\".\"every, (type)\"", "composite", &rows);
    add("nested", "composite", &nested);
    add("nested[]", "array", &many);
    add("over_nested", "composite", &nested);
    all
}

/// Makes the tables and their rows 1, 2, …: each column's first value, its second, …, and a last row of nulls.
pub(crate) async fn tables(client: &Client) -> Vec<Table> {
    let mut tables = Vec::new();
    for (at, columns) in columns(client).await.chunks(WIDTH).enumerate() {
        let name = format!("t{at}");
        let declared: Vec<String> = columns.iter().map(|c| format!("{} {}", c.name, c.ty)).collect();
        client.batch_execute(&format!("CREATE TABLE {name} (id int PRIMARY KEY, n int, {})", declared.join(", "))).await.unwrap();
        let most = columns.iter().map(|c| c.values.len()).max().unwrap_or(0);
        for row in 0..=most {
            let values: Vec<String> =
                columns.iter().map(|c| c.values.get(row).map_or("NULL".into(), |v| format!("{v}::{}", c.ty))).collect();
            let sql = format!("INSERT INTO {name} VALUES ({}, 0, {})", row + 1, values.join(", "));
            if let Err(error) = client.batch_execute(&sql).await {
                for (column, value) in columns.iter().zip(&values) {
                    client.batch_execute(&format!("SELECT {value}")).await.unwrap_or_else(|e| panic!("{}: {value}: {e:?}", column.ty));
                }
                panic!("{name}: {error:?}");
            }
        }
        tables.push(Table { name, columns: columns.to_vec() });
    }
    tables
}
