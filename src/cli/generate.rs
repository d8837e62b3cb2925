//! `etl-stream generate`: everything that follows from the code.

use super::{Shell, command, reference, schema};
use crate::exit::Failure;
use clap::{Args, Subcommand};
use clap_complete::Shell as CompletionShell;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct GenerateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The JSON Schema of a pipeline file, for editors.
    Schema,
    /// Completions for a shell.
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: CompletionShell,
    },
    /// The man page; with --out one for each command.
    Man {
        /// The folder to write the pages to.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// The reference of settings, commands and error codes, as Markdown.
    Reference,
}

impl GenerateArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        match self.what {
            What::Schema => writeln!(shell.out, "{:#}", schema::schema(shell.registry))?,
            What::Completions { shell: which } => {
                // clap_complete panics when its writer fails; a buffer does not.
                let mut buffer = Vec::new();
                clap_complete::generate(which, &mut command(), "etl-stream", &mut buffer);
                // For bash it names a program with a hyphen in two ways, and so never finds its subcommands
                // (clap_complete 4.6.11): one way it is.
                let text = String::from_utf8_lossy(&buffer).replace("etl__subcmd__stream", "etl__stream");
                shell.out.write_all(text.as_bytes())?;
            }
            What::Man { out: Some(folder) } => {
                std::fs::create_dir_all(&folder)?;
                clap_mangen::generate_to(command(), &folder)?;
            }
            What::Man { out: None } => clap_mangen::Man::new(command()).render(&mut shell.out)?,
            What::Reference => shell.out.write_all(reference::page(shell.registry, &command()).as_bytes())?,
        }
        Ok(())
    }
}
