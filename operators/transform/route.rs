//! Sends each row to the first output whose condition it fulfils.
//!
//! ```text
//!                 ┌──> node.big    where total > 1000
//! row batch ──> route ──> node.eu     where region = 'eu'
//!                 └──> node.rest   every other row
//! ```
//!
//! # Guarantees
//! Snapshot rows and inserts go to one output. An update goes to its output and, as a delete of its
//! key, to all others, for the row may have been there. Deletes and truncates go to all. Conditions
//! mean what they mean in PostgreSQL; one that hangs on a value PostgreSQL did not send is refused.
//!
//! Hot path: no allocation per row.

use super::filter::keyed;
use super::predicate::{Bound, Predicate, selected};
use super::scope::{Plans, acts_on, pointer};
use super::select::{Verdict, select};
use super::{CFG_PREDICATE, CFG_SETTINGS};
use crate::contract::{
    BuildContext, CodedError, Findings, NodeConfig, Op, Operator, OperatorConfig, Output, RowBatch, TablePattern, TableSchema,
};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The output of rows that no route takes.
const REST: &str = "rest";

/// Sends each row to the first output whose condition it fulfils.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteConfig {
    /// Tables it acts on, as `schema.table` with `*`; all, if not given. Other tables go to `rest`.
    #[serde(default)]
    tables: Vec<TablePattern>,
    /// Outputs and their conditions, in the order they are tried; as `where` of a filter. What none
    /// takes goes to the output `rest`. Consumers read `node.output`.
    routes: Routes,
}

/// Names and conditions in the order of the file.
#[derive(Clone, Debug)]
struct Routes(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Routes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ordered;
        impl<'de> Visitor<'de> for Ordered {
            type Value = Routes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of output names to conditions")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Routes, A::Error> {
                let mut routes = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    routes.push(entry);
                }
                Ok(Routes(routes))
            }
        }
        deserializer.deserialize_map(Ordered)
    }
}

impl JsonSchema for Routes {
    fn schema_name() -> Cow<'static, str> {
        "Routes".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": { "type": "string" }, "minProperties": 1, "description": "Output names and conditions, in order." })
    }
}

impl NodeConfig for RouteConfig {
    const TYPE: &'static str = "route";
    const SUMMARY: &'static str = "sends each row to the first output whose condition it fulfils";
    const EXAMPLE: &'static str = "tables: [\"public.orders\"]\nroutes:\n  big: \"total > 1000\"\n  eu: \"region = 'eu'\"\n";

    fn check(&self, findings: &mut Findings) {
        if self.routes.0.is_empty() {
            findings.push(CFG_SETTINGS, "/routes", "there is no route", Some("write an output's name and its condition".into()));
        }
        for (at, (name, condition)) in self.routes.0.iter().enumerate() {
            let pointer = pointer("routes", name);
            let plain = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            if name == REST || !plain || self.routes.0.iter().take(at).any(|(other, _)| other == name) {
                let message = format!("\"{name}\" cannot name an output");
                let help = "use letters, digits, _ and -, each name once, and leave `rest` to the rows that no route takes";
                findings.push(CFG_SETTINGS, pointer.clone(), message, Some(help.into()));
            }
            if let Err(mistake) = Predicate::parse(condition) {
                findings.push(CFG_PREDICATE, pointer, mistake.message, None);
            }
        }
    }

    fn outputs(&self) -> Vec<String> {
        self.routes.0.iter().map(|(name, _)| name.clone()).chain([REST.to_owned()]).collect()
    }
}

impl OperatorConfig for RouteConfig {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Operator>, CodedError> {
        let predicates = self.routes.0.iter().map(|(name, condition)| Predicate::of_setting(name, condition)).collect::<Result<_, _>>()?;
        Ok(Box::new(Route { tables: self.tables.clone(), predicates, plans: Plans::default(), chosen: Vec::new(), verdicts: Vec::new() }))
    }
}

struct Route {
    tables: Vec<TablePattern>,
    predicates: Vec<Predicate>,
    plans: Plans<Option<Vec<Bound>>>,
    /// Each row's output.
    chosen: Vec<usize>,
    verdicts: Vec<Verdict>,
}

/// A table's conditions; `None`: the table goes to `rest` as it is.
fn plan(tables: &[TablePattern], predicates: &[Predicate], table: &TableSchema) -> Result<Option<Vec<Bound>>, CodedError> {
    if !acts_on(tables, table) {
        return Ok(None);
    }
    predicates.iter().map(|predicate| predicate.bind(table)).collect::<Result<_, _>>().map(Some)
}

/// Writes each row's output into `chosen`.
fn choose(bounds: &mut [Bound], batch: &RowBatch, chosen: &mut Vec<usize>) -> Result<(), CodedError> {
    let rest = bounds.len();
    chosen.clear();
    chosen.resize(batch.len(), rest);
    for (output, bound) in bounds.iter_mut().enumerate() {
        let truths = bound.eval(batch);
        for (row, truth) in truths.iter().enumerate() {
            let is_open = chosen[row] == rest && !matches!(batch.op(row), Op::Delete | Op::Truncate);
            match selected(*truth) {
                Some(true) if is_open => chosen[row] = output,
                None if is_open => return Err(bound.undecided(batch, row)),
                _ => {}
            }
        }
        bound.reuse(truths);
    }
    Ok(())
}

impl Operator for Route {
    fn schema(&mut self, table: &TableSchema) -> Result<TableSchema, CodedError> {
        plan(&self.tables, &self.predicates, table)?;
        Ok(table.clone())
    }

    fn apply(&mut self, mut batch: RowBatch, out_table: &Arc<TableSchema>, out: &mut Output) -> Result<(), CodedError> {
        let (tables, predicates) = (&self.tables, &self.predicates);
        let bounds = self.plans.get(&batch.table, |table| plan(tables, predicates, table))?;
        batch.table = Arc::clone(out_table);
        let rest = predicates.len();
        let Some(bounds) = bounds else {
            out.send_to(rest, batch);
            return Ok(());
        };
        choose(bounds, &batch, &mut self.chosen)?;
        for output in 0..=rest {
            self.verdicts.clear();
            self.verdicts.extend(self.chosen.iter().enumerate().map(|(row, chosen)| match batch.op(row) {
                Op::Delete | Op::Truncate => Verdict::Keep,
                _ if *chosen == output => Verdict::Keep,
                Op::Update => Verdict::Delete,
                Op::Read | Op::Insert => Verdict::Drop,
            }));
            keyed(&batch, &self.verdicts)?;
            out.send_to(output, select(&batch, &self.verdicts));
        }
        Ok(())
    }
}
