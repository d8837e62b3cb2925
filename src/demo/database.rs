//! The shop's database: its tables and rows.

use super::step;
use etl_stream_operators::contract::{CodedError, Lsn};
use etl_stream_operators::testing::postgres::Postgres;
use tokio_postgres::{Client, NoTls};

/// The shop.
pub(super) struct Database {
    url: String,
    client: Client,
}

/// Connects to a database.
pub(super) async fn connect(url: &str) -> Result<Client, CodedError> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.map_err(|e| step("PostgreSQL did not accept a connection").caused_by(e))?;
    tokio::spawn(connection);
    Ok(client)
}

impl Database {
    /// Makes the database with so many rows.
    pub(super) async fn create(postgres: &Postgres, rows: u32) -> Result<Self, CodedError> {
        let failed = |e: tokio_postgres::Error| step("the shop's database was not made").caused_by(e);
        connect(&postgres.url("postgres")).await?.batch_execute("CREATE DATABASE shop").await.map_err(failed)?;
        let url = postgres.url("shop");
        let client = connect(&url).await?;
        client.batch_execute(include_str!("schema.sql")).await.map_err(failed)?;
        client.batch_execute(&format!("SET demo.rows = '{rows}'")).await.map_err(failed)?;
        client.batch_execute(include_str!("rows.sql")).await.map_err(failed)?;
        Ok(Self { url, client })
    }

    /// Its URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The end of the log.
    pub(super) async fn position(&self) -> Result<Lsn, CodedError> {
        let failed = |e: tokio_postgres::Error| step("PostgreSQL did not say where its log ends").caused_by(e);
        let row = self.client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.map_err(failed)?;
        row.get::<_, String>(0).parse().map_err(|_| step("PostgreSQL's position is not an LSN"))
    }
}
