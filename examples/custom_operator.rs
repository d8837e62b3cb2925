//! A binary with an operator of its own: `trim` takes the blanks off both ends of a text column.

use etl_stream::arrow::array::{AsArray, StringArray};
use etl_stream::{BuildContext, CodedError, NodeConfig, Operator, OperatorConfig, Output, Registry, RowBatch, TableSchema};
use schemars::JsonSchema;
use serde::Deserialize;
use std::process::ExitCode;
use std::sync::Arc;

/// What stands in the pipeline file. The comments are the reference page and the editor's help.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TrimConfig {
    /// The column, in every table that has it.
    column: String,
}

impl NodeConfig for TrimConfig {
    const TYPE: &'static str = "trim";
    const SUMMARY: &'static str = "takes the blanks off both ends of a text column";
    const EXAMPLE: &'static str = "column: status\n";
}

impl OperatorConfig for TrimConfig {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Operator>, CodedError> {
        Ok(Box::new(Trim(self.clone())))
    }
}

struct Trim(TrimConfig);

impl Operator for Trim {
    fn schema(&mut self, table: &TableSchema) -> Result<TableSchema, CodedError> {
        Ok(table.clone())
    }

    fn apply(&mut self, mut batch: RowBatch, out_table: &Arc<TableSchema>, out: &mut Output) -> Result<(), CodedError> {
        batch.table = Arc::clone(out_table);
        if let Some(at) = batch.table.column(&self.0.column)
            && let Some(texts) = batch.columns[at].as_string_opt::<i32>()
        {
            // A null stays null: also one that stands for a value that PostgreSQL did not send.
            batch.columns[at] = Arc::new(texts.iter().map(|text| text.map(str::trim)).collect::<StringArray>());
        }
        out.send(batch);
        Ok(())
    }
}

pub(crate) fn registry() -> Registry {
    Registry::builtin().operator::<TrimConfig>()
}

fn main() -> ExitCode {
    etl_stream::cli::main(registry())
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl_stream::testing::{comply::Subject, drive::drive, random::Random, rows};
    use etl_stream::{Kind, Op, Token};

    #[test]
    fn trims_and_complies() {
        Subject::of(&registry(), Kind::Operator, "trim").comply();
        let orders = Arc::clone(&rows::tables()[0]);
        let mut batch = rows::rows(&orders, &[Op::Insert; 3], Token::new(1, 0), &mut Random::new(1));
        batch.columns[2] = Arc::new(StringArray::from(vec![Some("  new "), Some("paid"), None]));
        let mut trim = Trim(TrimConfig { column: "status".into() });
        let left = drive(&mut trim, [batch]).expect("nothing can fail");
        assert_eq!(left[0].1.columns[2].as_string::<i32>().iter().collect::<Vec<_>>(), [Some("new"), Some("paid"), None]);
    }
}
