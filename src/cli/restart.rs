//! `etl-stream restart`: has one pipeline of a folder drain and start again, with its secrets read anew.

use super::Shell;
use super::running::{Named, Running};
use crate::exit::Failure;
use crate::server::client;
use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "For a process that runs a folder of pipelines. The others are not disturbed.")]
pub(super) struct RestartArgs {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    running: Running,
}

impl RestartArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let Some((pipeline, graph)) = self.named.pipeline(shell)? else { return Ok(()) };
        let address = self.running.address(graph.as_ref());
        let told = address.and_then(|address| client::restart(address, &pipeline)).transpose()?;
        let told = told.ok_or_else(|| client::not_running(&pipeline, address))?;
        Ok(writeln!(shell.out, "{told} restarts")?)
    }
}
