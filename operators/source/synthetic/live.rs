//! A workload's table in a live database, in a schema of its own that is removed afterwards.
//!
//! ```text
//! generate ──COPY … FROM STDIN (FORMAT binary)──> schema.table        what a postgres source then copies
//! ```

use super::generate::Generator;
use super::workload::Workload;
use crate::contract::{CodedError, SecretString};
use crate::source::postgres::{ConnectSettings, classify, identifier};
use bytes::Bytes;
use futures::SinkExt;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use tokio_postgres::Client;

/// Bytes sent at a time.
const PIECE: usize = 256 << 10;

/// A schema of a live database.
pub struct Scratch {
    client: Client,
    schema: String,
}

impl Scratch {
    /// Makes the schema and fills the workload's table.
    ///
    /// # Errors
    /// The server's; nothing is left behind then.
    pub async fn make(url: &SecretString, schema: &str, workload: &Arc<Workload>) -> Result<Self, CodedError> {
        let settings = ConnectSettings { url: Some(url.clone()), ..ConnectSettings::default() };
        let client = settings.resolve(Path::new("."))?.query("bench").await?;
        let scratch = Self { client, schema: schema.to_owned() };
        let filled = scratch.fill(workload).await;
        if filled.is_err() {
            scratch.drop_schema().await?;
        }
        filled.map(|()| scratch)
    }

    async fn fill(&self, workload: &Arc<Workload>) -> Result<(), CodedError> {
        let failed = |e| classify(&e, "making the benchmark's table");
        let table = &workload.tables()[0];
        let name = format!("{}.{}", identifier(&self.schema), identifier(&table.name));
        let columns: Vec<String> = table.columns.iter().map(|c| format!("{} {}", identifier(&c.name), c.pg_type.name)).collect();
        let key = identifier(&table.columns[0].name);
        let sql = format!("CREATE SCHEMA {}; CREATE TABLE {name} ({}, PRIMARY KEY ({key}))", identifier(&self.schema), columns.join(", "));
        self.client.batch_execute(&sql).await.map_err(failed)?;
        let sink = self.client.copy_in(&format!("COPY {name} FROM STDIN (FORMAT binary)")).await.map_err(failed)?;
        let mut sink = pin!(sink);
        let mut generator = Generator::new(Arc::clone(workload), 0);
        while let Some(piece) = generator.copy(PIECE) {
            sink.send(Bytes::from(piece)).await.map_err(failed)?;
        }
        sink.finish().await.map_err(failed)?;
        // As a table that has been there for a while: the copy neither sets hint bits nor guesses its size.
        self.client.batch_execute(&format!("VACUUM (ANALYZE, FREEZE) {name}")).await.map_err(failed)
    }

    async fn drop_schema(&self) -> Result<(), CodedError> {
        let sql = format!("DROP SCHEMA IF EXISTS {} CASCADE", identifier(&self.schema));
        self.client.batch_execute(&sql).await.map_err(|e| classify(&e, "removing the benchmark's schema"))
    }

    /// Drops the slot and the publication of a source, if they are there: the next run makes them anew.
    ///
    /// # Errors
    /// The server's.
    pub async fn forget(&self, slot: &str, publication: &str) -> Result<(), CodedError> {
        let failed = |e| classify(&e, "removing the benchmark's slot and publication");
        let slots = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1";
        self.client.query(slots, &[&slot]).await.map_err(failed)?;
        let sql = format!("DROP PUBLICATION IF EXISTS {}", identifier(publication));
        self.client.batch_execute(&sql).await.map_err(failed)
    }

    /// Removes the schema.
    ///
    /// # Errors
    /// The server's.
    pub async fn remove(self) -> Result<(), CodedError> {
        self.drop_schema().await
    }
}
