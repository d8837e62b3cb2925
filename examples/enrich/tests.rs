//! Against recomputation from scratch, on one worker with random rows and on two with a real server's; and compliance.

use super::*;
use etl_stream::arrow::array::{Array, AsArray, Int64Array, StringArray};
use etl_stream::config::{self, Environment};
use etl_stream::dataflow::{self, RunOptions, Until};
use etl_stream::testing::comply::Subject;
use etl_stream::testing::flow::{Flow, Step};
use etl_stream::testing::postgres::Postgres;
use etl_stream::testing::random::Random;
use etl_stream::testing::rows;
use etl_stream::{Kind, Op, OperatorNode, RowBatch, Token, Ts};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

#[test]
fn complies() {
    Subject::of(&registry(), Kind::Operator, "enrich").comply();
}

fn settings() -> EnrichConfig {
    let text = |text: &str| text.to_owned();
    EnrichConfig { facts: text("p.facts"), by: text("dimension"), dimension: text("p.dimension"), take: text("name"), name: text("added") }
}

fn any(random: &mut Random, table: &Arc<TableSchema>, lsn: u64, first: u64, keys: &str) -> RowBatch {
    let ops: Vec<Op> = (0..1 + random.below(4)).map(|_| *random.pick(&[Op::Insert, Op::Update, Op::Delete, Op::Insert])).collect();
    let mut batch = rows::rows(table, &ops, Token::new(lsn, first), random);
    let at = table.column(keys).expect("a column of the test");
    batch.columns[at] = Arc::new((0..batch.len()).map(|_| Some(random.below(5) as i64)).collect::<Int64Array>());
    if table.name.as_ref() == "dimension" {
        let mut texts: Vec<Option<String>> = batch.columns[1].as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect();
        for (row, text) in texts.iter_mut().enumerate() {
            if batch.op(row) == Op::Update && random.percent(30) {
                *text = None;
                batch.unchanged.push(row, 1, ());
            }
        }
        batch.columns[1] = Arc::new(StringArray::from(texts));
    }
    batch
}

/// The dimension's text of a key as of a token, from the first row on.
fn from_scratch(dimension: &[RowBatch], key: i64, before: Token) -> Option<String> {
    let mut state: BTreeMap<i64, Option<String>> = BTreeMap::new();
    for batch in dimension {
        for row in (0..batch.len()).filter(|row| batch.token(*row) < before) {
            let (id, name) = (
                batch.columns[0].as_primitive::<etl_stream::arrow::datatypes::Int64Type>().value(row),
                batch.columns[1].as_string::<i32>(),
            );
            match batch.op(row) {
                Op::Delete => drop(state.remove(&id)),
                _ if batch.unchanged.get(row, 1).is_some() => drop(state.entry(id).or_default()),
                _ => drop(state.insert(id, (!name.is_null(row)).then(|| name.value(row).to_owned()))),
            }
        }
    }
    state.remove(&key).flatten()
}

#[test]
fn as_recomputed_from_scratch() {
    use ColumnType::{Int8, Text};
    let dimension = Arc::new(rows::table("p.dimension", &[("id", Int8, "bigint"), ("name", Text, "text")]));
    let facts = Arc::new(rows::table("p.facts", &[("id", Int8, "bigint"), ("dimension", Int8, "bigint")]));
    for seed in 1..=30 {
        let mut random = Random::new(seed);
        let (mut steps, mut names, mut asked) = (Vec::new(), Vec::new(), Vec::new());
        for lsn in 1..=40 {
            let (mut items, mut ordinal) = (Vec::new(), 0);
            for _ in 0..1 + random.below(4) {
                let is_fact = random.percent(50);
                let batch = if is_fact {
                    any(&mut random, &facts, lsn, ordinal, "dimension")
                } else {
                    any(&mut random, &dimension, lsn, ordinal, "id")
                };
                ordinal += batch.len() as u64;
                if is_fact {
                    asked.push(batch.clone())
                } else {
                    names.push(batch.clone())
                }
                items.push(Item::Rows(batch));
            }
            // Facts may come before what they ask for: within a step nothing says which is first.
            if random.percent(50) {
                items.sort_by_key(|item| item.table().name.as_ref() != "facts");
            }
            steps.push(Step { time: Ts::new(lsn, 0), items });
        }
        let (seen, result) = Flow::default().run(OperatorNode::Stream(Box::new(Enrich(settings()))), steps);
        result.expect("nothing can fail");
        let mut found = BTreeMap::new();
        for left in seen.iter().flat_map(|seen| &seen.left) {
            if let Item::Rows(batch) = &left.item
                && batch.table.name.as_ref() == "facts"
            {
                let added = batch.columns[2].as_string::<i32>();
                found.extend((0..batch.len()).map(|row| (batch.token(row), (!added.is_null(row)).then(|| added.value(row).to_owned()))));
            }
        }
        let keys = |batch: &RowBatch, row: usize| batch.columns[1].as_primitive::<etl_stream::arrow::datatypes::Int64Type>().value(row);
        let wanted: BTreeMap<Token, Option<String>> = asked
            .iter()
            .flat_map(|batch| (0..batch.len()).map(move |row| (batch.token(row), keys(batch, row))))
            .map(|(token, key)| (token, from_scratch(&names, key, token)))
            .collect();
        assert_eq!(found, wanted, "seed {seed}");
    }
}

const TABLES: &str = "CREATE TABLE customers (id int PRIMARY KEY, name text);
    CREATE TABLE orders (id int PRIMARY KEY, customer_id int);
    INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 20) n;
    INSERT INTO orders SELECT n, n % 25 FROM generate_series(1, 5000) n;";

/// Names change between the orders' changes; a transaction has both.
const CHANGES: &str = "UPDATE customers SET name = 'renamed ' || id WHERE id % 2 = 0;
    INSERT INTO orders SELECT n, n % 25 FROM generate_series(5001, 5200) n;
    BEGIN; INSERT INTO customers VALUES (21, 'new'); UPDATE orders SET customer_id = 21 WHERE id = 1; COMMIT;
    DELETE FROM customers WHERE id = 3;
    UPDATE orders SET id = -id WHERE id = 3;";

fn run(folder: &Path, url: &str) {
    let text = format!(
        "sources: {{ shop: {{ type: postgres, url: {{ plain: \"{url}\" }} }} }}
operators: {{ named: {{ type: enrich, inputs: [shop], {} }} }}
sinks: {{ files: {{ type: file, inputs: [named], path: out }} }}
engine: {{ workers: 2 }}
server: none\n",
        EnrichConfig::EXAMPLE.trim_end().replace('\n', ", ")
    );
    let loaded = config::parse("p.yaml", &text, &folder.join("p.yaml"), &registry(), &Environment::Lookup(&|_| None));
    let graph = loaded.graph.unwrap_or_else(|| panic!("{:?}", loaded.problems));
    dataflow::run(graph, RunOptions { until: Some(Until::CaughtUp), ..RunOptions::default() }).expect("the pipeline runs");
}

/// The last name of each order in the files.
fn named(folder: &Path) -> BTreeMap<i64, Option<String>> {
    let mut files: Vec<_> = folder.join("out/public.orders").read_dir().expect("files").flatten().map(|file| file.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "ndjson"));
    files.sort();
    let mut names = BTreeMap::new();
    for line in files.iter().flat_map(|file| std::fs::read_to_string(file).expect("a file").lines().map(str::to_owned).collect::<Vec<_>>())
    {
        let row: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
        let id = row["id"].as_i64().expect("an id");
        if row["_op"] == "d" { drop(names.remove(&id)) } else { drop(names.insert(id, row["customer_name"].as_str().map(str::to_owned))) }
    }
    names
}

#[test]
fn on_two_workers_with_a_real_server() {
    let (server, folder) = (Postgres::start(), tempfile::tempdir().expect("a folder of the test"));
    let runtime = tokio::runtime::Runtime::new().expect("threads of the test");
    let sql = |sql: &str| runtime.block_on(async { server.client("shop").await.batch_execute(sql).await.expect("the server takes it") });
    runtime.block_on(server.database("shop"));
    sql(TABLES);
    let worker = |table| join::worker_of(&"shop".into(), table, 2);
    assert_ne!(worker("public.orders"), worker("public.customers"), "the names are such that they come to two workers");
    run(folder.path(), &server.url("shop"));
    let customer = |id: i64| (1..=20).contains(&(id % 25)).then(|| format!("customer {}", id % 25));
    let mut wanted: BTreeMap<i64, Option<String>> = (1..=5000).map(|id| (id, customer(id))).collect();
    assert_eq!(named(folder.path()), wanted, "the copy");
    CHANGES.split(";\n").for_each(&sql);
    run(folder.path(), &server.url("shop"));
    for id in 5001..=5200 {
        let renamed = customer(id).map(|name| if id % 25 % 2 == 0 { name.replace("customer", "renamed") } else { name });
        wanted.insert(id, renamed);
    }
    wanted.insert(1, Some("new".into()));
    wanted.remove(&3);
    wanted.insert(-3, None);
    assert_eq!(named(folder.path()), wanted, "the changes");
}
