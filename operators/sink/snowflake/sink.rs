//! The sink: reaches the account once, then makes a writer for each source and worker.

use super::check::{Preflight, found_schemas, no_schema, no_warehouse};
use super::contents::TargetContents;
use super::context::Shared;
use super::ddl::{complete_progress, create_progress};
use super::dead_letter::DeadLetters as Place;
use super::letter_table;
use super::names::quote;
use super::replay::Letters;
use super::writer::SnowflakeWriter;
use crate::contract::{BatchSettings, CheckContext, Checks, CodedError, Contents, DeadLetters, Sink, TableSchema, Writer, WriterContext};
use async_trait::async_trait;
use std::sync::Arc;

/// See the module.
pub(super) struct Snowflake {
    shared: Arc<Shared>,
    batch: BatchSettings,
}

impl Snowflake {
    /// Over what its writers share.
    pub(super) fn new(shared: Arc<Shared>, batch: BatchSettings) -> Self {
        Self { shared, batch }
    }

    /// Makes the schemas that are missing, when it may.
    async fn schemas(&self) -> Result<(), CodedError> {
        let naming = &self.shared.naming;
        let found = found_schemas(&self.shared).await?;
        for schema in [&naming.schema, &naming.landing_schema] {
            if found.contains(schema) {
                continue;
            }
            let name = format!("{}.{}", quote(&naming.database), quote(schema));
            if !self.shared.options.create_schema {
                return Err(no_schema(&name));
            }
            self.shared.sql.run_all(&format!("creating schema {name}"), &[format!("CREATE SCHEMA IF NOT EXISTS {name}")]).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for Snowflake {
    fn batch(&self) -> BatchSettings {
        self.batch
    }

    fn in_pieces(&self) -> bool {
        true
    }

    async fn prepare(&self, cx: &WriterContext) -> Result<(), CodedError> {
        let shared = &self.shared;
        shared.http.meter.show(&cx.status.sink(&cx.sink));
        let query = "SELECT CURRENT_VERSION(), CURRENT_ROLE(), CURRENT_WAREHOUSE()";
        let rows = shared.sql.query("reaching Snowflake", query, &[]).await?;
        let cell = |at: usize| rows.first().and_then(|row| row.get(at)?.as_deref());
        tracing::info!(version = cell(0), role = cell(1), warehouse = cell(2), "reached Snowflake");
        if shared.options.merge && cell(2).is_none() {
            return Err(no_warehouse());
        }
        self.schemas().await?;
        let progress = shared.naming.progress();
        shared.sql.run_all("creating the bookkeeping table", &[create_progress(&progress), complete_progress(&progress)]).await?;
        if let Place::Table(name) = &shared.dead_letters {
            shared.sql.run_all("creating the table for dead letters", &[letter_table::create(name)]).await?;
        }
        Ok(())
    }

    async fn check(&self, cx: &CheckContext, tables: &[Arc<TableSchema>], checks: &mut Checks) {
        Preflight { shared: &self.shared, cx, checks }.look(tables).await;
    }

    fn contents(&self, pipeline: &str) -> Option<Box<dyn Contents>> {
        // Without a target there are no current rows, and the landing tables' history does not reach back to the first.
        let contents = TargetContents { shared: Arc::clone(&self.shared), pipeline: pipeline.to_owned() };
        self.shared.options.merge.then(|| Box::new(contents) as Box<dyn Contents>)
    }

    fn dead_letters(&self, pipeline: &str) -> Option<Box<dyn DeadLetters>> {
        let letters = Letters { shared: Arc::clone(&self.shared), pipeline: pipeline.to_owned() };
        (!self.shared.dead_letters.stop()).then(|| Box::new(letters) as Box<dyn DeadLetters>)
    }

    fn writer(&self, cx: WriterContext) -> Box<dyn Writer> {
        self.shared.http.meter.show(&cx.status.sink(&cx.sink));
        Box::new(SnowflakeWriter::new(Arc::clone(&self.shared), cx))
    }
}
