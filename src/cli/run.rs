//! `etl-stream run`: checks a pipeline file and hands its graph to the engine, or a folder of them to the fleet.

use super::{Shell, validate};
use crate::config::ServerSettings;
use crate::dataflow::{self, Cluster, RunOptions, Until};
use crate::exit::{Failure, verdict};
use crate::fleet::{self, FleetOptions};
use crate::{Code, CodedError, Exit};
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
    /// How many processes run the pipeline together. Each is started with its own --process, and its state is in PostgreSQL.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), requires = "process", env = "ETL_STREAM_PROCESSES", hide_env_values = true)]
    processes: Option<u16>,
    /// Which of them this one is, from 0.
    #[arg(long, value_name = "I", requires = "processes", env = "ETL_STREAM_PROCESS", hide_env_values = true)]
    process: Option<u16>,
    /// Where they listen for each other: a file with a line `host:port` for each, in their order.
    #[arg(long, value_name = "FILE", requires = "processes", env = "ETL_STREAM_HOSTFILE", hide_env_values = true)]
    hostfile: Option<PathBuf>,
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

/// The host file or the number of processes is not usable.
const HOSTS: Code = Code::new("RUN0054", Exit::Usage);

fn bad(message: &str, hint: &str) -> CodedError {
    CodedError::definite(HOSTS, message).hint(hint)
}

impl RunArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let options = RunOptions { until: self.until, shutdown_timeout: self.shutdown_timeout };
        let cluster = self.cluster()?;
        if self.file.is_dir() {
            if cluster.is_some() {
                return Err(bad("several processes run one pipeline file, not a folder", "give each process a folder of its own").into());
            }
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
        Ok(dataflow::run_among(cluster, graph, options)?)
    }

    fn cluster(&self) -> Result<Option<Cluster>, CodedError> {
        let (Some(processes), Some(process)) = (self.processes, self.process) else { return Ok(None) };
        if processes == 1 && process == 0 {
            return Ok(None);
        }
        if process >= processes {
            return Err(bad(&format!("there is no process {process} of {processes}"), "count them from 0"));
        }
        let Some(file) = &self.hostfile else {
            return Err(bad(
                "the processes do not know where the others are",
                "name a file with a line host:port for each with --hostfile",
            ));
        };
        let text = std::fs::read_to_string(file)
            .map_err(|e| bad(&format!("host file \"{}\" was not read", file.display()), "check its name").caused_by(e))?;
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        let addresses: Vec<String> = lines.filter(|line| !line.is_empty()).map(str::to_owned).collect();
        if addresses.len() != usize::from(processes) || addresses.iter().any(|address| !address.contains(':')) {
            let message = format!("host file \"{}\" does not have {processes} lines of host:port", file.display());
            return Err(bad(&message, "write a line for each process, in their order; # begins a comment"));
        }
        Ok(Some(Cluster { process: process.into(), addresses }))
    }
}
