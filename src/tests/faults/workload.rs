//! Random transactions, and the audit that says what was committed.
//!
//! Triggers give every version of a row a stamp of its own and write each change into `audit.log`, which no
//! publication has; each transaction leaves its number in `marks`, so that a snapshot tells which
//! transactions it has seen.

use etl_stream_operators::testing::random::Random;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

/// A table of the workload.
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) key: &'static [&'static str],
    /// Its columns as texts that mean the same in PostgreSQL and in Snowflake.
    pub(crate) here: &'static str,
    pub(crate) there: &'static str,
}

/// Every published table, each with another replica identity.
pub(crate) const TABLES: &[Table] = &[
    Table {
        name: "accounts",
        key: &["id"],
        here: "id, stamp, status, amount, note, detail, to_jsonb(tags)",
        there: "id, stamp, status, amount, note, detail, tags",
    },
    Table { name: "parcels", key: &["a", "b"], here: "a, b, stamp, v, note", there: "a, b, stamp, v, note" },
    Table { name: "badges", key: &["code"], here: "code, stamp, owner, note", there: "code, stamp, owner, note" },
    Table { name: "journal", key: &["id"], here: "id, stamp, line", there: "id, stamp, line" },
    Table { name: "marks", key: &["tx"], here: "tx, stamp", there: "tx, stamp" },
];

/// Tables, triggers and first rows. `journal` has no key in the database and is only inserted into.
pub(crate) const SCHEMA: &str = "
    CREATE SCHEMA audit;
    CREATE SEQUENCE audit.stamps;
    CREATE TABLE audit.log (id bigserial PRIMARY KEY, tx bigint DEFAULT pg_current_xact_id()::text::bigint, tab text, op text, before jsonb, after jsonb);
    CREATE FUNCTION audit.stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.stamp := nextval('audit.stamps'); RETURN NEW; END $$;
    CREATE FUNCTION audit.note() RETURNS trigger LANGUAGE plpgsql SET timezone = 'UTC' AS $$ BEGIN
        INSERT INTO audit.log (tab, op, before, after) VALUES (TG_TABLE_NAME, lower(left(TG_OP, 1)),
            CASE WHEN TG_OP IN ('UPDATE', 'DELETE') THEN to_jsonb(OLD) END, CASE WHEN TG_OP IN ('INSERT', 'UPDATE') THEN to_jsonb(NEW) END);
        RETURN NULL; END $$;
    CREATE TABLE accounts (id bigint PRIMARY KEY, stamp bigint, status text, amount numeric(12,2), note text, detail jsonb, tags text[]);
    ALTER TABLE accounts ALTER note SET STORAGE EXTERNAL;
    CREATE TABLE parcels (a int, b text, stamp bigint, v text, note text, PRIMARY KEY (a, b));
    ALTER TABLE parcels ALTER note SET STORAGE EXTERNAL;
    ALTER TABLE parcels REPLICA IDENTITY FULL;
    CREATE TABLE badges (code text NOT NULL, stamp bigint, owner bigint, note text);
    ALTER TABLE badges ALTER note SET STORAGE EXTERNAL;
    CREATE UNIQUE INDEX badges_code ON badges (code);
    ALTER TABLE badges REPLICA IDENTITY USING INDEX badges_code;
    CREATE TABLE journal (id bigint NOT NULL, stamp bigint, line text);
    ALTER TABLE journal REPLICA IDENTITY NOTHING;
    CREATE TABLE marks (tx bigint PRIMARY KEY, stamp bigint);
    DO $$ DECLARE t text; BEGIN FOREACH t IN ARRAY ARRAY['accounts', 'parcels', 'badges', 'journal', 'marks'] LOOP
        EXECUTE format('CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON %I FOR EACH ROW EXECUTE FUNCTION audit.stamp()', t);
        EXECUTE format('CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION audit.note()', t);
        EXECUTE format('CREATE TRIGGER emptied AFTER TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION audit.note()', t);
    END LOOP; END $$;
    BEGIN;
    INSERT INTO accounts SELECT i, 0, 'new', i * 1.25, CASE WHEN i % 3 = 0 THEN repeat(md5(i::text), 90) END, jsonb_build_object('i', i), ARRAY['x', NULL, 'y' || i] FROM generate_series(1, 300) i;
    INSERT INTO parcels SELECT i % 20, 'p' || i, 0, 'v' || i, repeat(md5(i::text), 80) FROM generate_series(1, 200) i;
    INSERT INTO badges SELECT 'c' || i, 0, i, NULL FROM generate_series(1, 60) i;
    INSERT INTO journal SELECT i, 0, 'line ' || i FROM generate_series(1, 100) i;
    INSERT INTO marks SELECT pg_current_xact_id()::text::bigint, 0;
    COMMIT;";

/// Journal lines have numbers of their own.
static LINES: AtomicU64 = AtomicU64::new(1_000);

/// One change or a few that belong together.
fn change(random: &mut Random) -> String {
    let id = random.between(1, 400);
    let (a, p) = (random.below(20), random.between(1, 260));
    let (code, other) = (random.between(1, 80), random.between(1, 400));
    let word = random.below(1_000_000);
    let long = format!("repeat(md5('{word}'), {})", random.between(65, 120));
    match random.below(23) {
        0 | 1 => format!(
            "INSERT INTO accounts VALUES ({id}, 0, 'i{word}', {}.{:02}, {long}, '{{\"w\": {word}}}', ARRAY['t{word}']) ON CONFLICT DO NOTHING",
            word % 1000,
            word % 100
        ),
        2 | 3 => format!("UPDATE accounts SET status = 'u{word}', amount = amount + 1 WHERE id = {id}"),
        4 => format!("UPDATE accounts SET note = {long} WHERE id = {id}"),
        5 => format!("UPDATE accounts SET note = NULL, detail = NULL, tags = '{{}}' WHERE id = {id}"),
        6 => format!("DELETE FROM accounts WHERE id = {id}"),
        7 => format!("DELETE FROM accounts WHERE id = {id}; INSERT INTO accounts VALUES ({id}, 0, 'again{word}', 1)"),
        8 => format!("UPDATE accounts SET id = {other} WHERE id = {id} AND NOT EXISTS (SELECT 1 FROM accounts WHERE id = {other})"),
        // Two keys swap by way of a third.
        9 => format!(
            "UPDATE accounts SET id = -pg_current_xact_id()::text::bigint WHERE id = {id}; UPDATE accounts SET id = {id} WHERE id = {other};
             UPDATE accounts SET id = {other} WHERE id = -pg_current_xact_id()::text::bigint"
        ),
        10 => (0..random.between(2, 8)).map(|n| format!("UPDATE accounts SET status = 's{word}.{n}' WHERE id = {id};")).collect(),
        11 => format!("UPDATE accounts SET amount = amount + 1 WHERE id % 37 = {}", id % 37),
        12 => {
            format!(
                "SAVEPOINT s; DELETE FROM accounts WHERE id > {id}; UPDATE parcels SET v = 'undone' WHERE a = {a}; ROLLBACK TO s; RELEASE s"
            )
        }
        13 => format!("SAVEPOINT s; UPDATE parcels SET v = 'kept{word}' WHERE a = {a}; RELEASE s"),
        14 => format!("INSERT INTO parcels VALUES ({a}, 'p{p}', 0, 'i{word}', {long}) ON CONFLICT DO NOTHING"),
        15 => format!("UPDATE parcels SET v = 'u{word}' WHERE a = {a}"),
        16 => format!("UPDATE parcels SET a = (a + 1) % 20, v = 'moved{word}' WHERE b = 'p{p}'"),
        17 => format!("DELETE FROM parcels WHERE b = 'p{p}'"),
        18 => format!("INSERT INTO badges VALUES ('c{code}', 0, {word}, {long}) ON CONFLICT DO NOTHING"),
        19 => format!("UPDATE badges SET owner = {word} WHERE code = 'c{code}'"),
        20 => format!("DELETE FROM badges WHERE code = 'c{code}'"),
        21 => format!(
            "UPDATE badges SET code = 'c{code}x' WHERE code = 'c{code}' AND NOT EXISTS (SELECT 1 FROM badges WHERE code = 'c{code}x')"
        ),
        _ => format!("INSERT INTO journal VALUES ({}, 0, 'line {word}')", LINES.fetch_add(1, Ordering::Relaxed)),
    }
}

/// What happens now and then.
fn rare(random: &mut Random) -> String {
    let word = random.below(1_000_000);
    match random.below(6) {
        0 => "TRUNCATE badges".into(),
        1 => "TRUNCATE parcels, badges".into(),
        2 => format!(
            "TRUNCATE badges; INSERT INTO badges SELECT 'c' || i, 0, {word}, NULL FROM generate_series(1, 40) i ON CONFLICT DO NOTHING"
        ),
        3 | 4 => format!(
            "INSERT INTO accounts SELECT 100000 + i, 0, 'big{word}', i, NULL, NULL, NULL FROM generate_series(1, {}) i ON CONFLICT DO NOTHING",
            random.between(200, 1500)
        ),
        _ => "DELETE FROM accounts WHERE id >= 100000".into(),
    }
}

/// The statements of a transaction. One in twelve rolls back.
fn transaction(random: &mut Random) -> String {
    let mut sql = "BEGIN; SET LOCAL lock_timeout = '1s'; ".to_owned();
    for _ in 0..random.between(1, 7) {
        sql.push_str(&change(random));
        sql.push_str("; ");
    }
    if random.percent(4) {
        sql.push_str(&rare(random));
        sql.push_str("; ");
    }
    sql.push_str("INSERT INTO marks VALUES (pg_current_xact_id()::text::bigint, 0); ");
    sql.push_str(if random.percent(8) { "ROLLBACK" } else { "COMMIT" });
    sql
}

/// Writers that run until told to stop, whatever happens to the server.
pub(crate) struct Workload {
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
    /// Transactions that were answered.
    pub(crate) done: Arc<AtomicU64>,
}

impl Workload {
    /// Starts so many writers, each of which pauses about so long between transactions.
    pub(crate) fn start(url: &str, random: &mut Random, writers: usize, pause: Duration) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writers = (0..writers)
            .map(|_| {
                let (url, stop, done, random) = (url.to_owned(), Arc::clone(&stop), Arc::clone(&done), Random::new(random.number()));
                tokio::spawn(write(url, stop, done, random, pause))
            })
            .collect();
        Self { stop, writers, done }
    }

    /// Waits until the transactions under way have ended.
    pub(crate) async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.unwrap();
        }
    }
}

async fn write(url: String, stop: Arc<AtomicBool>, done: Arc<AtomicU64>, mut random: Random, pause: Duration) {
    let mut client: Option<Client> = None;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(pause.mul_f64(random.below(200) as f64 / 100.0)).await;
        if client.as_ref().is_none_or(Client::is_closed) {
            client = None;
            if let Ok((new, connection)) = tokio_postgres::connect(&url, NoTls).await {
                tokio::spawn(connection);
                client = Some(new);
            }
        }
        if let Some(client) = &client {
            let sql = transaction(&mut random);
            match client.batch_execute(&sql).await {
                Ok(()) => _ = done.fetch_add(1, Ordering::Relaxed),
                // A conflict with another writer: nothing of it was committed.
                Err(_) => _ = client.batch_execute("ROLLBACK").await,
            }
        }
    }
}
