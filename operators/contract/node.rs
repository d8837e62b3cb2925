//! The traits of a node and of its settings.
//!
//! A node's settings are a plain struct that serde reads and schemars describes; its doc comments are the
//! reference page, the editor's hover text and the schema. `check` looks at what types cannot say.

use super::{Code, CodedError, Item, ParsedNode, RowBatch, Secret, SecretString, Sink, Source, TableSchema};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One problem of a node's settings, found without touching the network.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Its code.
    pub code: Code,
    /// Where, as a JSON pointer relative to the node's settings, such as `/columns/email`.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// The problems found so far.
#[derive(Debug, Default)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    /// Adds one.
    pub fn push(&mut self, code: Code, pointer: impl Into<String>, message: impl Into<String>, help: Option<String>) {
        self.0.push(Finding { code, pointer: pointer.into(), message: message.into(), help });
    }
}

/// A node's settings.
pub trait NodeConfig: DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The `type:` that selects it.
    const TYPE: &'static str;
    /// One line for `etl-stream list`.
    const SUMMARY: &'static str;
    /// Settings (without `type` and `inputs`) that build, as YAML: shown by `describe`, tested.
    const EXAMPLE: &'static str;

    /// Looks for problems that the types cannot express. No I/O.
    fn check(&self, findings: &mut Findings) {
        let _ = findings;
    }

    /// Names of its outputs, read as `node.output`; empty: one, read as `node`.
    fn outputs(&self) -> Vec<String> {
        Vec::new()
    }

    /// Sources of the file that it watches by name.
    fn watches(&self) -> Vec<Watch> {
        Vec::new()
    }

    /// Whether it is of use when no sink reads its rows.
    fn may_be_unread(&self) -> bool {
        false
    }
}

/// A source of the file that another node watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Where it is named, as a JSON pointer relative to the node's settings.
    pub pointer: String,
    /// Its name.
    pub source: String,
    /// The `type:` it must have.
    pub type_name: &'static str,
}

/// The sources of the file, for a node that watches them.
#[derive(Clone, Default)]
pub struct Peers(Arc<BTreeMap<Arc<str>, Arc<dyn ParsedNode>>>);

impl Peers {
    /// These sources.
    #[must_use]
    pub fn new(sources: impl IntoIterator<Item = (Arc<str>, Arc<dyn ParsedNode>)>) -> Self {
        Self(Arc::new(sources.into_iter().collect()))
    }

    /// Those whose settings are of one kind, by name.
    pub fn of<C: NodeConfig>(&self) -> impl Iterator<Item = (&Arc<str>, &C)> {
        self.0.iter().filter_map(|(name, node)| Some((name, node.settings().downcast_ref::<C>()?)))
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What a node is built with.
#[derive(Clone, Debug)]
pub struct BuildContext {
    /// The pipeline's name.
    pub pipeline: Arc<str>,
    /// The node's name.
    pub node: Arc<str>,
    /// The folder of the pipeline file; relative paths start there.
    pub folder: Arc<Path>,
    /// The sources of the file.
    pub peers: Peers,
}

impl BuildContext {
    /// A path of the settings, made absolute against the pipeline file's folder.
    #[must_use]
    pub fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// Reads a secret.
    ///
    /// # Errors
    /// `CFG0020` when the variable, file or command does not give one.
    pub fn secret(&self, secret: &Secret) -> Result<SecretString, CodedError> {
        secret.read(&self.folder)
    }
}

/// Settings of a source.
pub trait SourceConfig: NodeConfig {
    /// What no other source of the process may use as well, in words such as `replication slot "s" of db:5432`. Reads
    /// secrets; no network.
    ///
    /// # Errors
    /// When a secret or file of the settings cannot be read.
    fn claims(&self, cx: &BuildContext) -> Result<Vec<String>, CodedError> {
        let _ = cx;
        Ok(Vec::new())
    }

    /// Makes the source. No network yet.
    ///
    /// # Errors
    /// When a secret or file of the settings cannot be read.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Source>, CodedError>;
}

/// Settings of an operator.
pub trait OperatorConfig: NodeConfig {
    /// Makes one instance; called once for each worker.
    ///
    /// # Errors
    /// When a secret or file of the settings cannot be read.
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Operator>, CodedError>;
}

/// Settings of a sink.
pub trait SinkConfig: NodeConfig {
    /// Makes the sink. No network yet.
    ///
    /// # Errors
    /// When a secret or file of the settings cannot be read.
    fn build(&self, cx: &BuildContext) -> Result<Arc<dyn Sink>, CodedError>;
}

/// What an operator gives out.
#[derive(Debug, Default)]
pub struct Output {
    items: Vec<(usize, RowBatch)>,
}

impl Output {
    /// Sends a batch to the only output.
    pub fn send(&mut self, batch: RowBatch) {
        self.send_to(0, batch);
    }

    /// Sends a batch to the output of that index in [`NodeConfig::outputs`]. Batches without rows are dropped.
    pub fn send_to(&mut self, output: usize, batch: RowBatch) {
        if !batch.is_empty() {
            self.items.push((output, batch));
        }
    }

    /// Takes what was sent, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = (usize, RowBatch)> + '_ {
        self.items.drain(..)
    }
}

/// A stateless step: batches in, batches out.
///
/// Rows keep their tokens and their order. An operator need not see every column type; it leaves alone
/// what its settings do not name. It does no I/O and reads no clock.
pub trait Operator: Send {
    /// The schema of what leaves for what comes in. Asked once for each new schema of a table, before
    /// its first batch, and for tables without rows.
    ///
    /// # Errors
    /// When the table does not fit the settings (a column is missing, a type cannot be cast).
    fn schema(&mut self, table: &TableSchema) -> Result<TableSchema, CodedError>;

    /// Whether every row of the table leaves as it came, by every output.
    fn keeps(&mut self, table: &TableSchema) -> bool {
        let _ = table;
        false
    }

    /// Handles one batch. `out_table` is what [`Operator::schema`] made of the batch's table.
    ///
    /// # Errors
    /// When a row cannot be handled; the pipeline stops before the row, or it goes to the dead letters.
    fn apply(&mut self, batch: RowBatch, out_table: &Arc<TableSchema>, out: &mut Output) -> Result<(), CodedError>;
}

impl From<RowBatch> for Item {
    fn from(batch: RowBatch) -> Self {
        Self::Rows(batch)
    }
}
