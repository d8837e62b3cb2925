//! `etl-stream run`: checks a pipeline file and hands its graph to the engine, or a folder of them to the fleet.

use super::{Shell, validate};
use crate::config::ServerSettings;
use crate::dataflow::{self, RunOptions, Until};
use crate::exit::{Failure, verdict};
use crate::fleet::{self, FleetOptions};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Where the server listens.
#[derive(Clone, Copy, Debug)]
struct Listen(Option<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            text => text.parse().map(|a| Self(Some(a))).map_err(|_| "write an address and a port such as 127.0.0.1:8080, or none".into()),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The pipeline file, or a folder: then every *.yaml and *.yml in it is a pipeline, and files that are added, changed and
    /// removed are followed.
    #[arg(default_value = "pipeline.yaml", env = "ETL_STREAM_FILE", hide_env_values = true)]
    file: PathBuf,
    /// End when everything up to here is durable: `caught-up` (where the sources are now) or an LSN.
    #[arg(long, value_name = "caught-up|LSN", env = "ETL_STREAM_UNTIL", hide_env_values = true)]
    until: Option<Until>,
    /// Worker threads, instead of the file's `engine.workers`; of a folder, the threads that its pipelines share.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), env = "ETL_STREAM_WORKERS", hide_env_values = true)]
    workers: Option<u16>,
    /// How long a shutdown may take to finish what is in flight.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s", env = "ETL_STREAM_SHUTDOWN_TIMEOUT", hide_env_values = true)]
    shutdown_timeout: Duration,
    /// Where the server listens, instead of the file's `server`; `none` for no server.
    #[arg(long, value_name = "ADDRESS:PORT", env = "ETL_STREAM_LISTEN", hide_env_values = true)]
    listen: Option<Listen>,
}

/// A duration as the pipeline file writes them.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    serde_json::from_value::<crate::Period>(text.into()).map(|period| period.0).map_err(|e| e.to_string())
}

impl RunArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let options = RunOptions { until: self.until, shutdown_timeout: self.shutdown_timeout };
        if self.file.is_dir() {
            let listen = self.listen.map(|Listen(address)| address);
            let options = FleetOptions { run: options, workers: self.workers.map(usize::from), listen };
            return fleet::run(&self.file, shell.registry, options);
        }
        let loaded = validate::load(&self.file, false, shell);
        validate::report(&loaded, shell)?;
        verdict(&loaded.problems, false)?;
        let Some(mut graph) = loaded.graph else { return Ok(()) };
        if let Some(workers) = self.workers {
            graph.engine.workers = usize::from(workers);
        }
        if let Some(Listen(address)) = self.listen {
            graph.server = address.map(|listen| ServerSettings { listen, ..graph.server.unwrap_or_default() });
        }
        Ok(dataflow::run(graph, options)?)
    }
}
