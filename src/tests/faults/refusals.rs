//! What cannot be gone on from: refused with a code and advice, and nothing written.

use crate::harness::{Project, history, wait_for};
use etl_stream_operators::testing::postgres::Postgres;
use etl_stream_operators::testing::proxy::Proxy;
use std::fs;
use tokio_postgres::Client;

const SLOT: &str = "etl_stream_pipeline_shop";

/// A pipeline to files that has copied two rows and read one change.
struct Shop {
    postgres: Postgres,
    proxy: Proxy,
    client: Client,
    project: Project,
}

impl Shop {
    async fn new(settings: &[&str]) -> Self {
        let postgres = Postgres::start_with(settings);
        let client = postgres.database("shop").await;
        client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b')").await.unwrap();
        let proxy = Proxy::start(postgres.port());
        let url = format!("postgres://postgres@127.0.0.1:{}/shop", proxy.port());
        let project = Project::new(&format!(
            "sources:\n  shop: {{ type: postgres, url: {{ plain: \"{url}\" }}, tables: {{ include: [\"public.*\"] }}, retry: {{ initial: 10ms, max: 50ms }} }}
sinks:\n  out: {{ type: file, inputs: [shop], path: out }}\nserver: none\n"
        ));
        let shop = Self { postgres, proxy, client, project };
        shop.run();
        shop.change().await;
        shop.run();
        assert_eq!(shop.rows(), 3);
        shop.change().await;
        shop
    }

    fn run(&self) {
        self.project.succeeds(&["run", "--until", "caught-up"]);
    }

    async fn change(&self) {
        self.client.batch_execute("UPDATE t SET v = v || 'x' WHERE id = 1").await.unwrap();
    }

    fn rows(&self) -> usize {
        history(&self.project.path().join("out"), "public.t").len()
    }

    /// Runs, and expects this code, these words of advice, and not one more row; again and again.
    fn refuses(&self, what: &str, code: &str, advice: &str) {
        let before = self.rows();
        for _ in 0..2 {
            let output = self.project.run(&["run", "--until", "caught-up"]);
            let log = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(3), "{what}:\n{log}");
            let words = log.split_whitespace().filter(|word| *word != "│").collect::<Vec<_>>().join(" ");
            assert!(words.contains(code) && words.contains(advice), "{what}: expected {code} and {advice:?} in:\n{log}");
            assert_eq!(self.rows(), before, "{what}");
        }
    }

    fn delete_state(&self) {
        fs::remove_dir_all(self.project.path().join(".etl-stream")).unwrap();
    }
}

#[tokio::test]
async fn state_deleted() {
    let shop = Shop::new(&[]).await;
    shop.delete_state();
    shop.refuses("state deleted", "PG0015", "if the state was moved");
    // As advised: a new slot, and so a new snapshot, which continues the folder.
    shop.client.execute("SELECT pg_drop_replication_slot($1)", &[&SLOT]).await.unwrap();
    shop.run();
    let rows = history(&shop.project.path().join("out"), "public.t");
    assert_eq!(rows.iter().filter(|(_, row)| row["_op"] == "r").count(), 4, "{rows:?}");
}

#[tokio::test]
async fn another_server_behind_the_same_address() {
    let shop = Shop::new(&[]).await;
    let other = Postgres::start_unlike_others(&[]);
    let client = other.database("shop").await;
    client.batch_execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (7, 'other')").await.unwrap();
    shop.proxy.aim(other.port());
    shop.refuses("another server", "PG0014", "point the source at the original server");
    // Also when it has a slot of that name, at a position of its own.
    client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", &[&SLOT]).await.unwrap();
    shop.refuses("another server with a slot", "PG0014", "point the source at the original server");
    // And while running: the stream is cut, and what answers is another.
    shop.proxy.aim(shop.postgres.port());
    let mut child = shop.project.start(&["run"]);
    wait_for("the last change", || shop.rows() == 4 || child.try_wait().unwrap().is_some());
    shop.proxy.aim(other.port());
    shop.proxy.cut(true);
    wait_for("the end", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(3), "{}", shop.project.log());
    assert!(shop.project.log().contains("PG0014"), "{}", shop.project.log());
    // Back at the original, nothing is missing.
    shop.proxy.aim(shop.postgres.port());
    shop.change().await;
    shop.run();
    assert_eq!(shop.rows(), 5);
}

#[tokio::test]
async fn promoted_to_a_new_timeline() {
    let mut shop = Shop::new(&[]).await;
    shop.postgres.stop();
    fs::write(shop.postgres.data().join("standby.signal"), "").unwrap();
    shop.postgres.resume();
    let client = shop.postgres.client("shop").await;
    client.batch_execute("SELECT pg_promote()").await.unwrap();
    shop.refuses("promoted", "PG0014", "point the source at the original server");
}

#[tokio::test]
async fn slot_dropped_or_moved() {
    let shop = Shop::new(&[]).await;
    let wal = "SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())";
    shop.client.query(wal, &[&SLOT]).await.unwrap();
    shop.refuses("slot moved while nothing ran", "PG0024", "something else reads or advances the slot");
    shop.client.execute("SELECT pg_drop_replication_slot($1)", &[&SLOT]).await.unwrap();
    shop.refuses("slot dropped", "PG0016", "find out who dropped it");
    shop.client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", &[&SLOT]).await.unwrap();
    shop.refuses("slot dropped and made anew", "PG0024", "something else reads or advances the slot");
}

#[tokio::test]
async fn slot_moved_while_the_connection_is_away() {
    let shop = Shop::new(&["wal_sender_timeout=1s"]).await;
    let mut child = shop.project.start(&["run"]);
    wait_for("the last change", || shop.rows() == 4 || child.try_wait().unwrap().is_some());
    shop.proxy.refuse(true);
    shop.proxy.cut(true);
    shop.change().await;
    let wal = "SELECT pg_replication_slot_advance($1, pg_current_wal_lsn())";
    let deadline = std::time::Instant::now() + crate::harness::RUN;
    while shop.client.query(wal, &[&SLOT]).await.is_err() {
        assert!(std::time::Instant::now() < deadline, "the slot stays in use");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    shop.proxy.heal();
    wait_for("the end", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(3), "{}", shop.project.log());
    assert!(shop.project.log().contains("PG0024"), "{}", shop.project.log());
}

#[tokio::test]
async fn log_removed() {
    let shop = Shop::new(&["max_slot_wal_keep_size=1MB", "min_wal_size=32MB", "max_wal_size=32MB"]).await;
    let fill = "INSERT INTO t SELECT 10 + i, repeat('x', 200) FROM generate_series(1, 1000) i; DELETE FROM t WHERE id > 10; SELECT pg_switch_wal()";
    let lost = "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = $1";
    let deadline = std::time::Instant::now() + crate::harness::RUN;
    while !shop.client.query_one(lost, &[&SLOT]).await.unwrap().get::<_, bool>(0) {
        assert!(std::time::Instant::now() < deadline, "the slot keeps its log");
        shop.client.batch_execute(fill).await.unwrap();
        shop.client.batch_execute("CHECKPOINT").await.unwrap();
    }
    shop.refuses("log removed", "PG0013", "only a new snapshot helps");
}
