//! Keeps the rows that fulfil a condition.
//!
//! ```text
//! row batch ──> filter ──> row batch      (fewer rows, same order, same tokens)
//! ```
//!
//! # Guarantees
//! The condition means what it means in PostgreSQL's WHERE; see [`super::predicate`]. An update that no
//! longer fulfils it goes on as a delete of its key, for the row may have been there. Deletes and
//! truncates always pass. An update that hangs on a value PostgreSQL did not send is refused unless the
//! settings say otherwise.
//!
//! Hot path: no allocation per row.

use super::predicate::{Bound, Predicate};
use super::scope::{Plans, acts_on};
use super::select::{Verdict, WhenUnknown, can_delete, select, verdict};
use super::{CFG_PREDICATE, OP_KEY};
use crate::contract::{
    BuildContext, CodedError, Findings, NodeConfig, Op, Operator, OperatorConfig, Output, RowBatch, TablePattern, TableSchema,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;

/// Keeps the rows that fulfil a condition.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FilterConfig {
    /// Tables it acts on, as `schema.table` with `*`; all, if not given. Other tables pass.
    #[serde(default)]
    tables: Vec<TablePattern>,
    /// The condition, as in SQL's WHERE: comparisons of columns with literals or columns, AND, OR, NOT,
    /// IN, BETWEEN, LIKE, ILIKE, IS NULL, IS DISTINCT FROM. Text compares by its bytes (collation "C").
    r#where: String,
    /// What to do with an update that hangs on a TOASTed value that did not change and was not sent.
    #[serde(default)]
    when_unknown: WhenUnknown,
}

impl NodeConfig for FilterConfig {
    const TYPE: &'static str = "filter";
    const SUMMARY: &'static str = "keeps the rows that fulfil a condition";
    const EXAMPLE: &'static str = "tables: [\"public.orders\"]\nwhere: \"status <> 'draft' AND total > 0\"\n";

    fn check(&self, findings: &mut Findings) {
        if let Err(mistake) = Predicate::parse(&self.r#where) {
            findings.push(CFG_PREDICATE, "/where", mistake.message, None);
        }
    }
}

impl OperatorConfig for FilterConfig {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Operator>, CodedError> {
        let predicate = Predicate::of_setting("where", &self.r#where)?;
        Ok(Box::new(Filter {
            tables: self.tables.clone(),
            predicate,
            when_unknown: self.when_unknown,
            plans: Plans::default(),
            verdicts: Vec::new(),
        }))
    }
}

struct Filter {
    tables: Vec<TablePattern>,
    predicate: Predicate,
    when_unknown: WhenUnknown,
    plans: Plans<Option<Bound>>,
    verdicts: Vec<Verdict>,
}

/// The condition for a table; `None`: the table is not filtered.
fn plan(tables: &[TablePattern], predicate: &Predicate, table: &TableSchema) -> Result<Option<Bound>, CodedError> {
    if acts_on(tables, table) { predicate.bind(table).map(Some) } else { Ok(None) }
}

impl Operator for Filter {
    fn schema(&mut self, table: &TableSchema) -> Result<TableSchema, CodedError> {
        plan(&self.tables, &self.predicate, table)?;
        Ok(table.clone())
    }

    fn keeps(&mut self, table: &TableSchema) -> bool {
        !acts_on(&self.tables, table)
    }

    fn apply(&mut self, mut batch: RowBatch, out_table: &Arc<TableSchema>, out: &mut Output) -> Result<(), CodedError> {
        let (tables, predicate) = (&self.tables, &self.predicate);
        let bound = self.plans.get(&batch.table, |table| plan(tables, predicate, table))?;
        batch.table = Arc::clone(out_table);
        let Some(bound) = bound else {
            out.send(batch);
            return Ok(());
        };
        let truths = bound.eval(&batch);
        self.verdicts.clear();
        for (row, truth) in truths.iter().enumerate() {
            self.verdicts.push(verdict(bound, &batch, row, *truth, self.when_unknown)?);
        }
        bound.reuse(truths);
        keyed(&batch, &self.verdicts)?;
        out.send(select(&batch, &self.verdicts));
        Ok(())
    }
}

/// Refuses to delete from a table that has neither key nor full identity. PostgreSQL refuses updates of
/// such a table, so this comes up only with other sources.
pub(super) fn keyed(batch: &RowBatch, verdicts: &[Verdict]) -> Result<(), CodedError> {
    let Some(row) = verdicts.iter().position(|v| *v == Verdict::Delete).filter(|_| !can_delete(&batch.table)) else { return Ok(()) };
    let name = batch.table.full_name();
    debug_assert_ne!(batch.op(row), Op::Delete);
    let message = format!("table \"{name}\" has no key, so the update at {} could not be forwarded as a delete", batch.token(row));
    Err(CodedError::definite(OP_KEY, message).hint(format!("give it a primary key, or ALTER TABLE {name} REPLICA IDENTITY FULL")))
}
