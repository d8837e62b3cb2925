//! What a source says at its start of things that will not arrive: relations that cannot be published, and
//! operations that the publication leaves out. Neither is an error: the rest arrives.

use super::config::Settings;
use super::quote::identifier;
use tokio_postgres::{Client, Error};
use tracing::warn;

/// Why a relation cannot be published; its kind, persistence and whether it is a partition.
fn why(kind: u8, persistence: u8, partition: bool) -> Option<&'static str> {
    Some(match (kind, persistence) {
        (b'v', _) => "it is a view: include the tables it reads",
        (b'm', _) => "it is a materialized view: include the tables it reads",
        (b'f', _) => "it is a foreign table: read it where its rows are",
        (b'r' | b'p', b'u') => "it is unlogged, so its changes are in no log: ALTER TABLE … SET LOGGED",
        (b'r' | b'p', b't') => "it is temporary",
        (b'r' | b'p', _) if partition => "it is a partition, whose rows arrive as those of its root",
        (b'r' | b'p', _) => return None,
        (b'S', _) => "it is a sequence",
        _ => "it is not a table",
    })
}

/// Of each table that the settings name in full and that does not come, why. Patterns with `*` say nothing of
/// a relation in particular.
pub(super) async fn left_out(client: &Client, settings: &Settings, comes: impl Fn(&str, &str) -> bool) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    for pattern in &settings.tables.include {
        let text = pattern.to_string();
        let Some((schema, name)) = text.split_once('.').filter(|(schema, name)| !text.contains('*') && !comes(schema, name)) else {
            continue;
        };
        let sql = "SELECT c.relkind, c.relpersistence, c.relispartition FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE n.nspname = $1 AND c.relname = $2";
        let reason = match client.query_opt(sql, &[&schema, &name]).await? {
            None => Some("there is no such relation"),
            Some(row) => why(row.try_get::<_, i8>(0)?.cast_unsigned(), row.try_get::<_, i8>(1)?.cast_unsigned(), row.try_get(2)?),
        };
        all.extend(reason.map(|reason| format!("{text}: {reason}")));
    }
    Ok(all)
}

/// Says which operations a publication leaves out.
pub(super) async fn operations(client: &Client, publication: &str) -> Result<(), Error> {
    if let Some((message, hint)) = absent_operations(client, publication).await? {
        warn!("{message}: {hint}");
    }
    Ok(())
}

/// Which operations a publication leaves out, and the statement that changes it.
pub(super) async fn absent_operations(client: &Client, publication: &str) -> Result<Option<(String, String)>, Error> {
    let sql = "SELECT pubinsert, pubupdate, pubdelete, pubtruncate FROM pg_publication WHERE pubname = $1";
    let Some(row) = client.query_opt(sql, &[&publication]).await? else { return Ok(None) };
    let mut absent = Vec::new();
    for (at, word) in ["inserts", "updates", "deletes", "truncates"].into_iter().enumerate() {
        if !row.try_get::<_, bool>(at)? {
            absent.push(word);
        }
    }
    let publication = identifier(publication);
    Ok((!absent.is_empty()).then(|| {
        let message = format!("publication {publication} leaves out {}, which do not arrive", absent.join(", "));
        (message, format!("ALTER PUBLICATION {publication} SET (publish = …)"))
    }))
}

#[cfg(test)]
mod tests {
    use super::why;

    #[test]
    fn kinds_of_relations() {
        for (kind, persistence, partition, word) in [
            (b'r', b'p', false, None),
            (b'p', b'p', false, None),
            (b'r', b'p', true, Some("partition")),
            (b'r', b'u', false, Some("unlogged")),
            (b'r', b't', false, Some("temporary")),
            (b'v', b'p', false, Some("view")),
            (b'm', b'p', false, Some("materialized")),
            (b'f', b'p', false, Some("foreign")),
            (b'S', b'p', false, Some("sequence")),
            (b'i', b'p', false, Some("not a table")),
        ] {
            let said = why(kind, persistence, partition);
            assert!(said.is_some() == word.is_some() && word.is_none_or(|word| said.is_some_and(|said| said.contains(word))), "{word:?}");
        }
    }
}
