//! Every version of the dimension's texts that a fact may still ask for.

use super::{EnrichConfig, key_of, no_column};
use etl_stream::arrow::array::{Array, AsArray};
use etl_stream::arrow::util::display::{ArrayFormatter, FormatOptions};
use etl_stream::{CodedError, Item, Mark, Op, RowBatch, TableSchema, Token, Ts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The versions, by key and token; what is written to the state.
#[derive(Default, Deserialize, Serialize)]
pub(crate) struct Versions {
    by_key: BTreeMap<String, Vec<(Token, Option<String>)>>,
    /// The copy that is in progress, and the last that ended.
    #[serde(skip)]
    pub(crate) copying: Option<u64>,
    copied: Option<u64>,
}

impl Versions {
    fn set(&mut self, key: String, token: Token, text: Option<String>) {
        let versions = self.by_key.entry(key).or_default();
        match versions.binary_search_by_key(&token, |(at, _)| *at) {
            Ok(at) => versions[at].1 = text,
            Err(at) => versions.insert(at, (token, text)),
        }
    }

    pub(crate) fn at(&self, key: &str, before: Token) -> Option<&str> {
        let versions = self.by_key.get(key)?;
        let end = versions.partition_point(|(token, _)| *token < before);
        versions.get(end.checked_sub(1)?)?.1.as_deref()
    }

    /// From here on there is no row.
    fn clear(&mut self, at: Token) {
        let keys: Vec<String> = self.by_key.keys().cloned().collect();
        keys.into_iter().for_each(|key| self.set(key, at, None));
    }

    pub(crate) fn take(&mut self, config: &EnrichConfig, item: &Item) -> Result<(), CodedError> {
        match item {
            Item::Mark(Mark::SnapshotBegin { lsn, replaces, .. }) => {
                if let Some(first) = replaces {
                    self.by_key.values_mut().for_each(|versions| versions.retain(|(token, _)| !(*first..*lsn).contains(&token.commit_lsn)));
                }
                self.clear(Token::end_of(lsn.saturating_sub(1)));
                (self.copying, self.copied) = (Some(*lsn), None);
            }
            Item::Mark(Mark::SnapshotEnd { lsn, .. }) => (self.copying, self.copied) = (None, Some(*lsn)),
            Item::Mark(Mark::Schema { .. }) => {}
            Item::Rows(batch) => self.rows(config, batch)?,
        }
        Ok(())
    }

    fn rows(&mut self, config: &EnrichConfig, batch: &RowBatch) -> Result<(), CodedError> {
        let table = &batch.table;
        let key = key_of(table)?;
        let take = table.column(&config.take).ok_or_else(|| no_column(table, &config.take, "text column"))?;
        let texts = batch.columns[take].as_string_opt::<i32>().ok_or_else(|| no_column(table, &config.take, "text column"))?;
        let keys = texts_of(&batch.columns[key], table, key)?;
        for row in 0..batch.len() {
            let (token, key) = (batch.token(row), keys.value(row).to_string());
            match batch.op(row) {
                Op::Truncate => self.clear(token),
                Op::Delete => self.set(key, token, None),
                // Not sent: as it was.
                _ if batch.unchanged.get(row, take).is_some() => {
                    let before = self.at(&key, token).map(str::to_owned);
                    self.set(key, token, before);
                }
                _ => self.set(key, token, (!texts.is_null(row)).then(|| texts.value(row).to_owned())),
            }
        }
        Ok(())
    }

    /// Forgets what no fact can ask for any more: of what is durable, all but the last.
    pub(crate) fn forget(&mut self, durable: Ts) {
        self.by_key.retain(|_, versions| {
            let passed = versions.partition_point(|(token, _)| Ts::from(*token) < durable);
            versions.drain(..passed.saturating_sub(1));
            versions.len() > 1 || versions.first().is_some_and(|(token, text)| text.is_some() || Ts::from(*token) >= durable)
        });
    }

    /// Whether everything is known that a fact may ask for.
    pub(crate) fn knows(&self, token: Token, op: Op, frontier: Option<Ts>) -> bool {
        let passed = |time: Ts| frontier.is_none_or(|frontier| frontier >= time);
        let copying = self.copying.is_some_and(|lsn| token.commit_lsn >= lsn);
        match op {
            Op::Read if self.copied == Some(token.commit_lsn) => true,
            Op::Read => !copying && passed(Ts::after(token.commit_lsn)),
            _ => !copying && passed(Ts::new(token.commit_lsn, token.ordinal.saturating_add(1))),
        }
    }
}

/// A key column's values as texts.
pub(crate) fn texts_of<'a>(column: &'a dyn Array, table: &TableSchema, at: usize) -> Result<ArrayFormatter<'a>, CodedError> {
    const OPTIONS: &FormatOptions<'static> = &FormatOptions::new();
    ArrayFormatter::try_new(column, OPTIONS).map_err(|error| no_column(table, &table.columns[at].name, "key column").caused_by(error))
}
