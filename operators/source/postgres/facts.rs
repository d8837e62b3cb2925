//! Tables as the catalog has them now: every column that there ever was, the keys, the file.

use hashbrown::HashMap;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};

/// A column of the catalog.
pub(super) struct ColumnFacts {
    /// `attnum`.
    pub number: i16,
    /// Its name; another one once it is dropped.
    pub name: String,
    /// Its type; 0 once it is dropped.
    pub type_oid: u32,
    /// Its type's modifier.
    pub modifier: i32,
    /// Its type as `format_type` spells it.
    pub type_name: String,
    /// Whether it may not be null.
    pub not_null: bool,
    /// Whether it is generated.
    pub generated: bool,
    /// What rows from before it read as.
    pub missing: Option<String>,
    /// Whether it has a default, an identity, is generated or is not null.
    pub given: bool,
    pub dropped: bool,
    /// Whether a publication leaves it out.
    pub unlisted: bool,
}

/// A table of the catalog.
#[derive(Default)]
pub(super) struct TableFacts {
    /// Dropped ones too, by number.
    pub columns: Vec<ColumnFacts>,
    /// Names of the primary key's columns.
    pub primary_key: Option<Vec<String>>,
    /// Names of the replica identity index's columns.
    pub identity_index: Option<Vec<String>>,
    /// Columns that are unique among themselves at every moment, by other indexes.
    pub unique: Vec<Vec<String>>,
    /// `pg_relation_filenode`; nothing for a partitioned table.
    pub file: Option<u32>,
}

impl TableFacts {
    /// Columns that are there now.
    pub(super) fn there(&self) -> impl Iterator<Item = &ColumnFacts> {
        self.columns.iter().filter(|column| !column.dropped)
    }

    /// Whether PostgreSQL keeps rows apart by these columns at every moment, nulls included.
    pub(super) fn keeps_apart(&self, names: &[String]) -> bool {
        let never_null = |name: &String| self.there().any(|c| c.name == *name && c.not_null);
        let mut indexes = self.unique.iter().chain(&self.primary_key).chain(&self.identity_index);
        names.iter().all(never_null) && indexes.any(|index| index.iter().all(|name| names.contains(name)))
    }

    /// One of them by its number.
    pub(super) fn numbered(&self, number: Option<i16>) -> Option<&ColumnFacts> {
        self.there().find(|column| Some(column.number) == number)
    }

    /// The columns of a key, as the message has them; nothing when it leaves out one that it could have.
    pub(super) fn key_as_sent(&self, key: &[String], sent: &[Option<i16>]) -> Option<Vec<usize>> {
        key.iter().map(|name| self.there().find(|c| c.name == *name).and_then(|c| sent.iter().position(|n| *n == Some(c.number)))).collect()
    }
}

/// Looks tables up.
pub(super) async fn facts(client: &Client, ids: &[u32]) -> Result<HashMap<u32, TableFacts>, Error> {
    let mut tables: HashMap<u32, TableFacts> = HashMap::new();
    // attmissingval is an array of one; as text[] its element is the value's text, whatever its type.
    // Types whose arrays are not separated by commas have no quoting that matters, so the braces go.
    let parameters: [&(dyn ToSql + Sync); 1] = [&ids];
    let columns = client.query(
        // A partitioned table has none of its own: its partitions have, the same where they are from one command.
        "SELECT a.attrelid, a.attname::text, a.atttypid, a.atttypmod, coalesce(format_type(nullif(a.atttypid, 0), a.atttypmod), ''),
                a.attnotnull, a.attgenerated <> '',
                CASE WHEN t.typdelim = ',' THEN (coalesce(a.attmissingval::text, part.value)::text[])[1]
                     ELSE btrim(coalesce(a.attmissingval::text, part.value), '{}') END,
                a.attnum, a.attisdropped, a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '' OR a.attnotnull,
                pg_relation_filenode(a.attrelid),
                EXISTS (SELECT 1 FROM (SELECT to_jsonb(r)->>'prattrs' AS list FROM pg_publication_rel r WHERE r.prrelid = a.attrelid) listed
                        WHERE listed.list !~ ('\\y' || a.attnum || '\\y'))
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_type t ON t.oid = a.atttypid
         LEFT JOIN LATERAL (
             SELECT CASE WHEN count(DISTINCT l.attmissingval::text) = 1 THEN min(l.attmissingval::text) END AS value
             FROM pg_partition_tree(c.oid) p JOIN pg_attribute l ON l.attrelid = p.relid
             WHERE c.relkind = 'p' AND l.attname = a.attname AND l.atthasmissing) part ON true
         WHERE a.attrelid = ANY($1::oid[]) AND a.attnum > 0 ORDER BY a.attrelid, a.attnum",
        &parameters,
    );
    // A deferrable key is none, as PostgreSQL's own replication has it: within a transaction two rows may have the
    // same one, and the stream does not say which of them a change is about.
    let keys = client.query(
        "SELECT i.indrelid, i.indisprimary, i.indisreplident,
                ARRAY(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY k(attnum, place)
                      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                      WHERE k.place <= i.indnkeyatts ORDER BY k.place)
         FROM pg_index i WHERE i.indrelid = ANY($1::oid[]) AND i.indisunique AND i.indimmediate AND i.indisvalid
           AND i.indpred IS NULL AND i.indexprs IS NULL",
        &parameters,
    );
    let (columns, keys) = tokio::try_join!(columns, keys)?;
    for row in columns {
        let table = tables.entry(row.try_get(0)?).or_default();
        table.columns.push(column_facts(&row)?);
        table.file = row.try_get(11)?;
    }
    for row in keys {
        let table = tables.entry(row.try_get(0)?).or_default();
        let names: Vec<String> = row.try_get(3)?;
        if row.try_get(1)? {
            table.primary_key = Some(names.clone());
        }
        if row.try_get(2)? {
            table.identity_index = Some(names);
        } else {
            table.unique.push(names);
        }
    }
    Ok(tables)
}

fn column_facts(row: &Row) -> Result<ColumnFacts, Error> {
    Ok(ColumnFacts {
        number: row.try_get(8)?,
        dropped: row.try_get(9)?,
        unlisted: row.try_get(12)?,
        given: row.try_get(10)?,
        name: row.try_get(1)?,
        type_oid: row.try_get(2)?,
        modifier: row.try_get(3)?,
        type_name: row.try_get(4)?,
        not_null: row.try_get(5)?,
        generated: row.try_get(6)?,
        missing: row.try_get(7)?,
    })
}
