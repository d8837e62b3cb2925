//! The settings of the `python` operator.

use super::errors::CFG_PYTHON;
use super::letters::Letters;
use super::pool::{Pool, SharedPool};
use super::process::{Launch, default_python};
use super::render::PythonOperator;
use crate::contract::{BuildContext, CodedError, Findings, NodeConfig, Period, Render, RenderConfig, TablePattern};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// The worker's code.
const SCRIPT: &str = concat!(include_str!("worker/frames.py"), "\n", include_str!("worker/operator.py"));
/// Processes that one node may have.
const MAX_WORKERS: u16 = 256;

/// What becomes of rows that the user's code does not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnError {
    /// The pipeline stops; nothing of the batch is acknowledged.
    #[default]
    Stop,
    /// They go to the folder `dead_letters`, and the rest goes on. A batch that raises is halved until the rows are found
    /// that do; a batch that no process answers goes there as a whole.
    DeadLetter,
}

fn one() -> u16 {
    1
}

fn minute() -> Period {
    Period::millis(60_000)
}

/// Runs a Python function on every batch, in processes of its own: `pyarrow.RecordBatch` in, `pyarrow.RecordBatch` out.
/// The code is not confined: it may do all that the user who runs the pipeline may.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PythonConfig {
    /// The module, as `import` names it.
    module: String,
    /// The function of the module, called with each batch.
    #[serde(default)]
    function: Option<String>,
    /// The class of the module: made once for each process, its `apply` called with each batch; `schema`, `open` and
    /// `close` where it has them. Neither `function` nor `class`: what stands under `@operator` in the module.
    #[serde(default)]
    class: Option<String>,
    /// Tables it acts on, as `schema.table` with `*`; all, if not given. Other tables pass.
    #[serde(default)]
    tables: Vec<TablePattern>,
    /// Processes. A table belongs to one of them, so more of them help several tables.
    #[serde(default = "one")]
    workers: u16,
    /// The interpreter, which must have pyarrow. Default: `python3` beside the program, or the first of the path.
    #[serde(default)]
    python: Option<PathBuf>,
    /// Folders where modules are looked for, before the interpreter's own. Default: the pipeline file's folder.
    #[serde(default)]
    path: Option<Vec<PathBuf>>,
    /// How long one batch may take; a start may take 60 s at the least.
    #[serde(default = "minute")]
    timeout: Period,
    /// What becomes of rows that the code does not take.
    #[serde(default)]
    on_error: OnError,
    /// The folder for dead letters; with `on_error: dead_letter`.
    #[serde(default)]
    dead_letters: Option<PathBuf>,
    /// Whether an exception's own words are shown, in errors and the log. They may hold values of rows.
    #[serde(default)]
    show_exceptions: bool,
    #[serde(skip)]
    pool: SharedPool,
}

impl NodeConfig for PythonConfig {
    const TYPE: &'static str = "python";
    const SUMMARY: &'static str = "runs a Python function on every batch, in processes of its own";
    const EXAMPLE: &'static str = "module: my_operators\nfunction: clean\ntables: [\"public.orders\"]\nworkers: 2\n";

    fn check(&self, findings: &mut Findings) {
        let mut wrong = |pointer: &str, message: &str, help: &str| findings.push(CFG_PYTHON, pointer, message, Some(help.into()));
        if self.module.trim().is_empty() || self.module.ends_with(".py") {
            wrong("/module", "it is no module's name", "write the name that `import` takes, such as my_operators for my_operators.py");
        }
        if self.function.is_some() && self.class.is_some() {
            wrong("/class", "`function` and `class` exclude each other", "leave one of them out");
        }
        if !(1..=MAX_WORKERS).contains(&self.workers) {
            wrong("/workers", "it is no number of processes", "write a number from 1 to 256");
        }
        if self.timeout.0.is_zero() {
            wrong("/timeout", "it must be longer than nothing", "write 60s");
        }
        match (self.on_error, &self.dead_letters) {
            (OnError::DeadLetter, None) => wrong("/on_error", "there is no folder for dead letters", "set `dead_letters: ./dead-letters`"),
            (OnError::Stop, Some(_)) => wrong("/dead_letters", "nothing goes there", "set `on_error: dead_letter`, or leave it out"),
            _ => {}
        }
    }
}

/// What keeps a worker's memory from going back to the system after each batch, to be taken and cleared again for the next:
/// a third of a filter's time. What the user's environment says of these goes before.
fn memory() -> Vec<(String, String)> {
    let wanted = [("ARROW_DEFAULT_MEMORY_POOL", "system"), ("MALLOC_TRIM_THRESHOLD_", "134217728"), ("MALLOC_MMAP_THRESHOLD_", "33554432")];
    let unsaid = wanted.into_iter().filter(|(name, _)| std::env::var_os(name).is_none());
    unsaid.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

impl RenderConfig for PythonConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Render>, CodedError> {
        let pool = self.pool.get(|| {
            let folders = self.path.clone().unwrap_or_else(|| vec![PathBuf::from(".")]);
            let folders: Vec<String> = folders.iter().map(|folder| cx.path(folder).display().to_string()).collect();
            let launch = Launch {
                node: Arc::clone(&cx.node),
                // A bare name is looked for in the path, any other relative path starts at the file's folder.
                python: match &self.python {
                    Some(python) if python.components().count() > 1 => cx.path(python),
                    Some(python) => python.clone(),
                    None => default_python(),
                },
                script: SCRIPT,
                settings: json!({ "module": self.module, "function": self.function, "class": self.class, "path": folders }),
                environment: memory(),
                timeout: self.timeout.0,
            };
            Pool::start(launch, usize::from(self.workers))
        })?;
        let letters = self.dead_letters.as_ref().filter(|_| self.on_error == OnError::DeadLetter).map(|folder| Letters(cx.path(folder)));
        Ok(Box::new(PythonOperator { pool, tables: self.tables.clone(), letters, show: self.show_exceptions, timeout: self.timeout.0 }))
    }
}
