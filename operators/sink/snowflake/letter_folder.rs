//! Dead letters in a folder: NDJSON files, one letter a line.
//!
//! ```text
//! <folder>/<pipeline>.<source>.<schema>.<table>/<first token>-<last token>.ndjson   token = {commit_lsn:016x}_{ordinal:016x}
//!                                              .<file's name>.tmp                  being written
//!                                              <token>.<outcome>.done              what became of a letter
//! ```
//! A file is written beside, flushed to the disk and renamed, and so is its folder: what has its name is whole and stays.

use super::errors::SF_DEAD_LETTER;
use super::letter::Letter;
use super::letter_table::Kept;
use super::progress::ProgressKey;
use crate::contract::{CodedError, Token};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What a part of a folder's name keeps.
const NAME: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct LetterFolder(pub(super) PathBuf);

fn file_name(token: Token) -> String {
    format!("{:016x}_{:016x}", token.commit_lsn, token.ordinal)
}

fn file_token(text: &str) -> Option<Token> {
    text.replace('_', "/").parse().ok()
}

fn failed(path: &Path, what: &str, error: io::Error) -> CodedError {
    CodedError::definite(SF_DEAD_LETTER, format!("dead letters in \"{}\" could not be {what}", path.display()))
        .hint("make room and give this process the right to read and write there; nothing is acknowledged until then")
        .caused_by(error)
}

/// Writes a file that is whole or not there.
fn publish(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = folder.join(format!(".{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, folder.join(name))?;
    File::open(folder)?.sync_all()
}

fn read_line(line: &str) -> Option<(Letter, u64)> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let letter = Letter {
        token: text("token")?.parse().ok()?,
        op: text("op")?.chars().next()?,
        key: text("key")?,
        code: text("code")?,
        reason: text("reason")?,
        row: text("row")?,
    };
    Some((letter, value.get("rejected").and_then(Value::as_u64).unwrap_or(0)))
}

impl LetterFolder {
    fn of(&self, table: &ProgressKey) -> PathBuf {
        let parts = [&table.pipeline, &table.source, &table.schema, &table.table];
        self.0.join(parts.map(|part| utf8_percent_encode(part, NAME).to_string()).join("."))
    }

    /// Files of rows with tokens within `[low, high]`, in order.
    fn files(folder: &Path, low: Token, high: Token) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let tokens = name.to_str().and_then(|name| name.strip_suffix(".ndjson")?.split_once('-'));
            let Some((first, last)) = tokens.and_then(|(first, last)| Some((file_token(first)?, file_token(last)?))) else { continue };
            if first <= high && last >= low {
                found.push(folder.join(&name));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn letters(folder: &Path, low: Token, high: Token) -> Result<Vec<(Letter, u64)>, CodedError> {
        let mut letters = Vec::new();
        for file in Self::files(folder, low, high).map_err(|e| failed(folder, "listed", e))? {
            let text = fs::read_to_string(&file).map_err(|e| failed(&file, "read", e))?;
            for line in text.lines() {
                let broken = || io::Error::new(io::ErrorKind::InvalidData, "a line is not a dead letter");
                letters.push(read_line(line).ok_or_else(|| failed(&file, "read", broken()))?);
            }
        }
        letters.retain(|(letter, _)| letter.token >= low && letter.token <= high);
        Ok(letters)
    }

    /// The tokens of a table's letters within `[low, high]`, and the count of rejected rows each was written with.
    pub(super) fn known(&self, table: &ProgressKey, low: Token, high: Token) -> Result<HashMap<Token, u64>, CodedError> {
        Ok(Self::letters(&self.of(table), low, high)?.into_iter().map(|(letter, count)| (letter.token, count)).collect())
    }

    /// Writes letters that are not there, with the count of rejected rows once they are (0: they are not among
    /// them). They are in token order.
    pub(super) fn write(&self, table: &ProgressKey, letters: &[Letter], rejected: u64) -> Result<(), CodedError> {
        let (Some(first), Some(last)) = (letters.first(), letters.last()) else { return Ok(()) };
        let known = self.known(table, first.token, last.token)?;
        let new: Vec<&Letter> = letters.iter().filter(|letter| !known.contains_key(&letter.token)).collect();
        let (Some(first), Some(last)) = (new.first(), new.last()) else { return Ok(()) };
        let mut content = Vec::new();
        for letter in &new {
            let line = json!({
                "pipeline": table.pipeline, "source": table.source, "schema": table.schema, "table": table.table,
                "token": letter.token.to_string(), "op": letter.op.to_string(), "key": letter.key, "code": letter.code,
                "reason": letter.reason, "row": letter.row, "rejected": rejected,
            });
            content.extend_from_slice(line.to_string().as_bytes());
            content.push(b'\n');
        }
        let folder = self.of(table);
        let name = format!("{}-{}.ndjson", file_name(first.token), file_name(last.token));
        let written =
            fs::create_dir_all(&folder).and_then(|()| publish(&folder, &name, &content)).and_then(|()| File::open(&self.0)?.sync_all());
        written.map_err(|e| failed(&folder, "written", e))
    }

    /// Letters of a pipeline, in the order of tables and tokens; those that became nothing yet, unless `all`.
    pub(super) fn read(&self, pipeline: &str, all: bool) -> Result<Vec<Kept>, CodedError> {
        let mut kept = Vec::new();
        let entries = match fs::read_dir(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(kept),
            entries => entries.map_err(|e| failed(&self.0, "listed", e))?,
        };
        let mut folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        folders.sort_unstable();
        for folder in folders {
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let parts: Vec<String> = name.split('.').map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned()).collect();
            let [owner, source, schema, table] = parts.as_slice() else { continue };
            if owner != pipeline {
                continue;
            }
            let table = ProgressKey { pipeline: owner.clone(), source: source.clone(), schema: schema.clone(), table: table.clone() };
            let done = Self::done(&folder).map_err(|e| failed(&folder, "listed", e))?;
            let mut letters = Self::letters(&folder, Token::ZERO, Token::end_of(u64::MAX))?;
            letters.sort_by_key(|(letter, _)| letter.token);
            for (letter, _) in letters {
                let outcome = done.get(&letter.token).cloned().unwrap_or_default();
                if all || outcome.is_empty() {
                    kept.push(Kept { table: table.clone(), letter, outcome });
                }
            }
        }
        Ok(kept)
    }

    fn done(folder: &Path) -> io::Result<HashMap<Token, String>> {
        let mut done = HashMap::new();
        for entry in fs::read_dir(folder)? {
            let name = entry?.file_name();
            let marked = name.to_str().and_then(|name| name.strip_suffix(".done")?.split_once('.'));
            if let Some((token, outcome)) = marked.and_then(|(token, outcome)| Some((file_token(token)?, outcome))) {
                done.insert(token, outcome.to_owned());
            }
        }
        Ok(done)
    }

    /// Notes what became of a letter.
    pub(super) fn mark(&self, table: &ProgressKey, token: Token, outcome: &str) -> Result<(), CodedError> {
        let folder = self.of(table);
        publish(&folder, &format!("{}.{outcome}.done", file_name(token)), b"").map_err(|e| failed(&folder, "marked", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_once_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let letters = LetterFolder(folder.path().join("dead"));
        let table = ProgressKey { pipeline: "p.q".into(), source: "s".into(), schema: "a/b".into(), table: "t%".into() };
        let letter = |ordinal| Letter {
            token: Token::new(1, ordinal),
            op: 'u',
            key: "{\"id\": 1}".into(),
            code: "SF0007".into(),
            reason: String::new(),
            row: format!("{{\"ID\":{ordinal},\"A\":\"é\\n\"}}"),
        };
        let read = |all| -> Vec<(u64, String)> {
            let kept = letters.read("p.q", all).unwrap();
            assert!(kept.iter().all(|k| k.table == table && k.letter == letter(k.letter.token.ordinal)));
            kept.into_iter().map(|k| (k.letter.token.ordinal, k.outcome)).collect()
        };
        assert_eq!(read(true), []);
        letters.write(&table, &[letter(1), letter(3)], 2).unwrap();
        letters.write(&table, &[letter(1), letter(2), letter(3), letter(4)], 4).unwrap();
        assert_eq!(read(false).iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1, 2, 3, 4]);
        let known = letters.known(&table, Token::new(1, 2), Token::new(1, 3)).unwrap();
        assert_eq!(known, HashMap::from([(Token::new(1, 2), 4), (Token::new(1, 3), 2)]));
        letters.mark(&table, Token::new(1, 2), "replayed").unwrap();
        assert_eq!(read(false).iter().map(|(at, _)| *at).collect::<Vec<_>>(), [1, 3, 4]);
        assert!(read(true).contains(&(2, "replayed".into())));
        assert_eq!(letters.read("p", true).unwrap().len(), 0);
    }
}
