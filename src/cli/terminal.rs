//! What the terminal can do: colours and width.

use crate::config::Drawing;
use std::io::{IsTerminal, stderr};

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set; CLICOLOR_FORCE forces it.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Colour {
    /// Whether stderr gets colours.
    pub(super) fn enabled(self) -> bool {
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto if set("NO_COLOR") => false,
            Self::Auto if std::env::var_os("CLICOLOR_FORCE").is_some_and(|v| !v.is_empty() && v != "0") => true,
            Self::Auto => stderr().is_terminal() && !dumb(),
        }
    }
}

fn dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|t| t == "dumb")
}

/// How problems are drawn.
pub(super) fn drawing(colour: bool) -> Drawing {
    match colour {
        _ if dumb() || std::env::var_os("NO_GRAPHICS").is_some_and(|v| !v.is_empty() && v != "0") => Drawing::Narrated,
        true => Drawing::Colour,
        false => Drawing::Plain,
    }
}

/// Columns of the terminal.
pub(super) fn width() -> usize {
    std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).unwrap_or(100).clamp(40, 200)
}

/// Whether the terminal's characters are UTF-8.
pub(super) fn utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(|n| std::env::var(n).ok()).find(|v| !v.is_empty());
    // Without a locale nothing is known; every terminal of today is UTF-8.
    locale.is_none_or(|l| l.to_ascii_lowercase().replace('-', "").contains("utf8"))
}
