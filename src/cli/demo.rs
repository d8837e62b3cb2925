//! `etl-stream demo`: the main job on embedded defaults.

use crate::demo::{self, DemoOptions};
use crate::exit::Failure;
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// How long the workload changes the shop.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, env = "ETL_STREAM_DEMO_SECONDS", hide_env_values = true)]
    seconds: u64,
    /// Rows of the shop before the workload.
    #[arg(long, value_name = "ROWS", default_value_t = 200_000, env = "ETL_STREAM_DEMO_ROWS", hide_env_values = true)]
    rows: u32,
    /// Keep the folder; on a terminal, keep the servers too until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

impl DemoArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        Ok(demo::run(DemoOptions { seconds: self.seconds, rows: self.rows, keep: self.keep })?)
    }
}
