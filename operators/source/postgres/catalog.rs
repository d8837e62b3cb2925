//! Tables from the catalog: which are published, and what their columns and keys are.
//!
//! ```text
//! pg_publication_tables ──> Published ──> describe ──> TableSchema        before the snapshot
//!        Relation message ─────────────> reconcile ──> TableSchema        while streaming
//! ```
//! # Guarantees
//! A relation message stands for the table as it was when the row was written, the catalog for the table
//! as it is now. The message decides which columns there are, their types, and the key of a table whose
//! identity is its key or an index; the catalog adds what the message does not say (the key under
//! `REPLICA IDENTITY FULL`, the columns' numbers, nullability, default of old rows), found by the column's
//! number, so that what was renamed or dropped since is not mistaken for another column.

use super::config::Keys;
use super::facts::{ColumnFacts, TableFacts, facts};
use super::frame::Relation;
use super::numbers::{Known, numbers};
use super::types::Types;
use super::{codes, connect};
use crate::contract::{CodedError, Column, PgType, ReplicaIdentity, Storage, TablePattern, TableSchema, TableSelection, qualified};
use hashbrown::HashMap;
use std::sync::Arc;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};
use tracing::warn;

/// The first version whose publications can have generated columns.
const PUBLISHES_GENERATED: u32 = 180_000;
/// The first version whose publications can have schemas.
const PUBLISHES_SCHEMAS: u32 = 150_000;

/// A published table.
#[derive(Clone, Debug)]
pub(super) struct Published {
    /// `pg_class.oid`.
    pub id: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `relreplident`.
    pub identity: u8,
    /// `reltuples`, 0 when never analysed.
    pub estimated_rows: u64,
    /// The publication's columns (PostgreSQL 15 and later).
    pub columns: Option<Vec<String>>,
    /// The publication's row filter (15 and later).
    pub row_filter: Option<String>,
    /// Whether the user may read it.
    pub readable: bool,
    /// What makes it published: the object id of the publication's entry of it, of its root or of its schema, else of
    /// the publication. Another one means that for some time it was not, or not with these columns and rows.
    pub membership: u32,
}

impl Published {
    /// `schema.table`.
    pub(super) fn full_name(&self) -> String {
        qualified(&self.schema, &self.name)
    }
}

/// Schemas that are never a user's.
const USER_SCHEMAS: &str = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

/// The tables that a publication could have: ordinary and partitioned, partitions left to their root. Those that some pattern
/// of the selection names, be they excluded or not; all, where the server cannot say.
pub(super) async fn candidates(client: &Client, of: &TableSelection) -> Result<Vec<(u32, String, String)>, Error> {
    let sql = format!(
        "SELECT c.oid, n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition AND {USER_SCHEMAS}
           AND EXISTS (SELECT FROM unnest($1, $2) AS p (schema, name) WHERE n.nspname::text LIKE p.schema AND c.relname::text LIKE p.name)
         ORDER BY 2, 3"
    );
    let (schemas, names): (Vec<String>, Vec<String>) = of.include.iter().map(TablePattern::like).unzip();
    let asked = client.query_typed(&sql, &[(&schemas, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY)]).await;
    let rows = match asked {
        // A name that the database's encoding does not have is no table's; who asks compares names in any case.
        Err(e) if matches!(e.code(), Some(code) if [SqlState::UNTRANSLATABLE_CHARACTER, SqlState::CHARACTER_NOT_IN_REPERTOIRE].contains(code)) =>
        {
            let all = vec!["%"];
            client.query_typed(&sql, &[(&all, Type::TEXT_ARRAY), (&all, Type::TEXT_ARRAY)]).await?
        }
        asked => asked?,
    };
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
}

/// A table that a publication could have.
pub(super) struct Candidate {
    /// As it would be published.
    pub table: Published,
    /// Whether the user owns it, or may act for its owner.
    pub owned: bool,
    /// Whether row level security hides rows of it from the user.
    pub hidden: bool,
    /// Whether it has a primary key that is checked at once.
    pub keyed: bool,
}

/// The same with what the user may do with them.
pub(super) async fn described_candidates(client: &Client) -> Result<Vec<Candidate>, Error> {
    let sql = format!(
        "SELECT c.oid, n.nspname::text, c.relname::text, c.relreplident, greatest(c.reltuples, 0)::float8, has_table_privilege(c.oid, 'SELECT'),
                pg_has_role(c.relowner, 'USAGE'), row_security_active(c.oid),
                EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate)
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition AND {USER_SCHEMAS}
         ORDER BY 2, 3"
    );
    let rows = client.query(&sql, &[]).await?;
    rows.iter()
        .map(|row| {
            let table = Published {
                id: row.try_get(0)?,
                schema: row.try_get(1)?,
                name: row.try_get(2)?,
                identity: row.try_get::<_, i8>(3)?.cast_unsigned(),
                estimated_rows: row.try_get::<_, f64>(4)? as u64,
                columns: None,
                row_filter: None,
                readable: row.try_get(5)?,
                membership: 0,
            };
            Ok(Candidate { table, owned: row.try_get(6)?, hidden: row.try_get(7)?, keyed: row.try_get(8)? })
        })
        .collect()
}

/// The tables that a publication has. A partitioned table is one table or its leaves, as the publication
/// says (`publish_via_partition_root`).
pub(super) async fn published(client: &Client, publication: &str) -> Result<Vec<Published>, Error> {
    let version: i32 = client.query_one("SELECT current_setting('server_version_num')::int", &[]).await?.try_get(0)?;
    published_at(client, version.cast_unsigned(), publication).await
}

/// The same of a server whose version is known: one question.
pub(super) async fn published_at(client: &Client, version: u32, publication: &str) -> Result<Vec<Published>, Error> {
    let by_schema = if version >= PUBLISHES_SCHEMAS {
        "(SELECT s.oid FROM pg_publication_namespace s WHERE s.pnpubid = b.oid AND s.pnnspid = n.oid), "
    } else {
        ""
    };
    let sql = format!(
        "SELECT c.oid, n.nspname::text, c.relname::text, c.relreplident, greatest(c.reltuples, 0)::float8,
                CASE WHEN p.facts ? 'attnames' AND p.facts->'attnames' <> 'null'
                     THEN ARRAY(SELECT jsonb_array_elements_text(p.facts->'attnames')) END,
                p.facts->>'rowfilter', has_table_privilege(c.oid, 'SELECT'),
                coalesce((SELECT r.oid FROM pg_publication_rel r WHERE r.prpubid = b.oid AND r.prrelid = c.oid),
                         (SELECT r.oid FROM pg_publication_rel r JOIN pg_partition_ancestors(c.oid) a ON r.prrelid = a.relid
                          WHERE r.prpubid = b.oid ORDER BY 1 LIMIT 1), {by_schema}b.oid)
         FROM (SELECT schemaname, tablename, to_jsonb(t) AS facts FROM pg_publication_tables t WHERE pubname = $1) p
         JOIN pg_publication b ON b.pubname = $1
         JOIN pg_namespace n ON n.nspname = p.schemaname
         JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
         WHERE {USER_SCHEMAS} ORDER BY 2, 3"
    );
    let rows = client.query_typed(&sql, &[(&publication, Type::TEXT)]).await?;
    rows.iter()
        .map(|row| {
            Ok(Published {
                id: row.try_get(0)?,
                schema: row.try_get(1)?,
                name: row.try_get(2)?,
                identity: row.try_get::<_, i8>(3)?.cast_unsigned(),
                estimated_rows: row.try_get::<_, f64>(4)? as u64,
                columns: row.try_get(5)?,
                row_filter: row.try_get(6)?,
                readable: row.try_get(7)?,
                membership: row.try_get(8)?,
            })
        })
        .collect()
}

fn identity(letter: u8) -> ReplicaIdentity {
    match letter {
        b'n' => ReplicaIdentity::Nothing,
        b'f' => ReplicaIdentity::Full,
        b'i' => ReplicaIdentity::Index,
        _ => ReplicaIdentity::Default,
    }
}

/// The names of a table's key. Under `REPLICA IDENTITY USING INDEX` deletes carry the index's columns and
/// no others, so they are the key; else it is the primary key, else what the settings say.
fn key_names<'a>(identity: ReplicaIdentity, facts: Option<&'a TableFacts>, configured: Option<&'a [String]>) -> Option<&'a [String]> {
    let primary = facts.and_then(|t| t.primary_key.as_deref());
    let index = facts.and_then(|t| t.identity_index.as_deref());
    match identity {
        ReplicaIdentity::Index => index.or(primary).or(configured),
        _ => primary.or(configured),
    }
}

/// Numbers the key's columns. A key with a column that the stream leaves out is no key.
fn number_key(columns: &mut [Column], names: &[String]) -> bool {
    let places: Option<Vec<usize>> = names.iter().map(|name| columns.iter().position(|c| *c.name == **name)).collect();
    let Some(places) = places else { return false };
    for (place, index) in places.into_iter().enumerate() {
        if let (Some(column), Ok(place)) = (columns.get_mut(index), u16::try_from(place)) {
            column.key = Some(place);
        }
    }
    true
}

/// Numbers the key by the message's flags, which are of the row's time; the catalog gives the order of the
/// columns while it has the same key.
fn number_flags(schema: &mut TableSchema, flags: &[usize], facts: Option<&TableFacts>, sent: &[Option<i16>]) {
    let names = key_names(schema.identity, facts, None);
    let catalogs = facts.zip(names).map(|(t, names)| (t, names, t.key_as_sent(names, sent)));
    let order = match catalogs {
        Some((_, _, Some(places))) if places.len() == flags.len() && flags.iter().all(|at| places.contains(at)) => places,
        // A column of the key that there was and that the publication leaves out: what is sent is no key.
        Some((t, names, None)) if left_out(t, names, sent) => return,
        _ => flags.to_vec(),
    };
    for (column, place) in order.into_iter().zip(0_u16..) {
        if let Some(column) = schema.columns.get_mut(column) {
            column.key = Some(place);
        }
    }
}

/// Whether a column of the key that is older than the last one sent was not sent.
fn left_out(facts: &TableFacts, key: &[String], sent: &[Option<i16>]) -> bool {
    let last = sent.iter().flatten().max();
    key.iter().filter_map(|name| facts.there().find(|c| c.name == *name)).any(|c| !sent.contains(&Some(c.number)) && Some(&c.number) < last)
}

/// A catalog that remembers types.
pub(super) struct Catalog {
    source: Arc<str>,
    keys: Keys,
    types: Types,
    /// The numbers of a relation's columns, as last described.
    numbers: HashMap<u32, Vec<(Arc<str>, i16)>>,
}

impl Catalog {
    pub(super) fn new(source: Arc<str>, keys: Keys) -> Self {
        Self { source, keys, types: Types::default(), numbers: HashMap::new() }
    }

    /// What is known of types.
    pub(super) fn types(&self) -> &Types {
        &self.types
    }

    /// Keeps a type's name from the stream.
    pub(super) fn announce(&mut self, oid: u32, name: String) {
        self.types.announce(oid, name);
    }

    fn configured(&self, schema: &str, name: &str) -> Option<&[String]> {
        self.keys.get(&format!("{schema}.{name}")).map(Vec::as_slice)
    }

    fn number_keys(&self, table: &mut TableSchema, facts: Option<&TableFacts>) -> Result<bool, CodedError> {
        let configured = self.configured(&table.schema, &table.name);
        let Some(names) = key_names(table.identity, facts, configured) else { return Ok(false) };
        let found = number_key(&mut table.columns, names);
        if !found && configured == Some(names) {
            let message = format!("the key of table \"{}\" in `keys` names a column that it does not have or publish", table.full_name());
            return Err(CodedError::definite(codes::KEY, message).hint("name published columns of the table"));
        }
        Ok(found)
    }

    /// Says when the settings' key is none that PostgreSQL enforces.
    fn doubt_key(&self, table: &TableSchema, facts: Option<&TableFacts>) {
        let configured = self.configured(&table.schema, &table.name);
        let used = key_names(table.identity, facts, configured);
        if let Some(names) = configured.filter(|names| used == Some(names))
            && !facts.is_some_and(|facts| facts.keeps_apart(names))
        {
            warn!(
                table = table.full_name(),
                "no unique index, checked at once and over columns without nulls, keeps rows apart by the columns of `keys`: rows that share them become one where rows are merged"
            );
        }
    }

    /// The schemas of published tables, as the catalog has them now.
    pub(super) async fn describe(
        &mut self,
        client: &Client,
        version: u32,
        tables: &[Published],
    ) -> Result<Vec<Arc<TableSchema>>, CodedError> {
        let doing = "reading the columns of the published tables";
        let ids: Vec<u32> = tables.iter().map(|table| table.id).collect();
        let facts = facts(client, &ids).await.map_err(|e| connect::classify(&e, doing))?;
        let oids = facts.values().flat_map(|t| t.there().map(|c| c.type_oid)).collect::<Vec<_>>();
        self.types.load(client, oids.into_iter()).await.map_err(|e| connect::classify(&e, doing))?;
        let mut schemas = Vec::with_capacity(tables.len());
        for table in tables {
            let known = facts.get(&table.id);
            let sent = |column: &&ColumnFacts| {
                let listed = table.columns.as_ref().is_none_or(|names| names.contains(&column.name));
                listed && (!column.generated || version >= PUBLISHES_GENERATED)
            };
            let columns = known.into_iter().flat_map(TableFacts::there).filter(sent);
            let mut schema = TableSchema {
                source: Arc::clone(&self.source),
                id: table.id,
                schema: table.schema.as_str().into(),
                name: table.name.as_str().into(),
                columns: columns.map(|column| self.column(column)).collect(),
                identity: identity(table.identity),
                storage: known.and_then(|t| t.file).map(|file| Storage { file, current: true }),
            };
            self.number_keys(&mut schema, known)?;
            self.remember(&schema);
            self.doubt_key(&schema, known);
            schemas.push(Arc::new(schema));
        }
        Ok(schemas)
    }

    fn column(&self, facts: &ColumnFacts) -> Column {
        Column {
            name: facts.name.as_str().into(),
            ty: self.types.family(facts.type_oid, facts.modifier),
            pg_type: PgType { oid: facts.type_oid, modifier: facts.modifier, name: facts.type_name.as_str().into() },
            nullable: !facts.not_null,
            key: None,
            missing: facts.missing.as_deref().map(Into::into),
            number: Some(facts.number),
            filled: facts.given && facts.missing.is_none(),
        }
    }

    /// The schema that a relation message stands for.
    pub(super) async fn reconcile(&mut self, client: &Client, relation: &Relation) -> Result<Arc<TableSchema>, CodedError> {
        let doing = format!("reading the columns of table \"{}.{}\"", relation.schema, relation.name);
        let failed = |error: Error| connect::classify(&error, &doing);
        let facts = facts(client, &[relation.id]).await.map_err(failed)?;
        self.types.load(client, relation.columns.iter().map(|c| c.type_oid)).await.map_err(failed)?;
        let known = facts.get(&relation.id);
        let names = self.type_names(client, relation).await.map_err(failed)?;
        let sent: Vec<&str> = relation.columns.iter().map(|c| c.name.as_str()).collect();
        let places = known.into_iter().flat_map(|t| &t.columns);
        let places: Vec<Known<'_>> = places
            .map(|c| Known { number: c.number, now: (!c.dropped).then_some(c.name.as_str()), optional: c.generated || c.unlisted })
            .collect();
        let mut numbers = numbers(&sent, &places);
        // Where the catalog leaves it open, a column is the one that last had its name.
        let before = self.numbers.get(&relation.id);
        let named = |name: &str| before.and_then(|b| b.iter().find(|(n, _)| **n == *name)).map(|(_, number)| *number);
        for (at, name) in sent.iter().enumerate() {
            let last = named(name).filter(|last| !numbers.contains(&Some(*last)));
            if let (Some(number @ None), Some(last)) = (numbers.get_mut(at), last) {
                *number = Some(last);
            }
        }
        let columns = relation.columns.iter().zip(names).zip(&numbers).map(|((column, type_name), number)| {
            let now = known.and_then(|t| t.numbered(*number));
            // A type that was changed since took the default of old rows with it, unless the bytes stayed.
            let missing = now.and_then(|c| c.missing.as_deref());
            Column {
                name: column.name.as_str().into(),
                ty: self.types.family(column.type_oid, column.modifier),
                pg_type: PgType { oid: column.type_oid, modifier: column.modifier, name: type_name.into() },
                nullable: now.is_none_or(|c| !c.not_null),
                key: None,
                missing: missing.map(Into::into),
                number: *number,
                filled: now.is_some_and(|c| c.given) && missing.is_none(),
            }
        });
        let mut schema = TableSchema {
            source: Arc::clone(&self.source),
            id: relation.id,
            schema: relation.schema.as_str().into(),
            name: relation.name.as_str().into(),
            columns: columns.collect(),
            identity: identity(relation.identity),
            storage: None,
        };
        schema.storage = known.and_then(|t| Some((t, t.file?))).map(|(t, file)| {
            let same = |c: &&ColumnFacts| schema.columns.iter().any(|s| s.number == Some(c.number) && *s.name == c.name);
            Storage {
                file,
                current: t.there().filter(|c| !c.generated && !c.unlisted).all(|c| same(&c))
                    && schema.columns.iter().all(|s| s.number.is_some()),
            }
        });
        let flags: Vec<usize> = relation.columns.iter().enumerate().filter(|(_, c)| c.key).map(|(at, _)| at).collect();
        let by_flags = matches!(schema.identity, ReplicaIdentity::Default | ReplicaIdentity::Index) && !flags.is_empty();
        if by_flags {
            number_flags(&mut schema, &flags, known, &numbers);
        } else {
            self.number_keys(&mut schema, known)?;
        }
        self.remember(&schema);
        Ok(Arc::new(schema))
    }

    fn remember(&mut self, schema: &TableSchema) {
        let numbers = schema.columns.iter().filter_map(|c| Some((Arc::clone(&c.name), c.number?)));
        self.numbers.insert(schema.id, numbers.collect());
    }

    async fn type_names(&self, client: &Client, relation: &Relation) -> Result<Vec<String>, Error> {
        let (oids, modifiers): (Vec<u32>, Vec<i32>) = relation.columns.iter().map(|c| (c.type_oid, c.modifier)).unzip();
        let sql = "SELECT CASE WHEN t.oid IS NOT NULL THEN format_type(u.oid, u.modifier) END
                   FROM unnest($1::oid[], $2::int4[]) WITH ORDINALITY u(oid, modifier, place)
                   LEFT JOIN pg_type t ON t.oid = u.oid ORDER BY u.place";
        let rows = client.query(sql, &[&oids, &modifiers]).await?;
        let names =
            rows.iter().zip(&oids).map(|(row, oid)| Ok(row.try_get::<_, Option<String>>(0)?.unwrap_or_else(|| self.types.last_name(*oid))));
        names.collect()
    }
}
