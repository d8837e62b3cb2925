//! The sink: reaches the account once, then makes a writer for each source and worker.

use super::context::Shared;
use super::ddl::{complete_progress, create_progress};
use super::dead_letter::DeadLetters as Place;
use super::errors::SF_MISSING;
use super::letter_table;
use super::names::quote;
use super::replay::Letters;
use super::writer::SnowflakeWriter;
use crate::contract::{BatchSettings, CodedError, DeadLetters, Sink, Writer, WriterContext};
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
        let database = quote(&naming.database);
        let doing = format!("looking for the schemas of database {database}");
        let query = format!("SELECT SCHEMA_NAME FROM {database}.INFORMATION_SCHEMA.SCHEMATA WHERE SCHEMA_NAME IN (?, ?)");
        let found = self.shared.sql.query(&doing, &query, &[&naming.schema, &naming.landing_schema]).await.map_err(|error| {
            if error.is_transient() || error.code.id != "SF0010" && error.code.id != "SF0004" {
                return error;
            }
            CodedError::definite(SF_MISSING, format!("database {database} was not found, or the role may not use it"))
                .hint(format!("CREATE DATABASE {database}; GRANT USAGE ON DATABASE {database} TO ROLE …"))
                .caused_by(error)
        })?;
        for schema in [&naming.schema, &naming.landing_schema] {
            if found.iter().any(|row| row.first().and_then(Option::as_ref) == Some(schema)) {
                continue;
            }
            let name = format!("{database}.{}", quote(schema));
            if !self.shared.options.create_schema {
                return Err(CodedError::definite(SF_MISSING, format!("schema {name} was not found, or the role may not use it"))
                    .hint(format!("CREATE SCHEMA {name}, or set `create_schema: true`")));
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

    async fn prepare(&self, cx: &WriterContext) -> Result<(), CodedError> {
        let shared = &self.shared;
        shared.http.meter.show(&cx.status.sink(&cx.sink));
        let query = "SELECT CURRENT_VERSION(), CURRENT_ROLE(), CURRENT_WAREHOUSE()";
        let rows = shared.sql.query("reaching Snowflake", query, &[]).await?;
        let cell = |at: usize| rows.first().and_then(|row| row.get(at)?.as_deref());
        tracing::info!(version = cell(0), role = cell(1), warehouse = cell(2), "reached Snowflake");
        if shared.options.merge && cell(2).is_none() {
            return Err(CodedError::definite(SF_MISSING, "there is no warehouse to merge with")
                .hint("set `warehouse`, or give the user a DEFAULT_WAREHOUSE, and grant the role USAGE on it"));
        }
        self.schemas().await?;
        let progress = shared.naming.progress();
        shared.sql.run_all("creating the bookkeeping table", &[create_progress(&progress), complete_progress(&progress)]).await?;
        if let Place::Table(name) = &shared.dead_letters {
            shared.sql.run_all("creating the table for dead letters", &[letter_table::create(name)]).await?;
        }
        Ok(())
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
