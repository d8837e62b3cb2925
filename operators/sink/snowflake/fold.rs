//! The two forms of a segment's `MERGE`.
//!
//! The plain one takes each key's latest row. The folding one is for segments in which PostgreSQL left
//! unchanged values out: for each such column it finds the row that sent the value last.
//!
//! ```text
//! r   the segment's rows, with the token of the row before each (of any key)
//! g   + which life of its key a row belongs to: lives begin at r or i and end at d; 0 began earlier
//! w   + for each folded column, the token of the row of that life that sent it last; the life's beginning
//! f   + the value, and its exact text, of that row
//! s   the last row of each key, joined with
//! d   the old key's delete, where the life began by a changed key, and
//! o   the target's row: of the key for life 0, of the old key for a changed one
//! m   the values; m0, m1, … their exact texts, put into one object
//! ```
//! A delete is the last row of its life and sends nothing, so it carries what the row held: what a changed
//! key goes on with, and what a soft delete keeps.
//!
//! # Guarantees
//! A value that was not sent is found, or the statement fails: a row that the target does not hold, or holds
//! only as deleted, says nothing about it. `MERGE` has no way to refuse a row, so a number is read from
//! [`UNKNOWN`] for such a row, which fails and says why.

use super::merge::MergeTable;
use super::names::quote;
use super::sql::literal;
use crate::contract::Token;
use std::fmt::Write;

/// What Snowflake says it could not read as a number when a value that was not sent is not known.
pub(super) const UNKNOWN: &str = "a value that was not sent is not known";

fn list(names: impl IntoIterator<Item = impl AsRef<str>>, write: impl Fn(&str) -> String, between: &str) -> String {
    let parts: Vec<String> = names.into_iter().map(|name| write(name.as_ref())).collect();
    parts.join(between)
}

/// The key's exact text that a row has of a column.
fn exact_text(object: &str, column: &str) -> String {
    format!("GET({object}, {})::VARCHAR", literal(column))
}

/// What tells keys apart: the key's columns, and the exact text of those that may not hold their value.
fn key_of(table: &MergeTable) -> String {
    let exact = list(&table.beyond, |c| format!(", {}", exact_text("\"_ETL_EXACT\"", c)), "");
    list(&table.key, quote, ", ") + &exact
}

/// Whether the key of row `t` is the one that `value` and, as an object of exact texts, `exact` say.
pub(super) fn same_key(table: &MergeTable, t: &str, value: impl Fn(&str) -> String, exact: &str) -> String {
    let equal = |c: &str| {
        let (own, wanted) = (format!("{t}.{}", quote(c)), value(&quote(c)));
        if table.beyond.iter().any(|beyond| beyond == c) {
            let (own_text, text) = (exact_text(&format!("{t}.\"_ETL_EXACT\""), c), exact_text(exact, c));
            format!("{own} IS NOT DISTINCT FROM {wanted} AND {own_text} IS NOT DISTINCT FROM {text}")
        } else {
            format!("{own} = {wanted}")
        }
    };
    list(&table.key, equal, " AND ")
}

/// The clauses after `ON`. `values` gives a column's value and `exact` that of `_ETL_EXACT`.
fn clauses(table: &MergeTable, exact: &str) -> String {
    let all: Vec<&String> = table.key.iter().chain(&table.values).collect();
    let columns = list(&all, quote, ", ");
    let values = list(&all, |c| format!("s.{}", quote(c)), ", ");
    let set = list(&table.values, |c| format!("{0} = s.{0}, ", quote(c)), "");
    if table.soft {
        format!(
            "WHEN MATCHED AND s.\"_OP\" = 'd' THEN UPDATE SET \"_ETL_SEQ\" = s.\"_last\", \"_ETL_DELETED\" = TRUE \
             WHEN MATCHED THEN UPDATE SET {set}\"_ETL_SEQ\" = s.\"_last\", \"_ETL_DELETED\" = s.\"_gone\", \"_ETL_EXACT\" = {exact} \
             WHEN NOT MATCHED AND s.\"_OP\" <> 'd' THEN INSERT ({columns}, \"_ETL_SEQ\", \"_ETL_DELETED\", \"_ETL_EXACT\") \
             VALUES ({values}, s.\"_last\", s.\"_gone\", {exact})"
        )
    } else {
        format!(
            "WHEN MATCHED AND s.\"_OP\" = 'd' THEN DELETE \
             WHEN MATCHED THEN UPDATE SET {set}\"_ETL_SEQ\" = s.\"_SEQ\", \"_ETL_EXACT\" = {exact} \
             WHEN NOT MATCHED AND s.\"_OP\" <> 'd' THEN INSERT ({columns}, \"_ETL_SEQ\", \"_ETL_EXACT\") \
             VALUES ({values}, s.\"_SEQ\", {exact})"
        )
    }
}

/// The row's token, or the statement's failure when one of its values is not known.
fn known(table: &MergeTable, folded: usize) -> String {
    let unsent = (0..folded).map(|at| format!("(s.\"_at{at}\" IS NULL AND d.\"_at{at}\" IS NULL)"));
    let unsent = unsent.collect::<Vec<_>>().join(" OR ");
    // A row has its token. One that is marked as deleted may have changed since, unseen by this sink.
    let (absent, stays) = if table.soft {
        ("(o.\"_ETL_SEQ\" IS NULL OR COALESCE(o.\"_ETL_DELETED\", FALSE))", "(s.\"_OP\" <> 'd' OR s.\"_rows\" > 1)")
    } else {
        ("o.\"_ETL_SEQ\" IS NULL", "s.\"_OP\" <> 'd'")
    };
    format!("IFF(IFF({stays} AND {absent} AND ({unsent}), {}, '0')::NUMBER(38,0) = 0, s.\"_SEQ\", NULL)", literal(UNKNOWN))
}

/// Each key's latest row. With soft deletes: its latest row that has values, and whether it is gone.
pub(super) fn plain(table: &MergeTable, bounds: (Token, Token), from: Token) -> String {
    let key = key_of(table);
    let on = same_key(table, "t", |c| format!("s.{c}"), "s.\"_ETL_EXACT\"");
    let (landing, rows) = (table.landing.sql(), table.rows(bounds, from));
    let source = if table.soft {
        format!(
            "SELECT l.*, MAX(\"_SEQ\") OVER (PARTITION BY {key}) AS \"_last\", \
             FIRST_VALUE(\"_OP\") OVER (PARTITION BY {key} ORDER BY \"_SEQ\" DESC) = 'd' AS \"_gone\" \
             FROM {landing} AS l WHERE {rows} \
             QUALIFY ROW_NUMBER() OVER (PARTITION BY {key} ORDER BY IFF(\"_OP\" = 'd', 1, 0), \"_SEQ\" DESC) = 1"
        )
    } else {
        format!("SELECT l.* FROM {landing} AS l WHERE {rows} QUALIFY ROW_NUMBER() OVER (PARTITION BY {key} ORDER BY \"_SEQ\" DESC) = 1")
    };
    format!("MERGE INTO {} AS t USING ({source}) AS s ON {on} {}", table.target.sql(), clauses(table, "s.\"_ETL_EXACT\""))
}

/// Each key's latest state, with `folded` columns taken from wherever they were sent last. `strict`: a value that
/// is not known fails the statement; else it is null, for rows that a snapshot replaces in the same merge.
pub(super) fn folding(table: &MergeTable, folded: &[&String], bounds: (Token, Token), from: Token, strict: bool) -> String {
    let key = key_of(table);
    let on = same_key(table, "t", |c| format!("s.{c}"), "s.\"_ETL_EXACT\"");
    let so_far = format!("OVER (PARTITION BY {key} ORDER BY \"_SEQ\" ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)");
    let life = format!("PARTITION BY {key}, \"_life\"");
    let mut sql = format!("MERGE INTO {} AS t USING (WITH r AS (", table.target.sql());
    let _ = write!(
        sql,
        "SELECT l.*, LAG(\"_SEQ\") OVER (ORDER BY \"_SEQ\") AS \"_before\" FROM {} AS l WHERE {}), ",
        table.landing.sql(),
        table.rows(bounds, from)
    );
    let _ = write!(
        sql,
        "g AS (SELECT r.*, SUM(IFF(\"_OP\" IN ('r', 'i'), 1, 0)) {so_far} + SUM(IFF(\"_OP\" = 'd', 1, 0)) {so_far} \
         - IFF(\"_OP\" = 'd', 1, 0) AS \"_life\" FROM r), "
    );
    let mut sent = String::new();
    let mut value = String::new();
    for (at, column) in folded.iter().enumerate() {
        let _ = write!(
            sent,
            ", MAX(IFF(\"_OP\" = 'd' OR COALESCE(ARRAY_CONTAINS({}::VARIANT, \"_UNCHANGED\"), FALSE), NULL, \"_SEQ\")) \
             OVER ({life} ORDER BY \"_SEQ\" ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS \"_at{at}\"",
            literal(column)
        );
        let row = format!("OVER ({life}, \"_at{at}\" ORDER BY \"_SEQ\")");
        let _ = write!(
            value,
            ", FIRST_VALUE({}) {row} AS \"_v{at}\", GET(FIRST_VALUE(\"_ETL_EXACT\") {row}, {}) AS \"_e{at}\"",
            quote(column),
            literal(column)
        );
    }
    let _ = write!(
        sql,
        "w AS (SELECT g.*, FIRST_VALUE(\"_before\") OVER ({life} ORDER BY \"_SEQ\") AS \"_parent\", \
         FIRST_VALUE(\"_OP\") OVER ({life} ORDER BY \"_SEQ\") AS \"_began\"{sent} FROM g), f AS (SELECT w.*{value} FROM w), "
    );
    let seq = if strict { known(table, folded.len()) } else { "s.\"_SEQ\"".to_owned() };
    // With soft deletes a delete that follows rows of this segment keeps their values.
    let (last, op) = if table.soft {
        // A life that ended: its last row with values stands for it, as an update that is gone.
        (format!("{seq} AS \"_last\", s.\"_OP\" = 'd' AS \"_gone\""), "IFF(s.\"_OP\" = 'd' AND s.\"_rows\" > 1, 'u', s.\"_OP\") AS \"_OP\"")
    } else {
        (format!("{seq} AS \"_SEQ\""), "s.\"_OP\"")
    };
    let _ = write!(
        sql,
        "s AS (SELECT f.*, COUNT(*) OVER ({life}) AS \"_rows\" FROM f QUALIFY ROW_NUMBER() OVER (PARTITION BY {key} ORDER BY \"_SEQ\" DESC) = 1)"
    );
    let columns = list(&table.key, |c| format!("s.{}", quote(c)), ", ");
    let _ = write!(sql, ", m AS (SELECT {columns}, {op}, {last}, s.\"_ETL_EXACT\"");
    for column in &table.values {
        let name = quote(column);
        match folded.iter().position(|c| *c == column) {
            Some(at) => {
                let _ = write!(
                    sql,
                    ", CASE WHEN s.\"_at{at}\" IS NOT NULL THEN s.\"_v{at}\" WHEN d.\"_at{at}\" IS NOT NULL THEN d.\"_v{at}\" ELSE o.{name} END AS {name}, \
                     CASE WHEN s.\"_at{at}\" IS NOT NULL THEN s.\"_e{at}\" WHEN d.\"_at{at}\" IS NOT NULL THEN d.\"_e{at}\" \
                     ELSE GET(o.\"_ETL_EXACT\", {}) END AS \"_x{at}\"",
                    literal(column)
                );
            }
            None => {
                let _ = write!(sql, ", s.{name}");
            }
        }
    }
    let old = |c: &str| format!("IFF(s.\"_life\" = 0, s.{c}, d.{c})");
    let old_key = same_key(table, "o", old, &old("\"_ETL_EXACT\""));
    let _ = write!(
        sql,
        " FROM s LEFT JOIN f AS d ON d.\"_SEQ\" = s.\"_parent\" AND d.\"_OP\" = 'd' AND s.\"_life\" > 0 AND s.\"_began\" = 'i' \
         LEFT JOIN {} AS o ON {old_key} AND (s.\"_life\" = 0 OR d.\"_life\" = 0))",
        table.target.sql()
    );
    // The exact texts of the folded columns join the latest row's own, one column after the other.
    let (mut step, mut exact) = ("m".to_owned(), "\"_ETL_EXACT\"".to_owned());
    for (at, column) in folded.iter().enumerate() {
        let _ = write!(
            sql,
            ", m{at} AS (SELECT {step}.*, IFF(\"_x{at}\" IS NULL, {exact}, \
             OBJECT_INSERT(COALESCE({exact}, OBJECT_CONSTRUCT()), {}, \"_x{at}\", TRUE)) AS \"_m{at}\" FROM {step})",
            literal(column)
        );
        (step, exact) = (format!("m{at}"), format!("\"_m{at}\""));
    }
    let _ = write!(sql, " SELECT * FROM {step}) AS s ON {on} ");
    sql.push_str(&clauses(table, &format!("s.{exact}")));
    sql
}
