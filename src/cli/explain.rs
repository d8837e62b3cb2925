//! `etl-stream explain`: the page of an error code, from `docs/errors/`.

use super::Shell;
use crate::Exit;
use crate::config::suggestion;
use crate::exit::Failure;
use clap::Args;

include!(concat!(env!("OUT_DIR"), "/errors.rs"));

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The code, such as CFG0004. Without one, all are listed.
    code: Option<String>,
}

impl ExplainArgs {
    pub(super) fn run(self, shell: &mut Shell<'_>) -> Result<(), Failure> {
        let Some(code) = self.code else {
            for (code, page) in PAGES {
                writeln!(shell.out, "{code}  {}", title(page))?;
            }
            return Ok(());
        };
        let code = code.to_ascii_uppercase();
        if let Some((_, page)) = PAGES.iter().find(|(c, _)| *c == code) {
            return Ok(shell.out.write_all(page.as_bytes())?);
        }
        writeln!(shell.err, "error: there is no error code {code}")?;
        if let Some(help) = suggestion(&code, PAGES.iter().map(|(c, _)| *c)) {
            writeln!(shell.err, "  help: {help}")?;
        }
        Err(Failure::Reported(Exit::Usage))
    }
}

/// A page's title: its first line, `# CODE: title`.
pub(super) fn title(page: &str) -> &str {
    let first = page.lines().next().unwrap_or_default();
    first.split_once(": ").map_or(first, |(_, title)| title)
}
