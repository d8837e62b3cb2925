//! `etl-stream pause` and `etl-stream resume`: whether sources read, in the process that runs the pipeline and after it.

use super::Shell;
use super::running::{Named, Running};
use crate::Kind;
use crate::checkpoint::{Pause, Wish};
use crate::exit::Failure;
use crate::server::client;
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// Sources of the pipeline; all without any.
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    running: Running,
}

impl PauseArgs {
    pub(super) fn run(self, wish: Wish, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let Some((pipeline, graph)) = self.named.pipeline(shell)? else { return Ok(()) };
        let pause = Pause::asked(&pipeline, self.sources);
        let address = self.running.address(graph.as_ref());
        // A running pipeline has its state to itself.
        let running = address.and_then(|address| client::tell(address, wish, &pause)).transpose()?;
        let runs = running.is_some();
        let told = match (running, graph) {
            (Some(told), _) => told,
            (None, Some(graph)) => {
                let known: Vec<&str> = graph.nodes.iter().filter(|node| node.kind == Kind::Source).map(|node| &*node.name).collect();
                pause.store(wish, &*graph.state.open_to_mark()?, &known)?
            }
            // Only its file says where its state is.
            (None, None) => return Err(client::not_running(&pipeline, address).into()),
        };
        for source in &told {
            writeln!(shell.out, "{source} {}", if wish == Wish::Pause { "paused" } else { "resumed" })?;
        }
        let when = if runs { "the pipeline, which is running, was told" } else { "the pipeline does not run here; its next run does so" };
        writeln!(shell.err, "{when}")?;
        if wish == Wish::Pause {
            let warning = "while a source is paused its server keeps all log from its slot's position on, and the disk fills: \
                           watch it with `etl-stream slot list`, and resume in time (max_slot_wal_keep_size bounds it, and then costs the slot)";
            writeln!(shell.err, "{warning}")?;
        }
        Ok(())
    }
}
