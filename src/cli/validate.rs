//! `etl-stream validate`: checks pipeline files without touching the network.

use super::{Shell, terminal};
use crate::config::{self, Environment, Loaded};
use crate::exit::{Failure, verdict};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// How findings are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people, on stderr.
    #[default]
    Human,
    /// One JSON object, on stdout.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct ValidateArgs {
    /// Pipeline files.
    #[arg(value_name = "FILE", default_value = "pipeline.yaml")]
    files: Vec<PathBuf>,
    /// How findings are shown.
    #[arg(long, value_enum, default_value_t, env = "ETL_STREAM_VALIDATE_FORMAT", hide_env_values = true)]
    format: Format,
    /// Exit with 4 when there are warnings.
    #[arg(long, env = "ETL_STREAM_DENY_WARNINGS", hide_env_values = true)]
    deny_warnings: bool,
    /// Print each file with its defaults merged in, secrets left out.
    #[arg(long)]
    show_effective: bool,
    /// Leave `${NAME}` alone: checks files without their environment.
    #[arg(long, env = "ETL_STREAM_NO_ENV", hide_env_values = true)]
    no_env: bool,
}

impl ValidateArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let loaded: Vec<Loaded> = self.files.iter().map(|file| load(file, self.no_env, shell)).collect();
        let verdicts: Vec<Result<(), Failure>> = loaded.iter().map(|l| verdict(&l.problems, self.deny_warnings)).collect();
        if self.format == Format::Json {
            let findings: Vec<Value> = loaded.iter().flat_map(|l| l.problems.json()).collect();
            let mut answer = json!({ "command": "validate", "ok": verdicts.iter().all(Result::is_ok), "findings": findings });
            if let (true, Some(map)) = (self.show_effective, answer.as_object_mut()) {
                let shown = loaded.iter().map(|l| json!({ "file": &*l.problems.file, "yaml": l.effective }));
                map.insert("effective".into(), shown.collect());
            }
            writeln!(shell.out, "{answer}")?;
        } else {
            for loaded in &loaded {
                report(loaded, shell)?;
                match (&loaded.effective, self.show_effective) {
                    (Some(effective), true) => shell.out.write_all(effective.as_bytes())?,
                    _ => summary(loaded, shell)?,
                }
            }
        }
        // The worst verdict counts: errors before denied warnings.
        verdicts.into_iter().filter_map(Result::err).min_by_key(Failure::code).map_or(Ok(()), Err)
    }
}

/// Reads a file with this process's environment, or without.
pub(super) fn load(file: &Path, no_env: bool, shell: &Shell<'_>) -> Loaded {
    let lookup = |name: &str| std::env::var(name).ok();
    config::load(file, shell.registry, &if no_env { Environment::Opaque } else { Environment::Lookup(&lookup) })
}

/// Shows a file's problems.
pub(super) fn report(loaded: &Loaded, shell: &mut Shell<'_>) -> Result<(), Failure> {
    Ok(shell.err.write_all(loaded.problems.draw(terminal::drawing(shell.colour), terminal::width()).as_bytes())?)
}

fn summary(loaded: &Loaded, shell: &mut Shell<'_>) -> Result<(), Failure> {
    let problems = &loaded.problems;
    let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let what = match (problems.errors(), problems.warnings()) {
        (0, 0) => "ok".to_owned(),
        (0, warnings) => format!("ok, {}", count(warnings, "warning")),
        (errors, 0) => count(errors, "error"),
        (errors, warnings) => format!("{}, {}", count(errors, "error"), count(warnings, "warning")),
    };
    Ok(writeln!(shell.err, "{}: {what}", problems.file)?)
}
