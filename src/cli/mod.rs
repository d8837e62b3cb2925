//! The command line. Data goes to stdout, everything else to stderr; a reader that leaves is no error.
//!
//! ```text
//! argv ──clap──> Cli ──> one file per command ──> exit code (exit.rs)
//! ```

mod bench;
mod check;
mod dead_letter;
mod demo;
mod describe;
mod explain;
mod generate;
mod graph;
mod import;
mod init;
mod pause;
mod reference;
mod restart;
mod resync;
mod run;
mod running;
mod schema;
mod slot;
mod status;
mod tap;
mod terminal;
#[cfg(test)]
mod tests;
mod top;
mod validate;
mod verify;

use crate::Registry;
use crate::checkpoint::Wish;
use crate::exit::Failure;
use crate::telemetry::logging::{self, LogFormat};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

pub use terminal::Colour;

/// Streams changes of PostgreSQL into Snowflake, exactly once, as a pipeline file says.
#[derive(Debug, Parser)]
#[command(name = "etl-stream", version, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed while running, 2 bad usage or pipeline file, 3 the environment, 4 the answer is no.")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Debug, Args)]
struct Global {
    /// Log more; twice for more still.
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,
    /// Log less; twice for errors only.
    #[arg(short, long, action = ArgAction::Count, global = true)]
    quiet: u8,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t, global = true, env = "ETL_STREAM_LOG_FORMAT", hide_env_values = true)]
    log_format: LogFormat,
    /// What is logged, such as `info,etl_stream=debug`; instead of -v and -q.
    #[arg(long, value_name = "FILTER", global = true, env = "ETL_STREAM_LOG_FILTER", hide_env_values = true)]
    log_filter: Option<String>,
    /// When to use colours.
    #[arg(long, value_enum, default_value_t, global = true, env = "ETL_STREAM_COLOR", hide_env_values = true)]
    color: Colour,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a pipeline, or a folder of them, until it is stopped.
    Run(run::RunArgs),
    /// Copy tables of a pipeline anew, whether it runs or not, without disturbing the others.
    Resync(resync::ResyncArgs),
    /// Copy a live shop database into a local Snowflake, and prove that they are equal.
    Demo(demo::DemoArgs),
    /// Measure what a pipeline takes and gives: rates, latency, CPU, memory.
    Bench(Box<bench::BenchArgs>),
    /// Check pipeline files without touching the network.
    Validate(validate::ValidateArgs),
    /// Write a pipeline file to start from.
    Init(init::InitArgs),
    /// Write pipeline files of the configuration database of the program before this one.
    Import(import::ImportArgs),
    /// Look whether a pipeline could run: servers, privileges, slots, tables, sinks. Changes nothing.
    Check(check::CheckArgs),
    /// Draw a pipeline.
    Graph(graph::GraphArgs),
    /// Show what a running pipeline is doing.
    Status(status::StatusArgs),
    /// Watch a running pipeline.
    Top(top::TopArgs),
    /// Show rows as they leave a node of a running pipeline.
    Tap(tap::TapArgs),
    /// Have sources read no more until they are resumed; their servers keep the log.
    Pause(pause::PauseArgs),
    /// Have paused sources go on.
    Resume(pause::PauseArgs),
    /// Have one pipeline of a folder drain and start again.
    Restart(restart::RestartArgs),
    /// Compare what sinks hold with what their sources have, row by row.
    Verify(verify::VerifyArgs),
    /// List or drop replication slots.
    Slot(slot::SlotArgs),
    /// List or send again the rows that a sink was refused.
    DeadLetter(dead_letter::DeadLetterArgs),
    /// List the node types.
    List(describe::ListArgs),
    /// Describe a node type: its settings, their defaults, an example.
    Describe(describe::DescribeArgs),
    /// Explain an error code.
    Explain(explain::ExplainArgs),
    /// Generate what follows from the code: schema, completions, man pages, reference.
    Generate(generate::GenerateArgs),
}

/// What a command works with.
struct Shell<'a> {
    registry: &'a Registry,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    colour: bool,
}

/// Runs the command line of this process with the node types of `registry`.
#[must_use]
pub fn main(registry: Registry) -> ExitCode {
    // Not locked for good: a sink may write to stdout from its own thread.
    ExitCode::from(run_with(&registry, std::env::args_os(), &mut io::stdout(), &mut io::stderr()))
}

/// Runs a command line, `args` beginning with the program's name, and gives the exit code.
pub fn run_with(registry: &Registry, args: impl IntoIterator<Item = OsString>, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let parsed = command().try_get_matches_from(args).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return usage(&error, out, err),
    };
    let colour = cli.global.color.enabled();
    let filter = logging::filter(cli.global.verbose, cli.global.quiet, cli.global.log_filter.as_deref());
    if let Err(message) = logging::start(cli.global.log_format, &filter, colour) {
        let _ = writeln!(err, "error: {message}");
        return crate::Exit::Usage.code();
    }
    let mut shell = Shell { registry, out, err, colour };
    let done = match cli.command {
        Command::Run(args) => args.run(&mut shell),
        Command::Resync(args) => args.run(&mut shell),
        Command::Demo(args) => args.run(),
        Command::Bench(args) => args.run(&mut shell),
        Command::Validate(args) => args.run(&mut shell),
        Command::Init(args) => args.run(&mut shell),
        Command::Import(args) => args.run(&mut shell),
        Command::Check(args) => args.run(&mut shell),
        Command::Graph(args) => args.run(&mut shell),
        Command::Status(args) => args.run(&mut shell),
        Command::Top(args) => args.run(&mut shell),
        Command::Tap(args) => args.run(&mut shell),
        Command::Pause(args) => args.run(Wish::Pause, &mut shell),
        Command::Resume(args) => args.run(Wish::Resume, &mut shell),
        Command::Restart(args) => args.run(&mut shell),
        Command::Verify(args) => args.run(&mut shell),
        Command::Slot(args) => args.run(&mut shell),
        Command::DeadLetter(args) => args.run(&mut shell),
        Command::List(args) => args.run(&mut shell),
        Command::Describe(args) => args.run(&mut shell),
        Command::Explain(args) => args.run(&mut shell),
        Command::Generate(args) => args.run(&mut shell),
    };
    let done = done.and_then(|()| shell.out.flush().map_err(Failure::from));
    match done {
        Ok(()) => 0,
        Err(failure) => {
            match &failure {
                Failure::Error(error) => _ = writeln!(shell.err, "{}", error.report()),
                Failure::Output(error) if failure.code() != 0 => _ = writeln!(shell.err, "error: the output was not written: {error}"),
                _ => {}
            }
            failure.code()
        }
    }
}

/// The command line's definition.
fn command() -> clap::Command {
    Cli::command()
}

/// Shows what clap has to say: help and version are data, mistakes are not.
fn usage(error: &clap::Error, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let colour = Colour::Auto.enabled();
    let stream: &mut dyn Write = if error.use_stderr() { err } else { out };
    let text = error.render();
    let written = if colour { write!(stream, "{}", text.ansi()) } else { write!(stream, "{text}") };
    match written {
        Err(error) => Failure::Output(error).code(),
        Ok(()) => u8::try_from(error.exit_code()).unwrap_or(2),
    }
}
