//! What every node and the engine agree on: the row batch, its order, its time, and the traits of a node.
//!
//! ```text
//! Source ──Raw rows──> decode+encode ──Row batches──> Operator… ──> batch ──Delivery──> Writer (of a Sink)
//!    ^                                                                                     │
//!    └───────────────────────── durable Ts <── frontier <── Ack ───────────────────────────┘
//! ```
//!
//! Nothing here does I/O. Stages depend on this module and not on each other.

mod batch;
mod built_in;
pub(crate) mod calendar;
mod cells;
mod check;
mod connections;
mod contents;
mod dead_letter;
mod error;
pub(crate) mod float;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
pub(crate) mod hex;
mod item;
mod kept;
mod log_ends;
mod node;
mod position;
mod raw;
mod registry;
mod render;
mod schema;
mod settings;
mod sink;
mod slots;
mod source;
mod spelling;
mod state;
mod status;
mod together;
mod wal;
mod wire;

pub use batch::{Op, RowBatch};
pub use cells::Cells;
pub use check::{CheckContext, Checked, Checks, Standing};
pub use connections::{ConnectionSettings, Connections, Permit, Replicating, ServerConnections};
pub use contents::{Contents, Copied, Held, TakeLine, WantTable};
pub use dead_letter::{DeadLetter, DeadLetters, Replayed};
pub use error::{Class, Code, CodedError, Exit};
pub use item::{Item, Items, Mark};
pub use log_ends::{Known, LogEnds};
pub use node::{BuildContext, Finding, Findings, NodeConfig, Operator, OperatorConfig, Output, Peers, SinkConfig, SourceConfig, Watch};
pub use position::{Lsn, Token, Ts};
pub use raw::{Commit, Format, RawItem, RawItems, RawRow, RawRows};
pub use registry::{Kind, NodeType, ParseNode, ParsedNode, Registry};
pub use render::{Fail, OperatorNode, Render, RenderConfig, RenderContext};
pub use schema::{Column, ColumnType, PgType, ReplicaIdentity, Storage, TableId, TableSchema, qualified};
pub use settings::{ByteSize, CFG_SECRET, Period, Secret, SecretString, TablePattern, TableSelection};
pub use sink::{Ack, AckReport, BatchSettings, Deliveries, Delivery, RetrySettings, Sink, Writer, WriterContext};
pub use slots::{Dropped, SlotFacts};
pub use source::{Chunk, ChunkSender, Credits, Durable, OWN_CREDIT, Pressure, Source, SourceClosed, SourceContext};
pub use spelling::double_holds;
pub(crate) use spelling::place_point;
pub use state::{MemoryState, StateKey, StateStore, awaits_copy};
pub use status::{AlertStatus, Pending, Phase, PipelineStatus, SinkStatus, SourceStatus, StoppedTable, TableStatus};
pub use together::{next_together, together};
pub use wal::{WalDecoded, WalSender, WalServer, WalSlot};
