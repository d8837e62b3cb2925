//! `etl-stream import`: pipeline files of the program before this one's configuration database.

use super::Shell;
use super::terminal;
use crate::config::{self, Environment};
use crate::exit::Failure;
use crate::import::{Made, Translated, read, translate};
use crate::{Code, CodedError, Exit, SecretString};
use clap::Args;
use std::path::{Path, PathBuf};

/// A file was not written.
const NOT_WRITTEN: Code = Code::new("IMP0002", Exit::Usage);

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The configuration database, as postgres://user:password@host/database. It is only read, and no password of it is
    /// written anywhere.
    #[arg(value_name = "URL", env = "CONFIG_DB_URL", hide_env_values = true)]
    url: String,
    /// The folder to write the pipeline files to; made if absent.
    #[arg(short, long, value_name = "FOLDER", default_value = "pipelines")]
    out: PathBuf,
    /// The schema of the tables sources, destinations and pipelines.
    #[arg(long, value_name = "NAME", default_value = "public")]
    schema: String,
    /// Overwrite files that are there.
    #[arg(long)]
    force: bool,
}

impl ImportArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let url = SecretString::from(self.url.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let found = runtime.block_on(read(&url, &self.schema))?;
        let made = translate(&found, &|name| std::env::var(name).ok());
        for file in &made.files {
            self.check(file, shell)?;
        }
        self.write(&made)?;
        self.say(&made, shell)?;
        if made.failed > 0 { Err(Failure::Reported(Exit::Negative)) } else { Ok(()) }
    }

    /// Nothing is written that `validate` would refuse.
    fn check(&self, made: &Made, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let path = self.out.join(&made.file);
        let loaded = config::parse(&path.display().to_string(), &made.text, &path, shell.registry, &Environment::Opaque);
        if loaded.problems.list.is_empty() {
            return Ok(());
        }
        shell.err.write_all(loaded.problems.draw(terminal::drawing(shell.colour), terminal::width()).as_bytes())?;
        Err(Failure::Reported(Exit::Usage))
    }

    /// Writes all files, or none when one of them is there.
    fn write(&self, made: &Translated) -> Result<(), Failure> {
        let failed = |path: &Path, error: std::io::Error| {
            CodedError::definite(NOT_WRITTEN, format!("\"{}\" was not written", path.display()))
                .caused_by(error)
                .hint("name another folder with --out, or overwrite the files of this one with --force")
        };
        std::fs::create_dir_all(&self.out).map_err(|error| failed(&self.out, error))?;
        let paths: Vec<PathBuf> = made.files.iter().map(|file| self.out.join(&file.file)).collect();
        if let Some(there) = paths.iter().find(|path| !self.force && path.exists()) {
            return Err(failed(there, std::io::ErrorKind::AlreadyExists.into()).into());
        }
        for (path, file) in paths.iter().zip(&made.files) {
            std::fs::write(path, &file.text).map_err(|error| failed(path, error))?;
        }
        Ok(())
    }

    /// The files to stdout; what is to be known to stderr.
    fn say(&self, made: &Translated, shell: &mut Shell<'_>) -> Result<(), Failure> {
        for file in &made.files {
            writeln!(shell.out, "{}", self.out.join(&file.file).display())?;
        }
        let mut said = |title: &str, lines: &mut dyn Iterator<Item = String>| -> std::io::Result<()> {
            let mut lines = lines.peekable();
            if lines.peek().is_some() {
                writeln!(shell.err, "\n{title}:")?;
            }
            lines.try_for_each(|line| writeln!(shell.err, "  {line}"))
        };
        said(
            "Set these variables; their values are in the configuration database and were not copied",
            &mut made.secrets.iter().map(|(name, place)| format!("{name}: {place}")),
        )?;
        said("To know", &mut made.notes.iter().map(|note| format!("{}: {}", note.about, note.what)))?;
        let folder = self.out.display();
        writeln!(shell.err, "\nnext: `etl-stream validate {folder}/*.yaml`, then `etl-stream check` for each")?;
        Ok(())
    }
}
