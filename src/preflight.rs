//! The preflight of a pipeline: every node looks at the place it reads or writes, and nothing is changed.
//!
//! ```text
//! source ──tables──> operator… ──tables──> sink      (schemas only; each says what it finds)
//! ```
//! # Guarantees
//! Every node that can be asked is, whatever the others found. Tables take the way that their rows would.

use crate::Kind;
use crate::graph::{Graph, Node};
use etl_stream_operators::contract::{CheckContext, Checks, Code, CodedError, Exit, StateStore, TableSchema};
use futures::future::join_all;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// A node did not finish looking.
const CHECK_SLOW: Code = Code::new("RUN0032", Exit::Environment);
/// How long a node may look.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a node found.
pub struct Looked {
    /// The node's name.
    pub node: Arc<str>,
    /// What it is.
    pub kind: Kind,
    /// Its `type:`.
    pub type_name: Arc<str>,
    /// What it found.
    pub checks: Checks,
}

/// The tables that leave each output of each node.
type Tables = HashMap<(usize, usize), Vec<Arc<TableSchema>>>;

/// Looks with every node, in the graph's order.
///
/// # Errors
/// When the state cannot be read, and not because the pipeline runs.
pub async fn preflight(graph: &Graph) -> Result<Vec<Looked>, CodedError> {
    let state = state(graph)?;
    let context = |node: &Node| CheckContext { pipeline: Arc::clone(&graph.pipeline), node: Arc::clone(&node.name), state: state.clone() };
    let mut tables = Tables::new();
    let mut all: HashMap<usize, Looked> = HashMap::new();
    let sources = join_all(graph.sources().map(|at| async move {
        let node = &graph.nodes[at];
        let mut checks = Checks::default();
        let found = match checks.take(node.parsed.source(&graph.context(node))) {
            Some(mut source) => {
                let cx = context(node);
                let look = source.check(&cx, &mut checks);
                tokio::time::timeout(PATIENCE, look).await.map_err(|_| slow(node))
            }
            None => Ok(Vec::new()),
        };
        let found = checks.take(found).unwrap_or_default();
        (at, found, checks)
    }))
    .await;
    for (at, found, checks) in sources {
        tables.insert((at, 0), found);
        all.insert(at, looked(&graph.nodes[at], checks));
    }
    for (at, node) in graph.nodes.iter().enumerate().filter(|(_, node)| node.kind == Kind::Operator) {
        let mut checks = Checks::default();
        let made = operator(graph, node, &gather(node, &tables), &mut checks);
        for output in 0..node.outputs.len().max(1) {
            tables.insert((at, output), made.clone());
        }
        all.insert(at, looked(node, checks));
    }
    let tables = &tables;
    let sinks = join_all(graph.sinks().map(|at| async move {
        let node = &graph.nodes[at];
        let mut checks = Checks::default();
        if let Some(sink) = checks.take(node.parsed.sink(&graph.context(node))) {
            let (cx, tables) = (context(node), gather(node, tables));
            let done = tokio::time::timeout(PATIENCE, sink.check(&cx, &tables, &mut checks)).await;
            checks.take(done.map_err(|_| slow(node)));
        }
        (at, checks)
    }))
    .await;
    for (at, checks) in sinks {
        all.insert(at, looked(&graph.nodes[at], checks));
    }
    Ok((0..graph.nodes.len()).filter_map(|at| all.remove(&at)).collect())
}

fn looked(node: &Node, checks: Checks) -> Looked {
    Looked { node: Arc::clone(&node.name), kind: node.kind, type_name: Arc::clone(&node.type_name), checks }
}

fn slow(node: &Node) -> CodedError {
    let message = format!("{} \"{}\" was still looking after {} s", node.kind.noun(), node.name, PATIENCE.as_secs());
    CodedError::transient(CHECK_SLOW, message).hint("a server does not answer, and does not refuse: look at the network between")
}

/// The pipeline's state, to be read; `None` when a process that runs the pipeline has it.
fn state(graph: &Graph) -> Result<Option<Arc<dyn StateStore>>, CodedError> {
    graph.state.open_unless_in_use(&graph.pipeline)
}

/// The tables that come to a node.
fn gather(node: &Node, tables: &Tables) -> Vec<Arc<TableSchema>> {
    node.inputs.iter().filter_map(|input| tables.get(&(input.node, input.output))).flatten().cloned().collect()
}

/// What an operator makes of tables.
fn operator(graph: &Graph, node: &Node, tables: &[Arc<TableSchema>], checks: &mut Checks) -> Vec<Arc<TableSchema>> {
    let Some(mut operator) = checks.take(node.parsed.operator(&graph.context(node))) else { return Vec::new() };
    let mut made = Vec::with_capacity(tables.len());
    let mut changed = 0;
    for table in tables {
        if let Some(out) = checks.take(operator.schema(table)) {
            changed += usize::from(out != **table);
            made.push(Arc::new(out));
        }
    }
    if made.len() == tables.len() && !tables.is_empty() {
        checks.fine(format!("fits the columns of {} tables, and changes those of {changed}", tables.len()));
    }
    made
}
