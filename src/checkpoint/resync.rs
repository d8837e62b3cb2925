//! Requests to copy tables anew: a mark in the state, which the source sees when it looks for new tables.
//!
//! ```text
//! etl-stream resync ──┬── not running: state file ──> mark ──> the next run's source
//!                     └── running: POST /api/v1/resync ──> mark ──> the source, when it looks next
//! ```
//! # Guarantees
//! All the tables asked for are marked, or none: a pattern that fits no table is refused.

use crate::config::suggest;
use etl_stream_operators::contract::{Code, CodedError, Exit, StateKey, StateStore, TablePattern};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A table to be copied anew is not known.
pub(crate) const RESYNC_TABLE: Code = Code::new("RUN0012", Exit::Usage);

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resync {
    /// The pipeline that is meant.
    pub pipeline: String,
    /// Tables as `schema.table`, with `*` for any characters.
    pub tables: Vec<String>,
    /// Only tables of this source.
    #[serde(default)]
    pub source: Option<String>,
}

/// A table that is marked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Requested {
    /// Its source.
    pub source: String,
    /// `schema.table`.
    pub table: String,
}

impl Resync {
    /// Marks the tables in the state of a pipeline with these sources.
    ///
    /// # Errors
    /// `RUN0012` when a pattern fits no table that was read before; as the store.
    pub fn request<'s>(
        &self,
        state: &dyn StateStore,
        sources: impl IntoIterator<Item = &'s str>,
    ) -> Result<BTreeSet<Requested>, CodedError> {
        let mut known = BTreeSet::new();
        for source in sources.into_iter().filter(|source| self.source.as_deref().is_none_or(|only| only == *source)) {
            for (key, _) in state.list(&self.pipeline, source)? {
                if !key.table.is_empty() {
                    known.insert(Requested { source: source.to_owned(), table: key.table });
                }
            }
        }
        let mut found = BTreeSet::new();
        for text in &self.tables {
            let pattern: TablePattern =
                serde_json::from_value(text.as_str().into()).map_err(|e| CodedError::definite(RESYNC_TABLE, e.to_string()))?;
            let fits = |table: &&Requested| table.table.split_once('.').is_some_and(|(schema, name)| pattern.matches(schema, name));
            let before = found.len();
            found.extend(known.iter().filter(fits).cloned());
            if found.len() == before && !known.iter().any(|table| fits(&table)) {
                return Err(self.unknown(text, &known));
            }
        }
        let mark = |table: &Requested| (StateKey::resync(&self.pipeline, &table.source, &table.table), Some(true.into()));
        state.store(&found.iter().map(mark).collect::<Vec<_>>())?;
        Ok(found)
    }

    fn unknown(&self, text: &str, known: &BTreeSet<Requested>) -> CodedError {
        if known.is_empty() {
            let of = self.source.as_ref().map_or(String::new(), |source| format!(" of source \"{source}\""));
            return CodedError::definite(RESYNC_TABLE, format!("no table{of} of pipeline \"{}\" was ever read", self.pipeline))
                .hint("the first run copies every table anyway; check the pipeline's name, and `state` in the pipeline file");
        }
        let error = CodedError::definite(RESYNC_TABLE, format!("no table of pipeline \"{}\" fits \"{text}\"", self.pipeline));
        match suggest::help(text, known.iter().map(|table| table.table.as_str())) {
            Some(help) => error.hint(help),
            None => error.hint("write schema.table as PostgreSQL has it, case-sensitive, without quotes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etl_stream_operators::contract::MemoryState;

    #[test]
    fn tables_that_are_known_are_marked() {
        let state = MemoryState::default();
        for (source, table) in [("a", ""), ("a", "public.orders"), ("a", "public.lines"), ("b", "public.orders"), ("c", "x.y")] {
            state.store(&[(StateKey::table("p", source, table), Some(true.into()))]).unwrap();
        }
        let ask = |tables: &[&str], source: Option<&str>| {
            let tables = tables.iter().map(|t| (*t).to_owned()).collect();
            let asked = Resync { pipeline: "p".into(), tables, source: source.map(Into::into) }.request(&state, ["a", "b"]);
            asked.map(|found| found.iter().map(|r| format!("{} {}", r.source, r.table)).collect::<Vec<_>>().join(","))
        };
        for (tables, source, expected) in [
            (&["public.orders"][..], None, Ok("a public.orders,b public.orders")),
            (&["public.*", "public.lines"], Some("a"), Ok("a public.lines,a public.orders")),
            (&["public.order"], None, Err("did you mean `public.orders`? valid here: public.lines, public.orders, public.orders")),
            (&["public.lines", "x.y"], None, Err("valid here: public.lines, public.orders, public.orders")),
            (&["orders"], None, Err("")),
            (
                &["*.*"],
                Some("d"),
                Err("the first run copies every table anyway; check the pipeline's name, and `state` in the pipeline file"),
            ),
        ] {
            let got = ask(tables, source).map_err(|e| (e.code.id, e.hint.unwrap_or_default()));
            assert_eq!(got, expected.map(str::to_owned).map_err(|hint| ("RUN0012", hint.to_owned())), "{tables:?}");
        }
        let marks = state.list("p", &StateKey::resync_node("a")).unwrap();
        assert_eq!(marks.iter().map(|(key, _)| key.table.as_str()).collect::<Vec<_>>(), ["public.lines", "public.orders"]);
        // a source's own documents are as before
        assert_eq!(state.list("p", "a").unwrap().len(), 3);
    }
}
