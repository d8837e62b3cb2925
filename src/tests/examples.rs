//! Every pipeline in `examples/` is right, and does what it says: run as it is, but for the addresses of the
//! servers and the folders of secrets.

use crate::harness::{Project, fold};
use crate::warehouse::{in_postgres, in_snowflake, snowflake};
use aws_lc_rs::hmac;
use etl_stream_operators::testing::postgres::Postgres;
use etl_stream_operators::testing::snowflake::LocalSnowflake;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use tokio_postgres::Client;

/// The examples that a test below runs.
const RUN: &[&str] = &["fan_out.yaml", "mask_and_filter.yaml", "minimal.yaml", "route.yaml", "two_sources.yaml"];

const MASK_KEY: &str = "0123456789abcdef0123456789abcdef";

const SHOP: &str = "
    CREATE TABLE customers (id int PRIMARY KEY, email text, notes text);
    CREATE TABLE orders (id bigint PRIMARY KEY, customer_id int, status text NOT NULL, total numeric(12,2));
    INSERT INTO customers VALUES (1, 'ada@example.org', 'likes tea'), (2, NULL, NULL);
    INSERT INTO orders VALUES (1, 1, 'new', 20.50), (2, 1, 'draft', 5), (3, 2, 'paid', 4000), (4, 2, 'new', 0);";

const CHANGES: &str = "
    INSERT INTO customers VALUES (3, 'bob@example.org', '');
    UPDATE orders SET total = 2000 WHERE id = 1;
    UPDATE orders SET status = 'draft' WHERE id = 3;
    UPDATE orders SET status = 'new' WHERE id = 2;
    DELETE FROM orders WHERE id = 4;";

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// An example in a folder of its own, and the servers it speaks to.
struct Stage {
    project: Project,
    postgres: Postgres,
    client: Client,
    snowflake: LocalSnowflake,
    file: &'static str,
}

impl Stage {
    async fn new(file: &'static str) -> Self {
        let snowflake = snowflake().await;
        let postgres = Postgres::start();
        let client = postgres.database("shop").await;
        client.batch_execute(SHOP).await.unwrap();
        let mut project = Project::new("");
        project.env = vec![("PG_URL".into(), postgres.url("shop")), ("MASK_KEY".into(), MASK_KEY.into())];
        let stage = Self { project, postgres, client, snowflake, file };
        stage.place(&[]);
        stage
    }

    /// Puts the example into the folder, with other text in some places.
    fn place(&self, changes: &[(&str, String)]) {
        let mut text = fs::read_to_string(examples().join(self.file)).unwrap();
        let account = "account: ACME-PROD\n";
        let with_url = format!("{account}    url: {}\n", self.snowflake.url());
        for (from, to) in [(account, with_url)].iter().chain(changes) {
            assert!(text.contains(from), "{}: no {from:?}", self.file);
            text = text.replace(from, to);
        }
        fs::write(self.project.path().join(self.file), text).unwrap();
    }

    fn run(&self) {
        self.project.succeeds(&["run", self.file, "--until", "caught-up"]);
    }

    /// Runs it over the rows, and again over the changes.
    async fn run_twice(&self) {
        self.run();
        self.client.batch_execute(CHANGES).await.unwrap();
        self.run();
    }

    /// What a query gives in Snowflake, whose tables are in the schema that all examples name.
    async fn there(&self, query: &str) -> Vec<Vec<String>> {
        in_snowflake(&self.snowflake, &query.replace("FROM ", "FROM RAW.SHOP.")).await
    }

    /// Whether a query gives the same on both sides.
    async fn same(&self, query: &str) {
        assert_eq!(self.there(query).await, in_postgres(&self.client, query).await, "{query}");
    }
}

fn texts(rows: &[&[&str]]) -> Vec<Vec<String>> {
    rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
}

#[test]
fn all_validate_and_are_run() {
    let mut names: Vec<String> = fs::read_dir(examples()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| Path::new(name).extension().is_some_and(|e| e == "yaml"));
    names.sort();
    assert_eq!(names, RUN, "every example has a test of its own here");
    let mut project = Project::new("");
    let variables = [("PG_URL", "postgres://127.0.0.1/shop"), ("MASK_KEY", MASK_KEY), ("EU_PG_PASSWORD", "x")];
    project.env = variables.map(|(name, value)| (name.into(), value.into())).into();
    for name in names {
        project.succeeds(&["validate", "--deny-warnings", &examples().join(name).display().to_string()]);
    }
}

#[tokio::test]
async fn minimal() {
    let stage = Stage::new("minimal.yaml").await;
    stage.run_twice().await;
    stage.same("SELECT id, customer_id, status, total FROM orders").await;
    stage.same("SELECT id, email, notes FROM customers").await;
}

#[tokio::test]
async fn fan_out() {
    let stage = Stage::new("fan_out.yaml").await;
    stage.run_twice().await;
    stage.same("SELECT id, customer_id, status, total FROM orders").await;
    let mut archived: BTreeMap<String, String> = BTreeMap::new();
    for file in fs::read_dir(stage.project.path().join("archive/public.orders")).unwrap().map(|e| e.unwrap().path()) {
        if file.extension().is_some_and(|e| e == "parquet") {
            let reader = SerializedFileReader::new(fs::File::open(&file).unwrap()).unwrap();
            for row in reader.get_row_iter(None).unwrap().map(Result::unwrap) {
                let at = |name: &str| row.get_column_iter().position(|(column, _)| column == name).unwrap();
                let what = format!("{} {}", row.get_string(at("_op")).unwrap(), row.get_long(at("id")).unwrap());
                assert!(archived.insert(row.get_string(at("_seq")).unwrap().clone(), what).is_none(), "a token comes twice");
            }
        }
    }
    let mut read: Vec<&str> = archived.values().take(4).map(String::as_str).collect();
    read.sort_unstable();
    assert_eq!(read, ["r 1", "r 2", "r 3", "r 4"]);
    let changes: Vec<&str> = archived.values().skip(4).map(String::as_str).collect();
    assert_eq!(changes, ["u 1", "u 3", "u 2", "d 4"]);
}

#[tokio::test]
async fn mask_and_filter() {
    let stage = Stage::new("mask_and_filter.yaml").await;
    stage.run_twice().await;
    let key = hmac::Key::new(hmac::HMAC_SHA256, MASK_KEY.as_bytes());
    let hidden = |email: &str| -> String { hmac::sign(&key, email.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect() };
    assert_eq!(
        stage.there("SELECT id, email, notes FROM customers").await,
        texts(&[&["1", &hidden("ada@example.org"), "∅"], &["2", "∅", "∅"], &["3", &hidden("bob@example.org"), "∅"]])
    );
    // Order 3 became a draft, which the filter makes a delete, which stays as a mark; order 4 never passed.
    assert_eq!(
        stage.there("SELECT id, status, total FROM orders WHERE NOT _ETL_DELETED").await,
        texts(&[&["1", "new", "2000.00"], &["2", "new", "5.00"]])
    );
    let deleted = stage.there("SELECT id FROM orders WHERE _ETL_DELETED").await;
    assert!(deleted.contains(&vec!["3".to_owned()]), "{deleted:?}");
    let landed = stage.there("SELECT COUNT(*) FROM customers__changes WHERE email LIKE '%@%' OR notes IS NOT NULL").await;
    assert_eq!(landed, texts(&[&["0"]]));
}

#[tokio::test]
async fn route() {
    let stage = Stage::new("route.yaml").await;
    stage.run_twice().await;
    // Order 1 grew large and left the small ones.
    assert_eq!(stage.there("SELECT id, total FROM orders").await, texts(&[&["1", "2000.00"], &["3", "4000.00"]]));
    let small = fold(&stage.project.path().join("small-orders"), "public.orders", &["id"]);
    assert_eq!(small.keys().collect::<Vec<_>>(), ["2"]);
    assert_eq!(small["2"]["status"], "new");
}

/// Makes PostgreSQL offer TLS and ask for passwords.
async fn secure(postgres: &Postgres, certificates: &Path) {
    let owner = fs::metadata(postgres.data()).unwrap();
    let put = |name: &str, content: &[u8]| {
        let path = postgres.data().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    };
    for name in ["server.crt", "server.key"] {
        put(name, &fs::read(certificates.join(name)).unwrap());
    }
    put("postgresql.auto.conf", b"ssl = on\n");
    put("pg_hba.conf", b"hostssl all replicator 127.0.0.1/32 scram-sha-256\nhost all postgres 127.0.0.1/32 trust\n");
    postgres.client("postgres").await.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

/// The example's user: owns the tables, so that it may publish them.
const REPLICATOR: &str = "
    CREATE TABLE orders_archive (id int PRIMARY KEY);
    INSERT INTO orders_archive VALUES (1);
    GRANT CREATE ON DATABASE shop TO replicator;
    ALTER TABLE customers OWNER TO replicator;
    ALTER TABLE orders OWNER TO replicator;
    ALTER TABLE orders_archive OWNER TO replicator;";

#[tokio::test]
async fn two_sources() {
    let mut stage = Stage::new("two_sources.yaml").await;
    let us = Postgres::start();
    let us_client = us.database("shop").await;
    us_client.batch_execute(SHOP).await.unwrap();
    us_client.batch_execute("UPDATE orders SET status = 'american'").await.unwrap();
    let secrets = stage.project.path().to_owned();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-keyout", "server.key", "-out", "server.crt"])
        .current_dir(&secrets)
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    for (server, client, password) in [(&stage.postgres, &stage.client, "of the east"), (&us, &us_client, "of the west")] {
        client.batch_execute(&format!("CREATE ROLE replicator LOGIN REPLICATION PASSWORD '{password}'")).await.unwrap();
        client.batch_execute(REPLICATOR).await.unwrap();
        secure(server, &secrets).await;
    }
    fs::write(secrets.join("us_pg_password"), "of the west\n").unwrap();
    for (name, value) in [("EU_PG_HOST", "localhost"), ("US_PG_HOST", "localhost"), ("EU_PG_PASSWORD", "of the east")] {
        stage.project.env.push((name.into(), value.into()));
    }
    let port = |name: &str, server: &Postgres| format!("host: ${{{name}_PG_HOST}}\n    port: {}", server.port());
    stage.place(&[
        ("/etc/ssl/pg-ca.pem", secrets.join("server.crt").display().to_string()),
        ("/run/secrets", secrets.display().to_string()),
        ("host: ${EU_PG_HOST:-eu.db.internal}", port("EU", &stage.postgres)),
        ("host: ${US_PG_HOST:-us.db.internal}", port("US", &us)),
    ]);
    stage.run_twice().await;
    let query = "SELECT id, customer_id, status, total FROM ";
    for (name, client) in [("eu", &stage.client), ("us", &us_client)] {
        assert_eq!(stage.there(&format!("{query}{name}_orders")).await, in_postgres(client, &format!("{query}orders")).await, "{name}");
    }
    let archives = in_snowflake(&stage.snowflake, "SELECT TABLE_NAME FROM RAW.INFORMATION_SCHEMA.TABLES WHERE TABLE_NAME LIKE '%ARCHIVE%'");
    assert_eq!(archives.await, texts(&[]));
}
