//! The statements of a merge: landing rows in `(from, fence]` into the target, in one transaction.
//!
//! ```text
//! from ──────────┬──────────────┬───────────────── fence
//!      segment   │ t: clear     │ segment     progress.FENCE := fence
//! ```
//! A segment is one `MERGE`. The range is cut where one statement cannot tell what comes after what: at a
//! truncate, at a snapshot's begin, and where a row's key changes a second time and it still needs values
//! that only its first key's row has.
//!
//! # Guarantees
//! Whole transactions only. The outcome is the same however the log is cut into merges. Every statement
//! reads the landing table only while the progress row says `from`: a merge that was made already, here or by
//! another process, changes nothing. A value that PostgreSQL did not send and that no row holds fails the
//! merge, which then changes nothing; what a snapshot in the same merge replaces is not asked for.

use super::fold::{folding, plain, same_key};
use super::ledger::{Ledger, just_before};
use super::names::{TableName, quote};
use super::progress::{ProgressKey, lsn_text};
use super::sql::literal;
use crate::contract::Token;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A table to merge.
#[derive(Clone, Debug)]
pub(super) struct MergeTable {
    /// Where rows go.
    pub(super) target: TableName,
    /// Where they come from.
    pub(super) landing: TableName,
    /// The bookkeeping table.
    pub(super) progress: TableName,
    /// The bookkeeping row.
    pub(super) row: ProgressKey,
    /// Stored names of the key's columns.
    pub(super) key: Vec<String>,
    /// Those of the key's columns whose value may stand in `_ETL_EXACT`: they are compared by both.
    pub(super) beyond: Vec<String>,
    /// Stored names of the other columns.
    pub(super) values: Vec<String>,
    /// Whether deleted rows stay, marked.
    pub(super) soft: bool,
    /// Merges one key alone: that of the row with this token.
    pub(super) only: Option<Token>,
    /// Whether the table has dead letters: a value that is not known may then be one of theirs.
    pub(super) letters: Arc<AtomicBool>,
}

impl MergeTable {
    /// Holds while everything up to `from`, and nothing more, is merged.
    pub(super) fn guard(&self, from: Token) -> String {
        format!(
            "EXISTS (SELECT 1 FROM {} WHERE {} AND \"FENCE\" = {})",
            self.progress.sql(),
            self.row.condition(),
            literal(&from.to_string())
        )
    }

    /// The landing rows of a segment: after `low` up to `high`, under the guard.
    pub(super) fn rows(&self, (low, high): (Token, Token), from: Token) -> String {
        let only = self.only.map_or_else(String::new, |token| {
            let key = same_key(self, "k", |c| format!("l.{c}"), "l.\"_ETL_EXACT\"");
            format!(" AND EXISTS (SELECT 1 FROM {} AS k WHERE k.\"_SEQ\" = {} AND {key})", self.landing.sql(), literal(&token.to_string()))
        });
        format!(
            "\"_SEQ\" > {} AND \"_SEQ\" <= {} AND \"_OP\" <> 't' AND {}{only}",
            literal(&low.to_string()),
            literal(&high.to_string()),
            self.guard(from)
        )
    }

    /// Empties the target, or marks all its rows, as of a token.
    fn clear(&self, at: Token, from: Token) -> String {
        let target = self.target.sql();
        let guard = self.guard(from);
        if self.soft {
            format!(
                "UPDATE {target} SET \"_ETL_DELETED\" = TRUE, \"_ETL_SEQ\" = {} WHERE NOT COALESCE(\"_ETL_DELETED\", FALSE) AND {guard}",
                literal(&at.to_string())
            )
        } else {
            format!("DELETE FROM {target} WHERE {guard}")
        }
    }
}

/// What a merge is asked to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    /// Merged up to here.
    pub(super) from: Token,
    /// To be merged up to here.
    pub(super) fence: Token,
    /// The LSN of the table's last snapshot.
    pub(super) snapshot: Option<u64>,
    /// Whether landing rows are deleted once merged.
    pub(super) delete_landed: bool,
}

/// The statements between `BEGIN` and `COMMIT`; the last one moves the fence and touches one row.
pub(super) fn statements(table: &MergeTable, ledger: &Ledger, range: Range) -> Vec<String> {
    let Range { from, fence, snapshot, delete_landed } = range;
    // Until they are replayed, what only a dead letter says is null.
    let strict = !table.letters.load(Ordering::Acquire);
    // A snapshot's rows replace all that was there: it begins like a truncate, just before its first row.
    let begins = snapshot.map(|lsn| just_before(Token::new(lsn, 0))).filter(|at| *at >= from && *at < fence);
    let mut clears = ledger.truncates(from, fence);
    clears.extend(begins.filter(|at| !table.soft || *at > Token::ZERO));
    clears.sort_unstable();
    let mut all = Vec::new();
    let mut low = from;
    if table.soft {
        for at in clears {
            if begins == Some(at) {
                // Rows that the snapshot has again must not be marked for a moment and lose their values.
                segments(table, ledger, (low, at), (from, false), &mut all);
            } else {
                // What a snapshot in this merge replaces is not asked for.
                let strict = strict && begins.is_none_or(|begins| at > begins);
                segments(table, ledger, (low, just_before(at)), (from, strict), &mut all);
                all.push(table.clear(at, from));
            }
            low = at;
        }
    } else if let Some(last) = clears.last() {
        all.push(table.clear(*last, from));
        low = *last;
    }
    segments(table, ledger, (low, fence), (from, strict), &mut all);
    if table.soft
        && let Some((at, lsn)) = begins.zip(snapshot)
    {
        // What the snapshot did not have again is gone.
        all.push(format!("{} AND \"_ETL_SEQ\" <= {}", table.clear(Token::new(lsn, 0), from), literal(&at.to_string())));
    }
    if delete_landed {
        all.push(format!(
            "DELETE FROM {} WHERE \"_SEQ\" <= {} AND {}",
            table.landing.sql(),
            literal(&fence.to_string()),
            table.guard(from)
        ));
    }
    all.push(format!(
        "UPDATE {} SET \"FENCE\" = {}, \"UPDATED_AT\" = CURRENT_TIMESTAMP() WHERE {} AND \"FENCE\" = {}",
        table.progress.sql(),
        literal(&fence.to_string()),
        table.row.condition(),
        literal(&from.to_string())
    ));
    all
}

/// Merges `(low, high]` by one statement, or by more where moves are chained. `how`: where the merge starts, and
/// whether a value that is not known fails it.
fn segments(table: &MergeTable, ledger: &Ledger, (mut low, high): (Token, Token), how: (Token, bool), all: &mut Vec<String>) {
    let mut arrived: HashSet<u64> = HashSet::new();
    // Hashes of what an earlier process saw are not known: after such a move every move may be chained.
    let mut blind = false;
    for moved in ledger.moves(low, high) {
        let chained = blind || arrived.contains(&moved.from) || (!moved.hashed && !arrived.is_empty());
        if chained {
            let cut = just_before(moved.delete);
            segment(table, ledger, (low, cut), how, all);
            low = cut;
            arrived.clear();
        }
        arrived.insert(moved.to);
        blind = !moved.hashed;
    }
    segment(table, ledger, (low, high), how, all);
}

fn segment(table: &MergeTable, ledger: &Ledger, bounds: (Token, Token), (from, strict): (Token, bool), all: &mut Vec<String>) {
    if bounds.0 >= bounds.1 {
        return;
    }
    let unchanged = ledger.unchanged(bounds.0, bounds.1);
    if !table.values.iter().any(|name| unchanged.contains(name)) {
        return all.push(plain(table, bounds, from));
    }
    // A soft delete keeps every value of the row, so every column is looked for there.
    let folded: Vec<&String> = table.values.iter().filter(|name| table.soft || unchanged.contains(name)).collect();
    all.push(folding(table, &folded, bounds, from, strict));
}

/// Deletes what an unfinished snapshot at `old` left, and begins the one at `new`. All that landed from `old` on
/// goes, changes that came with it too: the new one has it all. The target has nothing of an attempt that did not
/// end; what it has of one that ended here, though the source did not note it, stays until the new one replaces it.
pub(super) fn restart_snapshot(table: &MergeTable, old: Option<u64>, new: u64, values: &[(&str, String)]) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(old) = old {
        let (first, next) = (literal(&Token::new(old, 0).to_string()), literal(&Token::new(new, 0).to_string()));
        all.push(format!("DELETE FROM {} WHERE \"_SEQ\" >= {first} AND \"_SEQ\" < {next}", table.landing.sql()));
    }
    let mut set = format!("\"SNAPSHOT_LSN\" = {}, \"SNAPSHOT_DONE\" = FALSE", literal(&lsn_text(new)));
    for (column, value) in values {
        set.push_str(&format!(", {} = {value}", quote(column)));
    }
    all.push(format!("UPDATE {} SET {set}, \"UPDATED_AT\" = CURRENT_TIMESTAMP() WHERE {}", table.progress.sql(), table.row.condition()));
    all
}

#[cfg(test)]
mod tests {
    use super::super::ledger::Move;
    use super::*;

    fn table(soft: bool) -> MergeTable {
        let name = |table: &str| TableName { database: "D".into(), schema: "S".into(), table: table.into() };
        let row = ProgressKey { pipeline: "p".into(), source: "s".into(), schema: "public".into(), table: "t".into() };
        let (key, values) = (vec!["ID".into()], vec!["A".into(), "n".into()]);
        MergeTable {
            target: name("T"),
            landing: name("T__CHANGES"),
            progress: name("P"),
            row,
            key,
            beyond: Vec::new(),
            values,
            soft,
            only: None,
            letters: Arc::default(),
        }
    }

    fn t(ordinal: u64) -> Token {
        Token::new(1, ordinal)
    }

    /// What each statement does, in a word.
    fn kinds(all: &[String]) -> Vec<&'static str> {
        let kind = |sql: &String| match sql {
            sql if sql.starts_with("MERGE") && sql.contains("WITH r AS") => "fold",
            sql if sql.starts_with("MERGE") => "merge",
            sql if sql.starts_with("DELETE FROM \"D\".\"S\".\"T\" ") => "empty",
            sql if sql.starts_with("DELETE FROM \"D\".\"S\".\"T__CHANGES\"") => "delete landed",
            sql if sql.starts_with("UPDATE \"D\".\"S\".\"T\" ") => "mark",
            sql if sql.starts_with("UPDATE \"D\".\"S\".\"P\"") => "fence",
            _ => "?",
        };
        all.iter().map(kind).collect()
    }

    #[test]
    fn which_statements() {
        let range = Range { from: t(0), fence: Token::end_of(1), snapshot: None, delete_landed: false };
        let moved = |at, from, to| (t(at + 1), Move { delete: t(at), from, to, hashed: true });
        let blind = |at| (t(at + 1), Move { delete: t(at), from: 0, to: 0, hashed: false });
        for (what, truncates, unchanged, moves, snapshot, hard, soft) in [
            ("plain", vec![], vec![], vec![], None, vec!["merge", "fence"], vec!["merge", "fence"]),
            ("left out", vec![], vec!["A"], vec![], None, vec!["fold", "fence"], vec!["fold", "fence"]),
            (
                "truncates",
                vec![5, 9],
                vec![],
                vec![],
                None,
                vec!["empty", "merge", "fence"],
                vec!["merge", "mark", "merge", "mark", "merge", "fence"],
            ),
            ("moves apart", vec![], vec!["A"], vec![moved(2, 1, 2), moved(4, 3, 4)], None, vec!["fold", "fence"], vec!["fold", "fence"]),
            (
                "chain",
                vec![],
                vec!["A"],
                vec![moved(2, 1, 2), moved(4, 2, 3)],
                None,
                vec!["fold", "fold", "fence"],
                vec!["fold", "fold", "fence"],
            ),
            (
                "of another process",
                vec![],
                vec!["A"],
                vec![blind(2), blind(4), moved(6, 1, 2)],
                None,
                vec!["fold", "fold", "fold", "fence"],
                vec!["fold", "fold", "fold", "fence"],
            ),
            ("snapshot", vec![], vec![], vec![], Some(2), vec!["empty", "merge", "fence"], vec!["merge", "merge", "mark", "fence"]),
            ("snapshot merged before", vec![], vec![], vec![], Some(1), vec!["merge", "fence"], vec!["merge", "fence"]),
        ] {
            let mut ledger = Ledger::default();
            ledger.note(t(1));
            truncates.iter().for_each(|at| ledger.note_truncate(t(*at)));
            unchanged.iter().for_each(|name| (1..9).for_each(|at| ledger.note_unchanged(name, t(at))));
            moves.iter().for_each(|(new, moved)| ledger.note_move(*new, *moved));
            let fence = Token::end_of(if snapshot == Some(2) { 2 } else { 1 });
            let range = Range { snapshot, fence, ..range };
            assert_eq!(kinds(&statements(&table(false), &ledger, range)), hard, "{what}");
            assert_eq!(kinds(&statements(&table(true), &ledger, range)), soft, "{what}, soft");
        }
        let swept = statements(&table(false), &Ledger::default(), Range { delete_landed: true, ..range });
        assert_eq!(kinds(&swept), ["merge", "delete landed", "fence"]);
    }

    #[test]
    fn a_plain_merge() {
        let range = Range { from: Token::ZERO, fence: Token::end_of(1), snapshot: None, delete_landed: false };
        let all = statements(&table(false), &Ledger::default(), range);
        let fence = "'0000000000000001/ffffffffffffffff'";
        let zero = "'0000000000000000/0000000000000000'";
        let row = "\"PIPELINE\" = 'p' AND \"SOURCE\" = 's' AND \"TABLE_SCHEMA\" = 'public' AND \"TABLE_NAME\" = 't'";
        assert_eq!(
            all,
            [
                format!(
                    "MERGE INTO \"D\".\"S\".\"T\" AS t USING (SELECT l.* FROM \"D\".\"S\".\"T__CHANGES\" AS l \
                     WHERE \"_SEQ\" > {zero} AND \"_SEQ\" <= {fence} AND \"_OP\" <> 't' \
                     AND EXISTS (SELECT 1 FROM \"D\".\"S\".\"P\" WHERE {row} AND \"FENCE\" = {zero}) \
                     QUALIFY ROW_NUMBER() OVER (PARTITION BY \"ID\" ORDER BY \"_SEQ\" DESC) = 1) AS s ON t.\"ID\" = s.\"ID\" \
                     WHEN MATCHED AND s.\"_OP\" = 'd' THEN DELETE \
                     WHEN MATCHED THEN UPDATE SET \"A\" = s.\"A\", \"n\" = s.\"n\", \"_ETL_SEQ\" = s.\"_SEQ\", \"_ETL_EXACT\" = s.\"_ETL_EXACT\" \
                     WHEN NOT MATCHED AND s.\"_OP\" <> 'd' THEN INSERT (\"ID\", \"A\", \"n\", \"_ETL_SEQ\", \"_ETL_EXACT\") \
                     VALUES (s.\"ID\", s.\"A\", s.\"n\", s.\"_SEQ\", s.\"_ETL_EXACT\")"
                ),
                format!(
                    "UPDATE \"D\".\"S\".\"P\" SET \"FENCE\" = {fence}, \"UPDATED_AT\" = CURRENT_TIMESTAMP() \
                     WHERE {row} AND \"FENCE\" = {zero}"
                ),
            ]
        );
    }
}
