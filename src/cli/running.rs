//! How commands find the process that runs a pipeline.

use super::{Shell, validate};
use crate::config::ServerSettings;
use crate::exit::{Failure, verdict};
use crate::graph::Graph;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

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
    /// Where it is asked; `None`: it cannot be. Without a pipeline file at hand it is where one without `server` says.
    pub(super) fn address(&self, graph: Option<&Graph>) -> Option<SocketAddr> {
        self.listen
            .unwrap_or_else(|| graph.map_or_else(|| Some(ServerSettings::default()), |graph| graph.server).map(|server| server.listen))
    }
}

/// Which pipeline is meant.
#[derive(Debug, Args)]
pub(super) struct Named {
    /// The pipeline file.
    #[arg(short, long, default_value = "pipeline.yaml", env = "ETL_STREAM_FILE", hide_env_values = true)]
    file: PathBuf,
    /// The name of a pipeline that runs, instead of its file.
    #[arg(short, long, value_name = "NAME", env = "ETL_STREAM_PIPELINE", hide_env_values = true)]
    pipeline: Option<String>,
}

/// A pipeline's name, and what its file says where that is what names it.
type Meant = (Arc<str>, Option<Graph>);

impl Named {
    /// Its name, and what its file says where that is what names it. `None`: a file could not be read to its end.
    pub(super) fn pipeline(&self, shell: &mut Shell<'_>) -> Result<Option<Meant>, Failure> {
        if let Some(name) = &self.pipeline {
            return Ok(Some((name.as_str().into(), None)));
        }
        let loaded = validate::load(&self.file, false, shell);
        validate::report(&loaded, shell)?;
        verdict(&loaded.problems, false)?;
        Ok(loaded.graph.map(|graph| (Arc::clone(&graph.pipeline), Some(graph))))
    }
}
