//! Node types for tests: every shape of settings, and nothing that runs.

use crate::{
    Ack, BatchSettings, BuildContext, ByteSize, Code, CodedError, Deliveries, Exit, Findings, NodeConfig, Operator, OperatorConfig, Output,
    Period, Registry, RetrySettings, RowBatch, Secret, Sink, SinkConfig, Source, SourceConfig, SourceContext, TablePattern, TableSchema,
    TableSelection, Writer, WriterContext,
};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A finding of the dummies' own checks.
const CHECK: Code = Code::new("CFG0099", Exit::Usage);

/// `pull`, `keep`, `hide`, `split` and `push`.
pub(crate) fn registry() -> Registry {
    Registry::empty().source::<Pull>().operator::<Keep>().operator::<Hide>().operator::<Split>().sink::<Push>()
}

/// How a connection is secured.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum TlsMode {
    /// Not at all.
    Disable,
    /// With the server's name checked.
    #[default]
    VerifyFull,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Tls {
    /// How.
    mode: TlsMode,
    /// Roots.
    ca_file: Option<String>,
}

/// A source.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Pull {
    /// Where the server is.
    #[serde(default)]
    url: Option<Secret>,
    /// The server's host.
    #[serde(default)]
    host: Option<String>,
    /// Its port.
    #[serde(default = "port")]
    port: u16,
    /// The user's password.
    #[serde(default)]
    password: Option<Secret>,
    /// How the connection is secured.
    #[serde(default)]
    tls: Tls,
    /// Which tables.
    #[serde(default)]
    tables: TableSelection,
}

fn port() -> u16 {
    5432
}

impl NodeConfig for Pull {
    const TYPE: &'static str = "pull";
    const SUMMARY: &'static str = "Rows from nowhere.";
    const EXAMPLE: &'static str = "url: { env: PULL_URL }\ntables: { include: [\"public.*\"] }";

    fn check(&self, findings: &mut Findings) {
        if self.url.is_some() && self.host.is_some() {
            findings.push(CHECK, "/host", "`url` and `host` are given", Some("keep one".into()));
        }
    }
}

impl SourceConfig for Pull {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Source>, CodedError> {
        Ok(Box::new(Idle))
    }
}

/// An operator.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Keep {
    /// The predicate.
    #[serde(rename = "where")]
    predicate: String,
    /// Where it acts.
    #[serde(default)]
    tables: Vec<TablePattern>,
    /// How many at least.
    #[serde(default)]
    minimum: Option<i64>,
    /// Whether it says what it drops.
    #[serde(default)]
    verbose: bool,
}

impl NodeConfig for Keep {
    const TYPE: &'static str = "keep";
    const SUMMARY: &'static str = "Keeps rows.";
    const EXAMPLE: &'static str = "where: total > 0";
}

impl OperatorConfig for Keep {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Operator>, CodedError> {
        Ok(Box::new(Idle))
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// What becomes of the value.
    with: Method,
    /// The key of a hash.
    #[serde(default)]
    key: Option<Secret>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Method {
    Nullify,
    Hash,
}

/// An operator with a map.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Hide {
    /// What is done to which column.
    columns: BTreeMap<String, Rule>,
}

impl NodeConfig for Hide {
    const TYPE: &'static str = "hide";
    const SUMMARY: &'static str = "Hides columns.";
    const EXAMPLE: &'static str = "columns:\n  public.customers.email: { with: nullify }";

    fn check(&self, findings: &mut Findings) {
        for (column, rule) in &self.columns {
            if matches!(rule.with, Method::Hash) && rule.key.is_none() {
                findings.push(CHECK, format!("/columns/{column}"), "a hash needs a key", None);
            }
        }
    }
}

impl OperatorConfig for Hide {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Operator>, CodedError> {
        Ok(Box::new(Idle))
    }
}

/// An operator with several outputs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Split {
    /// Which rows leave by which output.
    routes: BTreeMap<String, String>,
}

impl NodeConfig for Split {
    const TYPE: &'static str = "split";
    const SUMMARY: &'static str = "Splits rows.";
    const EXAMPLE: &'static str = "routes: { big: total > 100, small: total <= 100 }";

    fn outputs(&self) -> Vec<String> {
        self.routes.keys().cloned().collect()
    }
}

impl OperatorConfig for Split {
    fn build(&self, _: &BuildContext) -> Result<Box<dyn Operator>, CodedError> {
        Ok(Box::new(Idle))
    }
}

/// A sink.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Push {
    /// Whose account.
    account: String,
    /// The account's key.
    #[serde(default)]
    private_key: Option<Secret>,
    /// How large a chunk is.
    #[serde(default)]
    chunk: Option<ByteSize>,
    /// How long it waits.
    #[serde(default = "wait")]
    wait: Period,
    /// When a batch is sealed.
    #[serde(default)]
    batch: Option<BatchSettings>,
    /// How errors are met.
    #[serde(default)]
    retry: RetrySettings,
}

fn wait() -> Period {
    Period::millis(5_000)
}

impl NodeConfig for Push {
    const TYPE: &'static str = "push";
    const SUMMARY: &'static str = "Rows to nowhere.";
    const EXAMPLE: &'static str = "account: acme";
}

impl SinkConfig for Push {
    fn build(&self, _: &BuildContext) -> Result<Arc<dyn Sink>, CodedError> {
        Ok(Arc::new(Idle))
    }
}

struct Idle;

#[async_trait]
impl Source for Idle {
    async fn run(self: Box<Self>, _: SourceContext) -> Result<(), CodedError> {
        Ok(())
    }
}

impl Operator for Idle {
    fn schema(&mut self, table: &TableSchema) -> Result<TableSchema, CodedError> {
        Ok(table.clone())
    }

    fn apply(&mut self, batch: RowBatch, _: &Arc<TableSchema>, out: &mut Output) -> Result<(), CodedError> {
        out.send(batch);
        Ok(())
    }
}

#[async_trait]
impl Sink for Idle {
    fn batch(&self) -> BatchSettings {
        BatchSettings::new(1, ByteSize::mib(1), Period::millis(1))
    }

    async fn prepare(&self, _: &WriterContext) -> Result<(), CodedError> {
        Ok(())
    }

    fn writer(&self, _: WriterContext) -> Box<dyn Writer> {
        Box::new(Idle)
    }
}

#[async_trait]
impl Writer for Idle {
    async fn run(self: Box<Self>, mut deliveries: Deliveries) -> Result<(), CodedError> {
        while let Some(delivery) = deliveries.recv().await {
            if let crate::Delivery::Rows { ack, .. } | crate::Delivery::Mark { ack, .. } = delivery {
                Ack::durable(ack);
            }
        }
        Ok(())
    }
}
