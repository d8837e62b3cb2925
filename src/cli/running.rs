//! How commands find the process that runs a pipeline.

use crate::graph::Graph;
use clap::Args;
use std::net::SocketAddr;

/// Where the process is.
#[derive(Debug, Args)]
pub(super) struct Running {
    /// Where the process listens, when it was started with --listen.
    #[arg(long, value_name = "ADDRESS:PORT", env = "ETL_STREAM_LISTEN", hide_env_values = true, value_parser = listen)]
    listen: Option<Listen>,
}

/// An address, or `none`.
type Listen = Option<SocketAddr>;

fn listen(text: &str) -> Result<Listen, String> {
    match text {
        "none" => Ok(None),
        text => text.parse().map(Some).map_err(|_| "write an address and a port such as 127.0.0.1:8080".into()),
    }
}

impl Running {
    /// Where it is asked; `None`: it cannot be.
    pub(super) fn address(&self, graph: &Graph) -> Option<SocketAddr> {
        self.listen.unwrap_or_else(|| graph.server.map(|server| server.listen))
    }
}
