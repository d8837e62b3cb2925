//! The workload: what happens to a shop, over several connections at once.
//!
//! Everyday transactions are drawn at random from `mixed.sql`; one more connection goes through the special
//! moments of `moments.sql`, spread over the time. Random numbers have fixed seeds; what meets what in
//! the database does not.

use super::database::connect;
use super::step;
use etl_stream_operators::contract::CodedError;
use futures::future::try_join_all;
use std::time::Duration;
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// How often a transaction that lost against another is tried again.
const TRIES: u32 = 20;

/// How many transactions there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) committed: u64,
    pub(super) aborted: u64,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Committed,
    /// By its own ROLLBACK.
    RolledBack,
    /// Another transaction was in its way: a deadlock, or the row it refers to has gone.
    Lost,
}

/// One transaction of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Block {
    name: &'static str,
    weight: u64,
    sql: &'static str,
}

/// The blocks of a script. A block begins with a line `-- name` or `-- name: weight` after an empty line;
/// the comment at the script's top is not one.
fn blocks(script: &'static str) -> Vec<Block> {
    script
        .split("\n\n")
        .filter_map(|part| part.trim_start().strip_prefix("-- ")?.split_once('\n'))
        .filter(|(_, sql)| sql.lines().any(|line| !line.starts_with("--")))
        .map(|(heading, sql)| {
            let weighted = heading.rsplit_once(": ").and_then(|(name, weight)| Some((name, weight.parse().ok()?)));
            let (name, weight) = weighted.unwrap_or((heading, 1));
            Block { name, weight, sql }
        })
        .collect()
}

/// Marsaglia's xorshift with 64 bits of state: enough to choose a shop's next customer.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Below 2^31, so that it is an `integer` in SQL.
    fn integer(&mut self) -> u64 {
        self.next() >> 33
    }
}

/// Runs a block as one transaction.
async fn transact(client: &Client, block: &Block, random: &mut Random) -> Result<End, CodedError> {
    let sql = block.sql.replace("$a", &random.integer().to_string()).replace("$b", &random.integer().to_string());
    let rolls_back = sql.trim_end().ends_with("ROLLBACK;");
    let end = if rolls_back { "" } else { "COMMIT;" };
    let Err(error) = client.batch_execute(&format!("BEGIN;\n{sql}\n{end}")).await else {
        return Ok(if rolls_back { End::RolledBack } else { End::Committed });
    };
    let in_the_way =
        [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE, SqlState::UNIQUE_VIOLATION, SqlState::FOREIGN_KEY_VIOLATION];
    if !error.code().is_some_and(|code| in_the_way.contains(code)) {
        return Err(step(format!("the workload's transaction \"{}\" failed", block.name)).caused_by(error));
    }
    client.batch_execute("ROLLBACK").await.map_err(|e| step("the workload did not roll back").caused_by(e))?;
    Ok(End::Lost)
}

/// Draws transactions until the deadline.
async fn mixed(url: &str, mut random: Random, deadline: Instant) -> Result<Done, CodedError> {
    let blocks = blocks(include_str!("mixed.sql"));
    let weights: u64 = blocks.iter().map(|block| block.weight).sum();
    let client = connect(url).await?;
    let mut done = Done::default();
    while Instant::now() < deadline {
        let mut at = random.integer() % weights;
        let chosen = blocks.iter().find(|block| {
            let here = at < block.weight;
            at = at.saturating_sub(block.weight);
            here
        });
        let Some(block) = chosen else { continue };
        match transact(&client, block, &mut random).await? {
            End::Committed => done.committed += 1,
            End::RolledBack | End::Lost => done.aborted += 1,
        }
    }
    Ok(done)
}

/// Goes through the special moments, all of them, evenly spread over the time.
async fn moments(url: &str, start: Instant, time: Duration) -> Result<Done, CodedError> {
    let blocks = blocks(include_str!("moments.sql"));
    let client = connect(url).await?;
    let mut done = Done::default();
    let mut random = Random(1);
    let gap = time / (blocks.len() as u32 + 1);
    for (at, block) in blocks.iter().enumerate() {
        tokio::time::sleep_until(start + gap * (at as u32 + 1)).await;
        let mut tries = 0;
        while transact(&client, block, &mut random).await? != End::Committed {
            (done.aborted, tries) = (done.aborted + 1, tries + 1);
            if tries == TRIES {
                return Err(step(format!("the workload's transaction \"{}\" lost against others {TRIES} times", block.name)));
            }
        }
        done.committed += 1;
    }
    Ok(done)
}

/// Changes the shop for `time` over so many connections, and one for the special moments.
pub(super) async fn run(url: &str, writers: u64, time: Duration) -> Result<Done, CodedError> {
    let start = Instant::now();
    let mixed = try_join_all((1..=writers).map(|seed| mixed(url, Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)), start + time)));
    let (mut done, all) = tokio::try_join!(moments(url, start, time), mixed)?;
    for one in all {
        done.committed += one.committed;
        done.aborted += one.aborted;
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::super::database::Database;
    use super::*;
    use etl_stream_operators::testing::postgres::Postgres;

    #[test]
    fn a_script_falls_into_blocks() {
        let found = blocks("-- The top,\n-- of two lines.\n\n-- first: 30\nSELECT 1;\nSELECT 2;\n\n-- the: second\nSELECT 3;\n");
        let block = |name, weight, sql| Block { name, weight, sql };
        assert_eq!(found, [block("first", 30, "SELECT 1;\nSELECT 2;"), block("the: second", 1, "SELECT 3;\n")]);
    }

    #[tokio::test]
    async fn every_transaction_runs_against_the_shop() {
        let postgres = Postgres::start();
        let database = Database::create(&postgres, 5_000).await.unwrap();
        let client = connect(database.url()).await.unwrap();
        let before = database.position().await.unwrap();
        let rows: i64 = client
            .query_one("SELECT sum((xpath('//c/text()', query_to_xml(format('SELECT count(*) c FROM %I', relname), false, true, '')))[1]::text::bigint)::bigint FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'", &[])
            .await
            .unwrap()
            .get(0);
        assert_eq!(rows, 5_000);
        let mut random = Random(7);
        for block in blocks(include_str!("mixed.sql")) {
            for _ in 0..20 {
                let end = transact(&client, &block, &mut random).await.unwrap();
                assert_eq!(end == End::RolledBack, block.name == "nothing of this is to be seen", "{}", block.name);
                assert_ne!(end, End::Lost, "{} is alone", block.name);
            }
        }
        let done = run(database.url(), 3, Duration::from_secs(1)).await.unwrap();
        assert!(done.committed > 7, "{done:?}");
        let row = client.query_one("SELECT (SELECT count(*) FROM carts), (SELECT name FROM categories WHERE id = 901), (SELECT count(*) FROM products WHERE warranty_months = 24), (SELECT count(*) FROM events WHERE kind IN ('undone', 'brief'))", &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), 1);
        assert_eq!(row.get::<_, &str>(1), "right");
        assert!(row.get::<_, i64>(2) > 0);
        assert_eq!(row.get::<_, i64>(3), 0);
        assert!(database.position().await.unwrap() > before);
    }
}
