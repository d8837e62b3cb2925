//! temporary
pub use etl_stream_operators::contract::Kind;
use etl_stream_operators::contract::{ByteSize, ParsedNode};
use std::path::{Path, PathBuf};
use std::sync::Arc;
pub struct Input {
    pub node: usize,
    pub output: usize,
}
pub struct Node {
    pub name: Arc<str>,
    pub kind: Kind,
    pub type_name: Arc<str>,
    pub parsed: Arc<dyn ParsedNode>,
    pub inputs: Vec<Input>,
    pub outputs: Vec<String>,
}
pub struct EngineS {
    pub workers: usize,
    pub credit: ByteSize,
    pub source_credit: ByteSize,
}
pub struct ServerS {
    pub listen: Option<String>,
}
pub struct Graph {
    pub pipeline: Arc<str>,
    pub folder: Arc<Path>,
    pub nodes: Vec<Node>,
    pub engine: EngineS,
    pub server: ServerS,
}
impl Graph {
    pub fn state_path(&self) -> PathBuf {
        self.folder.join("x")
    }
}
