//! Masks columns: the original value never leaves this node, in no form.
//!
//! ```text
//! row batch ──> mask ──> row batch      (same rows, same order, same tokens)
//! ```
//!
//! # Guarantees
//! Values are masked from their PostgreSQL text, exact where the array does not hold it, and the exact
//! text is taken away. NULL stays NULL, unchanged stays unchanged. `hmac_sha256` is deterministic for a
//! key, so that joins survive; only it may mask a key column.
//!
//! Hot path: no allocation per value; the keyed HMAC state is cloned, not made again.

use super::scope::{ColumnRef, Plans, acts_on, pointer, resolve};
use super::text::{ExactColumn, Texts};
use super::{CFG_KEY, CFG_SETTINGS, OP_KEY, OP_SIZE};
use crate::contract::{
    BuildContext, CodedError, Column, ColumnType, Findings, NodeConfig, Operator, OperatorConfig, Output, PgType, RowBatch, Secret,
    TablePattern, TableSchema, hex,
};
use arrow::array::{Array, ArrayRef, StringArray, new_null_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use hmac::{Hmac, Mac};
use schemars::JsonSchema;
use secrecy::ExposeSecret;
use serde::Deserialize;
use sha2::Sha256;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A key with fewer bytes can be guessed (RFC 2104, section 3).
const SHORTEST_KEY: usize = 16;
/// Bytes of an HMAC-SHA256.
const HASH: usize = 32;
/// What `redact` writes.
const REDACTED: &str = "***";

/// Masks columns.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MaskConfig {
    /// Tables it acts on, as `schema.table` with `*`; all, if not given. Other tables pass.
    #[serde(default)]
    tables: Vec<TablePattern>,
    /// What masks which column: `schema.table.column` (with `*`), or a bare column name for every table.
    /// The entry that names the table most closely holds.
    columns: BTreeMap<ColumnRef, Rule>,
}

/// How a column is masked.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// The way.
    with: Way,
    /// For `hmac_sha256`: the key, at least 16 bytes.
    #[serde(default)]
    key: Option<Secret>,
    /// For `keep_last` and `keep_first`: how many characters stay; a shorter value stays whole.
    #[serde(default)]
    characters: Option<u32>,
    /// For `redact`: the text to write.
    #[serde(default)]
    text: Option<String>,
}

/// A way to mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Way {
    /// The HMAC-SHA256 of the value's text, in hexadecimal.
    HmacSha256,
    /// All but the last characters become `*`.
    KeepLast,
    /// All but the first characters become `*`.
    KeepFirst,
    /// NULL.
    Nullify,
    /// A constant text.
    Redact,
}

impl Rule {
    /// What is wrong with its parts.
    fn problem(&self) -> Option<&'static str> {
        let keeps = matches!(self.with, Way::KeepFirst | Way::KeepLast);
        match () {
            () if (self.with == Way::HmacSha256) != self.key.is_some() => Some("hmac_sha256, and only it, has a key"),
            () if keeps != self.characters.is_some() => Some("keep_first and keep_last, and only they, have characters"),
            () if self.text.is_some() && self.with != Way::Redact => Some("only redact has a text"),
            () => None,
        }
    }
}

impl NodeConfig for MaskConfig {
    const TYPE: &'static str = "mask";
    const SUMMARY: &'static str = "hides the values of columns";
    const EXAMPLE: &'static str = "columns:\n  public.customers.email: { with: hmac_sha256, key: { env: MASK_KEY } }\n  public.customers.phone: { with: keep_last, characters: 4 }\n  public.customers.note: { with: redact }\n";

    fn check(&self, findings: &mut Findings) {
        for (column, rule) in &self.columns {
            let pointer = pointer("columns", column);
            if let Some(problem) = rule.problem() {
                findings.push(CFG_SETTINGS, pointer.clone(), problem, None);
            }
            let plain = rule.key.as_ref().and_then(|key| key.plain.as_ref());
            if plain.is_some_and(|key| key.len() < SHORTEST_KEY) {
                let message = format!("the key has fewer than {SHORTEST_KEY} bytes and can be guessed");
                findings.push(CFG_KEY, format!("{pointer}/key"), message, Some("make one with: openssl rand -hex 32".into()));
            }
        }
    }
}

impl OperatorConfig for MaskConfig {
    fn build(&self, cx: &BuildContext) -> Result<Box<dyn Operator>, CodedError> {
        let mut rules = BTreeMap::new();
        for (column, rule) in &self.columns {
            let contradiction = |why: &str| CodedError::definite(CFG_SETTINGS, format!("the mask of \"{column}\" was not made: {why}"));
            if let Some(problem) = rule.problem() {
                return Err(contradiction(problem));
            }
            let characters = rule.characters.unwrap_or(0) as usize;
            let masker = match (rule.with, &rule.key) {
                (Way::HmacSha256, Some(key)) => {
                    let secret = cx.secret(key)?;
                    let bytes = secret.expose_secret().as_bytes();
                    if bytes.is_empty() {
                        return Err(CodedError::definite(CFG_KEY, format!("the mask of \"{column}\" was not made: its key is empty")));
                    }
                    if bytes.len() < SHORTEST_KEY {
                        tracing::warn!(code = CFG_KEY.id, node = &*cx.node, %column, "the mask's key has fewer than {SHORTEST_KEY} bytes and can be guessed");
                    }
                    let keyed = Hmac::new_from_slice(bytes).map_err(|_| contradiction("its key has no length that HMAC takes"))?;
                    Masker::Hmac(keyed)
                }
                (Way::HmacSha256, None) => return Err(contradiction("it has no key")),
                (Way::KeepLast, _) => Masker::KeepLast(characters),
                (Way::KeepFirst, _) => Masker::KeepFirst(characters),
                (Way::Nullify, _) => Masker::Nullify,
                (Way::Redact, _) => Masker::Redact(rule.text.clone().unwrap_or_else(|| REDACTED.into())),
            };
            rules.insert(column.clone(), masker);
        }
        Ok(Box::new(Mask { tables: self.tables.clone(), rules, plans: Plans::default() }))
    }
}

#[derive(Clone)]
enum Masker {
    Hmac(Hmac<Sha256>),
    KeepLast(usize),
    KeepFirst(usize),
    Nullify,
    Redact(String),
}

impl Masker {
    /// Appends what stands for a text.
    fn write(&self, text: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Hmac(keyed) => {
                let mut mac = keyed.clone();
                mac.update(text);
                hex::write(&mac.finalize().into_bytes(), out);
            }
            Self::KeepLast(count) => {
                let letters = characters(text);
                stars(text, letters.saturating_sub(*count), out, |place, stars| place < stars);
            }
            Self::KeepFirst(count) => stars(text, *count, out, |place, kept| place >= kept),
            Self::Redact(constant) => out.extend_from_slice(constant.as_bytes()),
            Self::Nullify => {}
        }
    }

    fn missing(&self, text: &str) -> Option<Arc<str>> {
        let mut masked = Vec::new();
        self.write(text.as_bytes(), &mut masked);
        if let Self::Nullify = self { None } else { String::from_utf8(masked).ok().map(Arc::from) }
    }
}

fn starts_character(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

fn characters(text: &[u8]) -> usize {
    text.iter().filter(|b| starts_character(**b)).count()
}

/// Copies a text with a star for each character whose place is hidden.
fn stars(text: &[u8], bound: usize, out: &mut Vec<u8>, hidden: impl Fn(usize, usize) -> bool) {
    let mut seen = 0;
    for byte in text {
        seen += usize::from(starts_character(*byte));
        if !hidden(seen.saturating_sub(1), bound) {
            out.push(*byte);
        } else if starts_character(*byte) {
            out.push(b'*');
        }
    }
}

struct Mask {
    tables: Vec<TablePattern>,
    rules: BTreeMap<ColumnRef, Masker>,
    plans: Plans<Vec<(usize, Masker)>>,
}

/// The masked columns of a table.
fn plan(tables: &[TablePattern], rules: &BTreeMap<ColumnRef, Masker>, table: &TableSchema) -> Result<Vec<(usize, Masker)>, CodedError> {
    if !acts_on(tables, table) {
        return Ok(Vec::new());
    }
    let found = resolve(rules, table)?;
    for (at, masker) in &found {
        let column = &table.columns[*at];
        if column.key.is_some() && !matches!(masker, Masker::Hmac(_)) {
            let message = format!(
                "column \"{}\" is of the key of table \"{}\", and this mask would make different rows one",
                column.name,
                table.full_name()
            );
            return Err(CodedError::definite(OP_KEY, message).hint("mask it with hmac_sha256, which keeps different values different"));
        }
    }
    Ok(found.into_iter().map(|(at, masker)| (at, masker.clone())).collect())
}

/// PostgreSQL's `text`.
pub(super) fn text_type() -> PgType {
    PgType { oid: 25, modifier: -1, name: "text".into() }
}

impl Operator for Mask {
    fn schema(&mut self, table: &TableSchema) -> Result<TableSchema, CodedError> {
        let mut masked = table.clone();
        for (at, masker) in plan(&self.tables, &self.rules, table)? {
            let column = &mut masked.columns[at];
            let missing = column.missing.as_deref().and_then(|text| masker.missing(text));
            *column = match masker {
                Masker::Nullify => Column { nullable: true, missing, filled: false, ..column.clone() },
                _ => Column { ty: ColumnType::Text, pg_type: text_type(), missing, ..column.clone() },
            };
        }
        Ok(masked)
    }

    fn keeps(&mut self, table: &TableSchema) -> bool {
        plan(&self.tables, &self.rules, table).is_ok_and(|masked| masked.is_empty())
    }

    fn apply(&mut self, mut batch: RowBatch, out_table: &Arc<TableSchema>, out: &mut Output) -> Result<(), CodedError> {
        let (tables, rules) = (&self.tables, &self.rules);
        let masked = self.plans.get(&batch.table, |table| plan(tables, rules, table))?;
        for (at, masker) in masked.iter() {
            let array = Arc::clone(&batch.columns[*at]);
            batch.columns[*at] = match masker {
                Masker::Nullify => new_null_array(array.data_type(), array.len()),
                _ => mask(&batch, *at, &array, masker)?,
            };
            batch.exact.clear_column(*at);
            if let Masker::Nullify = masker {
                batch.unchanged.clear_column(*at);
            }
        }
        batch.table = Arc::clone(out_table);
        out.send(batch);
        Ok(())
    }
}

/// A column's masked texts.
fn mask(batch: &RowBatch, at: usize, array: &ArrayRef, masker: &Masker) -> Result<ArrayRef, CodedError> {
    let texts = Texts::of(&batch.table.columns[at], array);
    let mut exact = ExactColumn::new(&batch.exact, at);
    let (mut values, mut offsets, mut valid) = (Vec::new(), Vec::with_capacity(array.len() + 1), Vec::with_capacity(array.len()));
    if let Masker::Hmac(_) = masker {
        values.reserve(array.len() * 2 * HASH);
    }
    let mut scratch = Vec::new();
    let too_large = || {
        let message = format!(
            "column \"{}\" of table \"{}\" passed 2 GiB of masked text in one batch",
            batch.table.columns[at].name,
            batch.table.full_name()
        );
        CodedError::definite(OP_SIZE, message).hint("lower the batch size of the pipeline")
    };
    offsets.push(0);
    for row in 0..array.len() {
        let text = match exact.at(row) {
            Some(text) => Some(text.as_bytes()),
            None if array.is_valid(row) => Some(texts.read(row, &mut scratch)),
            None => None,
        };
        valid.push(text.is_some());
        if let Some(text) = text {
            masker.write(text, &mut values);
        }
        offsets.push(i32::try_from(values.len()).map_err(|_| too_large())?);
    }
    let nulls = Some(NullBuffer::from(valid)).filter(|nulls| nulls.null_count() > 0);
    let masked = StringArray::try_new(OffsetBuffer::new(offsets.into()), values.into(), nulls);
    Ok(Arc::new(masked.expect("masking whole characters of UTF-8 leaves UTF-8")))
}
