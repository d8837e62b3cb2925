//! Kinds of settings that several nodes share: secrets, durations, sizes and table patterns.

use super::{Code, CodedError, Exit};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub use secrecy::SecretString;

/// A secret could not be read.
pub const CFG_SECRET: Code = Code::new("CFG0020", Exit::Environment);

/// A secret, named and not written down: exactly one of `env`, `file`, `command` or, against advice, `plain`.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("secret" = true))]
pub struct Secret {
    /// The environment variable that holds it.
    #[serde(default)]
    pub env: Option<String>,
    /// The file that holds it; a newline at its end is dropped.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// The command whose output is it, as a list of words; no shell.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// The secret itself. Warned of: a file with it must be kept like a key.
    #[serde(default)]
    pub plain: Option<String>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.place())
    }
}

impl Secret {
    /// How many of the forms are given; one is right.
    #[must_use]
    pub fn forms(&self) -> usize {
        usize::from(self.env.is_some())
            + usize::from(self.file.is_some())
            + usize::from(self.command.is_some())
            + usize::from(self.plain.is_some())
    }

    /// Where it comes from, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        match (&self.env, &self.file, &self.command) {
            (Some(name), ..) => format!("environment variable {name}"),
            (_, Some(path), _) => format!("file {}", path.display()),
            (.., Some(argv)) => format!("command {}", argv.first().map_or("", String::as_str)),
            _ => "the pipeline file".into(),
        }
    }

    /// Reads it; a relative file starts at `folder`.
    ///
    /// # Errors
    /// `CFG0020`, naming the place and never the secret.
    pub fn read(&self, folder: &Path) -> Result<SecretString, CodedError> {
        let failed = |why: String| CodedError::definite(CFG_SECRET, format!("the secret was not read from {}: {why}", self.place()));
        if self.forms() != 1 {
            return Err(failed("exactly one of env, file, command, plain is needed".into()));
        }
        let mut text = if let Some(name) = &self.env {
            std::env::var(name).map_err(|_| failed("it is not set".into()).hint(format!("export {name}=…")))?
        } else if let Some(path) = &self.file {
            std::fs::read_to_string(folder.join(path)).map_err(|e| failed(e.to_string()))?
        } else if let Some([program, words @ ..]) = self.command.as_deref() {
            let output = Command::new(program).args(words).current_dir(folder).output().map_err(|e| failed(e.to_string()))?;
            if !output.status.success() {
                return Err(failed(output.status.to_string()));
            }
            String::from_utf8(output.stdout).map_err(|_| failed("it is not UTF-8".into()))?
        } else {
            self.plain.clone().ok_or_else(|| failed("the command is empty".into()))?
        };
        let length = text.trim_end_matches(['\r', '\n']).len();
        text.truncate(length);
        Ok(SecretString::from(text))
    }
}

macro_rules! text_setting {
    ($name:ident, $pattern:literal, $description:literal) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $description })
            }
        }
    };
}

/// A duration such as `200ms`, `5s`, `15m`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);
text_setting!(Period, "^[0-9]+(ms|s|m|h|d)$", "A duration such as 200ms, 5s, 15m, 1h or 7d.");

impl Period {
    /// So many milliseconds.
    #[must_use]
    pub const fn millis(count: u64) -> Self {
        Self(Duration::from_millis(count))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is not a duration; write one such as 200ms, 5s, 15m, 1h or 7d");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (count, unit) = text.split_at(digits);
        let factor = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(form()),
        };
        let count: u64 = count.parse().map_err(|_| form())?;
        count.checked_mul(factor).map(Self::millis).ok_or_else(form)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        for (unit, factor) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
            if millis > 0 && millis.is_multiple_of(factor) {
                return write!(f, "{}{unit}", millis / factor);
            }
        }
        write!(f, "{millis}ms")
    }
}

/// A size such as `512KiB`, `64MiB`, `1GB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);
text_setting!(ByteSize, "^[0-9]+(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$", "A size such as 512KiB, 64MiB or 1GB.");

impl ByteSize {
    /// So many MiB.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let form = || format!("`{text}` is not a size; write one such as 512KiB, 64MiB or 1GB");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (count, unit) = text.split_at(digits);
        let factor = match unit {
            "B" => 1,
            "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(form()),
        };
        let count: u64 = count.parse().map_err(|_| form())?;
        count.checked_mul(factor).map(Self).ok_or_else(form)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 > 0 && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// A table pattern: `schema.table`, where `*` in either part stands for any characters. Case-sensitive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TablePattern {
    schema: String,
    table: String,
}
text_setting!(TablePattern, "^.+\\..+$", "A table as schema.table; * in either part stands for any characters.");

impl TablePattern {
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('.') {
            Some((schema, table)) if !schema.is_empty() && !table.is_empty() => Ok(Self { schema: schema.into(), table: table.into() }),
            _ => Err(format!("`{text}` is not a table pattern; write schema.table, such as public.orders or public.*")),
        }
    }

    /// Whether a table fits.
    #[must_use]
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        fn fits(pattern: &[u8], text: &[u8]) -> bool {
            match pattern.split_first() {
                None => text.is_empty(),
                Some((b'*', rest)) => (0..=text.len()).any(|skip| fits(rest, &text[skip..])),
                Some((letter, rest)) => text.split_first().is_some_and(|(first, tail)| first == letter && fits(rest, tail)),
            }
        }
        fits(self.schema.as_bytes(), schema.as_bytes()) && fits(self.table.as_bytes(), table.as_bytes())
    }
}

impl TablePattern {
    /// The same as patterns of SQL's `LIKE`, for the schema and for the table.
    #[must_use]
    pub fn like(&self) -> (String, String) {
        fn like(pattern: &str) -> String {
            let mut like = String::with_capacity(pattern.len());
            for letter in pattern.chars() {
                match letter {
                    '*' => like.push('%'),
                    '%' | '_' | '\\' => like.extend(['\\', letter]),
                    _ => like.push(letter),
                }
            }
            like
        }
        (like(&self.schema), like(&self.table))
    }
}

impl fmt::Display for TablePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// Which tables: all that `include` names and `exclude` does not.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TableSelection {
    /// Tables to take.
    pub include: Vec<TablePattern>,
    /// Tables to leave out of those.
    pub exclude: Vec<TablePattern>,
}

impl Default for TableSelection {
    fn default() -> Self {
        Self { include: vec![TablePattern { schema: "*".into(), table: "*".into() }], exclude: Vec::new() }
    }
}

impl TableSelection {
    /// Whether a table is selected.
    #[must_use]
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        self.include.iter().any(|p| p.matches(schema, table)) && !self.exclude.iter().any(|p| p.matches(schema, table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes() {
        for (text, millis) in [
            ("200ms", Some(200)),
            ("5s", Some(5_000)),
            ("15m", Some(900_000)),
            ("7d", Some(604_800_000)),
            ("5", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("99999999999999999999d", None),
        ] {
            assert_eq!(Period::parse(text).ok().map(|p| p.0.as_millis()), millis, "{text}");
        }
        for (text, bytes) in
            [("64MiB", Some(64 << 20)), ("1GB", Some(1_000_000_000)), ("0B", Some(0)), ("64", None), ("MiB", None), ("64mib", None)]
        {
            assert_eq!(ByteSize::parse(text).ok().map(|s| s.0), bytes, "{text}");
        }
        assert_eq!(Period::millis(90_000).to_string(), "90s");
        assert_eq!(ByteSize::mib(64).to_string(), "64MiB");
    }

    #[test]
    fn patterns_of_like() {
        for (pattern, schema, table) in [("public.*", "public", "%"), ("*.a*b", "%", "a%b"), ("my_app.50%\\", r"my\_app", r"50\%\\")] {
            assert_eq!(TablePattern::parse(pattern).map(|p| p.like()), Ok((schema.into(), table.into())), "{pattern}");
        }
    }

    #[test]
    fn table_patterns() {
        for (pattern, schema, table, fits) in [
            ("public.*", "public", "orders", true),
            ("public.*_archive", "public", "orders_archive", true),
            ("public.*_archive", "public", "archive", false),
            ("*.*", "a", "b", true),
            ("a.b", "a", "B", false),
            ("a.b.c", "a", "b.c", true),
        ] {
            assert_eq!(TablePattern::parse(pattern).map(|p| p.matches(schema, table)), Ok(fits), "{pattern}");
        }
        assert!(TablePattern::parse("orders").is_err());
    }
}
