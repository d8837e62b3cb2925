//! `etl-stream list` and `etl-stream describe`: the node types of this binary.

use super::Shell;
use super::reference::{self, Field};
use crate::config::{Shape, suggestion};
use crate::exit::Failure;
use crate::{Exit, NodeType};
use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use std::io::Write;

#[derive(Debug, Args)]
pub(super) struct ListArgs {}

impl ListArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let rows = shell.registry.types().map(|node| vec![node.kind.noun().to_owned(), node.name.to_owned(), node.summary.to_owned()]);
        let table = table(["KIND", "TYPE", "SUMMARY"], rows);
        Ok(writeln!(shell.out, "{table}")?)
    }
}

#[derive(Debug, Args)]
pub(super) struct DescribeArgs {
    /// The node type, such as postgres.
    #[arg(value_name = "TYPE")]
    name: String,
}

impl DescribeArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let found: Vec<&NodeType> = shell.registry.types().filter(|node| node.name == self.name).collect();
        if found.is_empty() {
            writeln!(shell.err, "error: there is no node type `{}`", self.name)?;
            if let Some(help) = suggestion(&self.name, shell.registry.types().map(|node| node.name)) {
                writeln!(shell.err, "  help: {help}")?;
            }
            return Err(Failure::Reported(Exit::Usage));
        }
        for (at, node) in found.into_iter().enumerate() {
            if at > 0 {
                writeln!(shell.out)?;
            }
            describe(node, shell.out)?;
        }
        Ok(())
    }
}

fn describe(node: &NodeType, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "{} ({})\n{}\n", node.name, node.kind.noun(), node.summary)?;
    let row = |field: Field| {
        let default = if field.required { "required".to_owned() } else { field.default.unwrap_or_default() };
        vec![field.path, field.form, default, field.about]
    };
    let rows: Vec<Vec<String>> = reference::fields(&Shape::of(node)).into_iter().map(row).collect();
    if !rows.is_empty() {
        writeln!(out, "{}\n", table(["SETTING", "TYPE", "DEFAULT", "MEANING"], rows.into_iter()))?;
    }
    writeln!(out, "Example:\n")?;
    for line in reference::example(node).lines() {
        writeln!(out, "  {line}")?;
    }
    Ok(())
}

pub(super) fn table<const N: usize>(header: [&str; N], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(120).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
