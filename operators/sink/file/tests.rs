//! Crashes at every step, attempts at snapshots, odd names, Parquet read back.

use super::encode::Encoder;
use super::folder::TableFolder;
use super::*;
use crate::contract::{Item, Mark, RowBatch, Token};
use crate::sink::testing::{Acks, batch, context, deliver, table};
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;

thread_local! {
    /// Steps until the crash of this thread's writer.
    static CRASH: Cell<Option<usize>> = const { Cell::new(None) };
}

struct Crashed;

/// Where the process may end.
pub(super) fn step() {
    if let Some(left) = CRASH.get() {
        CRASH.set(left.checked_sub(1));
        if left == 0 {
            // Not a panic: no message.
            resume_unwind(Box::new(Crashed));
        }
    }
}

fn open(root: &Path, format: FileFormat) -> TableFolder {
    TableFolder::open(root, &table("public", "t"), "p/s", Encoder::new(format, 3)).expect("a folder")
}

/// Runs a process that gets `items` and may crash after so many steps; says how many items it acknowledged.
fn run(root: &Path, items: &[Item], crash: Option<usize>) -> usize {
    let mut acked = 0;
    CRASH.set(crash);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let mut folder = open(root, FileFormat::Ndjson);
        for item in items {
            match item {
                Item::Rows(batch) => drop(folder.write(batch).expect("a writable folder")),
                Item::Mark(mark) => folder.mark(mark).expect("a writable folder"),
            }
            acked += 1;
            // Acknowledged, or crashed just before.
            step();
        }
    }));
    assert!(ended.is_ok() || ended.is_err_and(|panic| panic.is::<Crashed>()), "only the crash may end a process");
    CRASH.set(None);
    acked
}

/// The files of a table's folder that a reader sees.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the table's folder");
    let mut names: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    names.retain(|path| !path.file_name().expect("a name").to_string_lossy().starts_with('.'));
    names.sort();
    names
}

/// The tokens that a reader of `*.ndjson` sees.
fn read(root: &Path) -> Vec<Token> {
    let text: String = files(&root.join("public.t")).iter().map(|path| fs::read_to_string(path).expect("a file of text")).collect();
    let seq = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).expect("a line is JSON");
        row["_seq"].as_str().expect("a token").parse::<Token>().expect("a token")
    };
    text.lines().map(seq).collect()
}

fn cut(rows: &RowBatch, size: usize) -> Vec<Item> {
    (0..rows.len()).step_by(size).map(|at| rows.slice(at, size.min(rows.len() - at)).into()).collect()
}

fn tokens(rows: &[&RowBatch]) -> Vec<Token> {
    rows.iter().flat_map(|batch| (0..batch.len()).map(|row| batch.token(row))).collect()
}

fn begin(lsn: u64) -> Item {
    begin_after(lsn, None)
}

fn begin_after(lsn: u64, replaces: Option<u64>) -> Item {
    Item::Mark(Mark::SnapshotBegin { table: table("public", "t"), lsn, replaces })
}

fn end(lsn: u64) -> Item {
    Item::Mark(Mark::SnapshotEnd { table: table("public", "t"), lsn })
}

#[test]
fn each_row_once_whatever_step_crashes() {
    let rows = batch("public", "t", 7, 0..10);
    for crash in 0.. {
        let root = tempfile::tempdir().expect("a folder");
        let finished = run(root.path(), &cut(&rows, 3), Some(crash)) == 4;
        let acked = read(root.path()).len();
        for size in [2, 10] {
            run(root.path(), &cut(&rows, size), None);
            assert_eq!(read(root.path()), tokens(&[&rows]), "after a crash at step {crash} with {acked} rows written");
        }
        let hidden = fs::read_dir(root.path().join("public.t")).expect("a folder").flatten();
        assert_eq!(hidden.filter(|entry| entry.file_name().to_string_lossy().ends_with(".tmp")).count(), 0);
        if finished && crash > 20 {
            break;
        }
    }
}

#[test]
fn changes_that_came_with_an_attempt_go_with_it() {
    let rows = |lsn, count| batch("public", "t", lsn, 0..count);
    let first = [vec![begin(10)], cut(&rows(10, 7), 3), cut(&rows(12, 3), 2), vec![end(10)], cut(&rows(14, 2), 1)].concat();
    let second = [vec![begin_after(20, Some(10))], cut(&rows(20, 5), 2), cut(&rows(22, 2), 1), vec![end(20)]].concat();
    let mut crash = 0;
    loop {
        let root = tempfile::tempdir().expect("a folder");
        run(root.path(), &cut(&rows(5, 2), 2), None);
        run(root.path(), &first, if crash % 3 == 0 { None } else { Some(crash) });
        let finished = run(root.path(), &second, Some(crash)) == second.len();
        run(root.path(), &[vec![begin_after(30, Some(10))], cut(&rows(30, 4), 2), vec![end(30)], cut(&rows(31, 1), 1)].concat(), None);
        assert_eq!(read(root.path()), tokens(&[&rows(5, 2), &rows(30, 4), &rows(31, 1)]), "after a crash at step {crash}");
        if finished {
            break;
        }
        crash += 1;
    }
}

#[test]
fn an_attempt_at_a_snapshot_is_replaced_as_a_whole() {
    let before = batch("public", "t", 5, 0..2);
    let (first, second, later) = (batch("public", "t", 10, 0..7), batch("public", "t", 20, 0..5), batch("public", "t", 30, 0..2));
    let attempt = |lsn, rows: &RowBatch, size| [vec![begin(lsn)], cut(rows, size)].concat();
    for history in [vec![], cut(&before, 2)] {
        let kept = if history.is_empty() { batch("public", "t", 5, 0..0) } else { before.clone() };
        let mut crash = 0;
        loop {
            let root = tempfile::tempdir().expect("a folder");
            run(root.path(), &history, None);
            let unfinished = attempt(10, &first, 3);
            let ran = run(root.path(), &unfinished, Some(crash));
            // The same attempt goes on; another is disturbed too, and a third gets through.
            if crash % 2 == 0 {
                run(root.path(), &attempt(10, &first, 2), Some(crash / 2));
            }
            run(root.path(), &attempt(15, &batch("public", "t", 15, 0..4), 2), Some(crash / 3));
            let complete = [attempt(20, &second, 2), vec![end(20)], cut(&later, 1)].concat();
            run(root.path(), &complete, Some(crash));
            run(root.path(), &[attempt(20, &second, 4), vec![end(20)], cut(&later, 2)].concat(), None);
            assert_eq!(read(root.path()), tokens(&[&kept, &second, &later]), "after a crash at step {crash}");
            assert!(!root.path().join("public.t/.snapshot").exists());
            crash += 1;
            if ran == unfinished.len() && crash > 40 {
                break;
            }
        }
    }
}

#[test]
fn a_snapshot_that_ended_is_replaced_too_until_a_change_follows() {
    let (first, second, later) = (batch("public", "t", 10, 0..7), batch("public", "t", 20, 0..5), batch("public", "t", 30, 0..2));
    let whole = |lsn, rows: &RowBatch| [vec![begin(lsn)], cut(rows, 3), vec![end(lsn)]].concat();
    let root = tempfile::tempdir().expect("a folder");
    run(root.path(), &whole(10, &first), None);
    run(root.path(), &[whole(20, &second), cut(&later, 1)].concat(), None);
    assert_eq!(read(root.path()), tokens(&[&second, &later]), "the source had not noted the first as complete");
    let third = batch("public", "t", 40, 0..3);
    run(root.path(), &whole(40, &third), None);
    assert_eq!(read(root.path()), tokens(&[&second, &later, &third]), "changes that followed a snapshot keep it");
}

#[test]
fn what_would_lose_rows_is_refused() {
    let refused = |items: &[Item], code: &str| {
        let root = tempfile::tempdir().expect("a folder");
        let mut folder = open(root.path(), FileFormat::Ndjson);
        let outcome = items.iter().try_for_each(|item| match item {
            Item::Rows(batch) => folder.write(batch).map(drop),
            Item::Mark(mark) => folder.mark(mark),
        });
        assert_eq!(outcome.expect_err("refused").code.id, code);
    };
    let rows = batch("public", "t", 50, 0..4);
    refused(&[rows.slice(1, 3).into(), rows.slice(0, 1).into()], "FS0005");
    refused(&[rows.clone().into(), begin(20)], "FS0004");
    let mut other = batch("public", "t", 60, 0..1);
    Arc::make_mut(&mut other.table).id = 2;
    refused(&[rows.clone().into(), other.into(), batch("public", "t", 70, 0..1).into()], "FS0004");
    let mut hidden = rows;
    Arc::make_mut(&mut hidden.table).columns[0].name = "_seq".into();
    refused(&[hidden.into()], "FS0006");
}

fn sample() -> RowBatch {
    let mut rows = batch("public", "t", 7, 0..3);
    rows.columns[1] = Arc::new(arrow::array::StringArray::from(vec![Some("a\"b"), None, None]));
    rows.unchanged.push(1, 1, ());
    rows.exact.push(2, 1, "44 BC".into());
    rows
}

#[test]
fn lines_say_what_is_unchanged() {
    let root = tempfile::tempdir().expect("a folder");
    open(root.path(), FileFormat::Ndjson).write(&sample()).expect("a writable folder");
    let text = fs::read_to_string(root.path().join("public.t/0000000000000007_0000000000000000-0000000000000007_0000000000000002.ndjson"));
    let line = |ordinal, rest| {
        format!(
            "{{\"_op\":\"i\",\"_seq\":\"0000000000000007/000000000000000{ordinal}\",\"_commit_ts\":\"1970-01-01T00:00:00.000007+00:00\",{rest}}}\n"
        )
    };
    let expected = [r#""id":7000,"note":"a\"b""#, r#""_unchanged":["note"],"id":7001"#, r#""id":7002,"note":"44 BC""#];
    assert_eq!(text.expect("the file"), expected.iter().enumerate().map(|(row, rest)| line(row, rest)).collect::<String>());
}

#[test]
fn parquet_reads_back() {
    let root = tempfile::tempdir().expect("a folder");
    let rows = sample();
    let written = open(root.path(), FileFormat::Parquet).write(&rows).expect("a writable folder");
    let path = root.path().join("public.t/0000000000000007_0000000000000000-0000000000000007_0000000000000002.parquet");
    assert_eq!((written.rows, written.bytes), (3, fs::metadata(&path).expect("the file").len()));
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("the file")).expect("Parquet");
    let read: Vec<_> = reader.build().expect("a reader").collect::<Result<_, _>>().expect("rows");
    let [read] = read.as_slice() else { panic!("one batch") };
    let schema = read.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["_op", "_seq", "_commit_ts", "_unchanged", "id", "note", "_etl_exact"]);
    assert_eq!(schema.field(4).metadata().get("postgres.type").map(String::as_str), Some("bigint"));
    assert_eq!(read.columns()[4..6], rows.columns);
    assert_eq!(read.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["i"; 3]);
    assert_eq!(read.column(1).as_string::<i32>().value(2), "0000000000000007/0000000000000002");
    assert_eq!(read.column(2).as_primitive::<TimestampMicrosecondType>().values().as_ref(), [7; 3]);
    let unchanged = read.column(3).as_list::<i32>();
    assert_eq!((unchanged.is_null(0), unchanged.value(1).as_string::<i32>().value(0)), (true, "note"));
    let exact = read.column(6).as_string::<i32>();
    assert_eq!((exact.is_null(1), exact.value(2)), (true, r#"{"note":"44 BC"}"#));
    // The next process knows what is there.
    assert_eq!(open(root.path(), FileFormat::Parquet).write(&rows).expect("a writable folder").rows, 0);
}

fn sink(root: &Path, retry: RetrySettings) -> Arc<dyn Sink> {
    let cx = BuildContext { pipeline: "p".into(), node: "out".into(), folder: root.into(), peers: crate::contract::Peers::default() };
    let format = FileFormat::Ndjson;
    FileConfig { path: "out".into(), format, compression_level: None, batch: None, retry }.build(&cx).expect("settings that build")
}

#[tokio::test]
async fn tables_side_by_side_under_odd_names() {
    let root = tempfile::tempdir().expect("a folder");
    let sink = sink(root.path(), RetrySettings::default());
    let cx = context();
    sink.prepare(&cx).await.expect("a folder of its own");
    let second = super::lock(&root.path().join("out"), None).expect_err("the folder is locked");
    assert_eq!(second.code.id, "FS0003");
    let names = [("public", "t"), ("a.b", "c"), ("a", "b.c"), ("..", "/etc/x"), ("s", "Ä %\n")];
    let items = (0..4).flat_map(|part| names.map(|(schema, name)| batch(schema, name, 7 + part, 0..3).into())).collect();
    let acks = Acks::default();
    sink.writer(cx.clone()).run(deliver(items, &acks)).await.expect("a writable folder");
    assert_eq!(acks.durable(), (0..20).collect::<Vec<_>>());
    assert_eq!(cx.status.sink("out").rows.load(Ordering::Relaxed), 60);
    let mut folders: Vec<(String, usize)> = fs::read_dir(root.path().join("out"))
        .expect("the folder")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| (entry.file_name().into_string().expect("UTF-8"), files(&entry.path()).len()))
        .collect();
    folders.sort();
    assert_eq!(folders, ["%2E%2E.%2Fetc%2Fx", "a%2Eb.c", "a.b.c", "public.t", "s.Ä %25%0A"].map(|name| (name.to_owned(), 4)));
    drop(sink);
    super::lock(&root.path().join("out"), None).expect("the lock ends with the sink");
}

#[tokio::test]
async fn tries_again_until_the_deadline() {
    let root = tempfile::tempdir().expect("a folder");
    let retry = |give_up| RetrySettings { initial: Period::millis(1), max: Period::millis(5), give_up_after: Period::millis(give_up) };
    let items = || vec![batch("public", "t", 7, 0..3).into()];
    // A file stands where the table's folder should.
    fs::create_dir(root.path().join("out")).expect("a new folder");
    let obstacle = root.path().join("out/public.t");
    fs::write(&obstacle, "").expect("a file");
    let (cx, acks) = (context(), Acks::default());
    let error = sink(root.path(), retry(20)).writer(cx.clone()).run(deliver(items(), &acks)).await.expect_err("in the way");
    assert_eq!((error.code.id, acks.durable()), ("FS0001", vec![]));
    let cx = context();
    let running = tokio::spawn(sink(root.path(), retry(60_000)).writer(cx.clone()).run(deliver(items(), &acks)));
    while cx.status.sink("out").retries.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    fs::remove_file(obstacle).expect("a file");
    running.await.expect("no panic").expect("goes on");
    assert_eq!(acks.durable(), [0]);
}

#[tokio::test]
async fn two_sources_do_not_share_a_folder() {
    let root = tempfile::tempdir().expect("a folder");
    let sink = sink(root.path(), RetrySettings::default());
    sink.prepare(&context()).await.expect("a folder of its own");
    let (sender, deliveries) = tokio::sync::mpsc::unbounded_channel();
    let acks = Acks::default();
    let first = tokio::spawn(sink.writer(context()).run(deliveries));
    let mut one = deliver(vec![batch("public", "t", 7, 0..3).into()], &acks);
    sender.send(one.recv().await.expect("a delivery")).expect("a running writer");
    while acks.durable().is_empty() {
        tokio::task::yield_now().await;
    }
    let other = WriterContext { source: "other".into(), ..context() };
    let items = || deliver(vec![batch("public", "t", 8, 0..3).into()], &Acks::default());
    let error = sink.writer(other.clone()).run(items()).await.expect_err("the folder is taken");
    assert_eq!(error.code.id, "FS0004");
    drop(sender);
    first.await.expect("no panic").expect("a clean end");
    sink.writer(context()).run(items()).await.expect("the claim ends with its writer");
}

#[test]
fn settings_are_checked() {
    for (yaml, problems) in [
        (r#"{"path": "out"}"#, 0),
        (r#"{"path": "out", "format": "parquet", "compression_level": 22}"#, 0),
        (r#"{"path": "", "format": "ndjson", "compression_level": 0}"#, 3),
    ] {
        let mut findings = Findings::default();
        serde_json::from_str::<FileConfig>(yaml).expect("settings").check(&mut findings);
        assert_eq!(findings.0.len(), problems, "{yaml}");
    }
    let limits = BatchSettings { max_rows: Some(5), max_bytes: None, max_age: None };
    assert_eq!(batch_limits(Some(limits), BATCH), BatchSettings { max_rows: Some(5), ..BATCH });
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(60))]

    /// Processes one after another, each of which starts again somewhere at or before the first row that is
    /// not acknowledged, cuts the rows its own way and may crash: a reader sees each row once.
    #[test]
    fn random_batches_and_crashes(
        transactions in proptest::collection::vec(1..6_u64, 1..8),
        processes in proptest::collection::vec((1..7_usize, 0..60_usize, 0.0..1.0_f64), 0..6),
    ) {
        let root = tempfile::tempdir().expect("a folder");
        let parts: Vec<RowBatch> = transactions.iter().zip(1..).map(|(rows, lsn)| batch("public", "t", lsn * 8, 0..*rows)).collect();
        let table = Arc::clone(&parts[0].table);
        let parts: Vec<RowBatch> = parts.into_iter().map(|part| RowBatch { table: Arc::clone(&table), ..part }).collect();
        let rows = RowBatch::concat(parts).expect("batches of one schema");
        let mut acked = 0;
        for (size, crash, back) in processes.into_iter().chain([(4, usize::MAX, 0.5)]) {
            let start = (acked as f64 * back) as usize;
            let items = cut(&rows.slice(start, rows.len() - start), size);
            let done = run(root.path(), &items, Some(crash));
            acked = acked.max((start + done * size).min(rows.len()));
            let seen = read(root.path());
            proptest::prop_assert!(seen.len() >= acked);
            proptest::prop_assert_eq!(&seen, &tokens(&[&rows])[..seen.len()]);
        }
        proptest::prop_assert_eq!(acked, rows.len());
    }
}
