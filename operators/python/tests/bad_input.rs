//! Code that is missing, wrong, slow or dead: each with its code, and nothing of the batch let go.

use super::{Outcome, config, module, orders, run};
use crate::contract::{Findings, Item, NodeConfig, Op, RowBatch, Token, Ts};
use crate::python::settings::PythonConfig;
use crate::testing::random::Random;
use crate::testing::rows::{rows, tables};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const SECRET: &str = "4711-0815";

fn items() -> Vec<Item> {
    (1..4).map(|lsn| orders(&[Op::Insert, Op::Update, Op::Insert, Op::Delete], lsn).into()).collect()
}

/// The error, when nothing at or after the first batch was let go.
fn refused(outcome: &Outcome, case: &str) -> String {
    let error = outcome.error.as_ref().unwrap_or_else(|| panic!("{case}: it went through"));
    assert!(outcome.frontier.is_some_and(|at| at <= Ts::new(1, 0)), "{case}: {:?}", outcome.frontier);
    assert!(outcome.left.is_empty(), "{case}");
    let report = error.report();
    assert!(!report.contains(SECRET), "{case}: a value is in the error: {report}");
    report
}

#[test]
fn each_mistake_has_its_code() {
    let folder = module(&format!(
        "import os, signal, sys, time\nimport pyarrow as pa\n\nparts = {:?}\n\n\
         def raises(batch):\n    raise ValueError('-'.join(parts))\n\n\
         def leaves(batch):\n    sys.exit(3)\n\n\
         def nothing(batch):\n    pass\n\n\
         def fewer(batch):\n    return batch.drop_columns(['_row']).slice(1)\n\n\
         def turned(batch):\n    return batch.take(pa.array(range(len(batch) - 1, -1, -1)))\n\n\
         def keyless(batch):\n    return batch.drop_columns(['id'])\n\n\
         def other_type(batch):\n    at = batch.schema.get_field_index('note')\n    return batch.set_column(at, 'note', pa.array(range(len(batch))))\n\n\
         def more(batch):\n    return batch.append_column('more', batch['id'])\n\n\
         def hangs(batch):\n    time.sleep(600)\n\n\
         def killed(batch):\n    os.kill(os.getpid(), signal.SIGKILL)\n\n\
         class Unopened:\n    def open(self):\n        raise OSError('no such place')\n    def apply(self, batch):\n        return batch\n\n\
         class Keyless:\n    def schema(self, schema):\n        return schema.remove(0)\n    def apply(self, batch):\n        return batch\n\n\
         class Unsigned:\n    def schema(self, schema):\n        return schema.append(pa.field('u', pa.uint64()))\n    def apply(self, batch):\n        return batch\n\n\
         class NoSchema:\n    def schema(self, schema):\n        raise KeyError('-'.join(parts))\n    def apply(self, batch):\n        return batch\n\n\
         class NoApply:\n    pass\n",
        SECRET.split('-').collect::<Vec<_>>()
    ));
    fs::write(folder.path().join("broken.py"), "import nowhere_to_be_found\n").unwrap();
    fs::write(folder.path().join("typo.py"), "def f(:\n").unwrap();
    let old = folder.path().join("old");
    fs::create_dir_all(old.join("pyarrow")).unwrap();
    fs::write(old.join("pyarrow/__init__.py"), "__version__ = '1.0.0'\n").unwrap();
    fs::write(old.join("pyarrow/ipc.py"), "").unwrap();
    for (settings, expected) in [
        (json!({ "module": "absent" }), vec!["PY0003", "module \"absent\" was not found"]),
        (json!({ "module": "broken", "function": "f" }), vec!["PY0003", "nowhere_to_be_found", "broken.py"]),
        (json!({ "module": "typo", "function": "f" }), vec!["PY0003", "SyntaxError"]),
        (json!({ "function": "absent" }), vec!["PY0003", "has no \"absent\""]),
        (json!({}), vec!["PY0003", "@operator"]),
        (json!({ "class": "NoApply" }), vec!["PY0003", "apply"]),
        (json!({ "class": "Unopened" }), vec!["PY0003", "no such place", "ops.py"]),
        (json!({ "path": [old], "module": "os" }), vec!["PY0002", "pyarrow 1.0.0", "older"]),
        (json!({ "python": "/usr/bin/env", "function": "raises" }), vec!["PY0001"]),
        (json!({ "python": "/nowhere/python3", "function": "raises" }), vec!["PY0001", "/nowhere/python3"]),
        (
            json!({ "function": "raises" }),
            vec!["PY0004", "raised ValueError", "the batch of", "of table \"public.orders\"", "ops.py", "raise ValueError"],
        ),
        (json!({ "function": "leaves" }), vec!["PY0004", "SystemExit"]),
        (json!({ "class": "NoSchema" }), vec!["PY0004", "KeyError", "the schema of table"]),
        (json!({ "function": "nothing" }), vec!["PY0005", "NoneType"]),
        (json!({ "function": "fewer" }), vec!["PY0005", "rows for", "_row"]),
        (json!({ "function": "turned" }), vec!["PY0005", "in order"]),
        (json!({ "function": "keyless" }), vec!["PY0005", "column \"id\" is missing"]),
        (json!({ "function": "other_type" }), vec!["PY0005", "Int64 instead of Utf8"]),
        (json!({ "function": "more" }), vec!["PY0005", "more"]),
        (json!({ "class": "Keyless" }), vec!["PY0005", "key"]),
        (json!({ "class": "Unsigned" }), vec!["PY0005", "UInt64"]),
        (json!({ "function": "hangs", "timeout": "1s" }), vec!["PY0006", "did not answer within 1 s"]),
        (json!({ "function": "killed" }), vec!["PY0007", "signal 9"]),
    ] {
        let case = settings.to_string();
        let report = refused(&run(folder.path(), settings, items()), &case);
        for words in expected {
            assert!(report.contains(words), "{case} lacks {words}: {report}");
        }
    }
    let shown = run(folder.path(), json!({ "function": "raises", "show_exceptions": true }), items());
    assert!(shown.error.unwrap().report().contains(SECRET), "it was asked for");
}

#[test]
fn without_pyarrow() {
    let folder = module("def same(batch):\n    return batch\n");
    // An environment of the same interpreter that has no packages.
    let bare = folder.path().join("bare");
    let made =
        std::process::Command::new(crate::testing::python::python()).args(["-m", "venv", "--without-pip"]).arg(&bare).status().unwrap();
    assert!(made.success());
    let report = refused(&run(folder.path(), json!({ "function": "same", "python": bare.join("bin/python") }), items()), "bare");
    assert!(report.contains("PY0002") && report.contains("pip install pyarrow"), "{report}");
}

#[test]
fn what_is_printed_is_no_answer() {
    let folder = module(
        "import os, sys, subprocess\n\ndef chatty(batch):\n    print('to standard output')\n    os.write(1, b'ETLS raw bytes\\x00' * 10)\n    sys.stderr.write('to standard error\\n')\n    subprocess.run(['echo', 'a child'])\n    assert sys.stdin.read() == '' and os.read(0, 1) == b''\n    return batch\n",
    );
    let came = items();
    let outcome = run(folder.path(), json!({ "function": "chatty" }), came);
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert_eq!(outcome.tokens().len(), 12);
}

#[test]
fn a_process_that_dies_is_started_again_and_asked_again() {
    // Every second process ends by itself over its second batch.
    let folder = module(
        "import os, pathlib\nhere = pathlib.Path(__file__).parent\nnumber = len(list(here.glob('started.*')))\n(here / f'started.{number}').touch()\ncalls = 0\n\ndef mortal(batch):\n    global calls\n    calls += 1\n    if number % 2 == 0 and calls == 2:\n        os._exit(9)\n    return batch\n",
    );
    let came: Vec<Item> = (1..30).map(|lsn| orders(&[Op::Insert; 4096], lsn).into()).collect();
    let outcome = run(folder.path(), json!({ "function": "mortal" }), came.clone());
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    let tokens = outcome.tokens();
    assert!(tokens.is_sorted() && tokens.len() == 29 * 4096 && tokens.iter().collect::<BTreeSet<_>>().len() == tokens.len());
    assert!(folder.path().join("started.1").exists(), "it was started again");
}

#[test]
fn rows_that_raise_are_dead_letters_and_the_rest_goes_on() {
    let folder = module(
        "import pathlib, time\n\ndef picky(batch):\n    for row in batch.to_pylist():\n        if row['id'] is not None and row['id'] % 5 == 0:\n            raise ValueError(f\"id {row['id']} is not liked\")\n    return batch\n\ndef hangs(batch):\n    if batch['_commit_lsn'][0].as_py() == 2:\n        time.sleep(600)\n    return batch\n",
    );
    let came: Vec<Item> = (1..4).map(|lsn| orders(&[Op::Insert; 40], lsn).into()).collect();
    let letters = |settings: Value| {
        let place = tempfile::tempdir().unwrap();
        let mut all = json!({ "on_error": "dead_letter", "dead_letters": place.path() });
        for (name, value) in settings.as_object().unwrap() {
            all[name] = value.clone();
        }
        let outcome = run(folder.path(), all, came.clone());
        assert!(outcome.error.is_none(), "{:?}", outcome.error);
        assert_eq!(outcome.frontier, None);
        (outcome, place)
    };
    let (outcome, place) = letters(json!({ "function": "picky" }));
    let ids = |batch: &RowBatch| batch.columns[0].as_primitive::<Int64Type>().values().to_vec();
    let (mut kept, mut lost) = (Vec::new(), Vec::new());
    for item in &came {
        let Item::Rows(batch) = item else { continue };
        ids(batch).into_iter().for_each(|id| if id % 5 == 0 { lost.push(id) } else { kept.push(id) });
    }
    assert_eq!(outcome.batches().into_iter().flat_map(ids).collect::<Vec<_>>(), kept, "the others, in order");
    let (dead, why) = read(&place.path().join("s.public.orders"));
    assert!(!lost.is_empty());
    assert_eq!(dead, lost);
    assert!(why.iter().all(|why| why["code"] == "PY0004" && why["exception"].as_str().unwrap().contains("is not liked")));
    assert!(
        why.iter().all(|why| why["traceback"].as_str().unwrap().contains("ops.py") && !why["message"].as_str().unwrap().contains("liked"))
    );

    // A batch that no process answers goes there as a whole: who hangs is not told by halves.
    let alone = json!({ "function": "hangs", "timeout": "1s" });
    let (outcome, place) = letters(alone);
    let (dead, why) = read(&place.path().join("s.public.orders"));
    assert_eq!(dead.len() + outcome.tokens().len(), 120);
    assert!(dead.len() >= 40 && why.iter().all(|why| why["code"] == "PY0006"));
}

/// The keys of the letters of a table, by token, and why they are there.
fn read(folder: &Path) -> (Vec<i64>, Vec<Value>) {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut keys, mut why) = (Vec::new(), Vec::new());
    for file in files {
        if file.extension().is_some_and(|e| e == "json") {
            why.push(serde_json::from_slice(&fs::read(&file).unwrap()).unwrap());
        } else {
            let batches = arrow::ipc::reader::FileReader::try_new(fs::File::open(&file).unwrap(), None).unwrap();
            batches.for_each(|batch| keys.extend(batch.unwrap().column(0).as_primitive::<Int64Type>().values()));
        }
    }
    (keys, why)
}

#[test]
fn dead_letters_that_cannot_be_written_stop_the_pipeline() {
    let folder = module("def raises(batch):\n    raise ValueError\n");
    let place = folder.path().join("file");
    fs::write(&place, "").unwrap();
    let settings = json!({ "function": "raises", "on_error": "dead_letter", "dead_letters": place });
    assert!(refused(&run(folder.path(), settings, items()), "a file").contains("PY0008"));
}

#[test]
fn a_pipeline_that_stops_does_not_wait_for_a_batch() {
    let folder = module(
        "import time\n\ndef hangs(batch):\n    if batch.schema.metadata[b'table'] == b'customers':\n        raise ValueError\n    time.sleep(600)\n",
    );
    let customers = rows(&tables()[1], &[Op::Insert], Token::new(9, 0), &mut Random::new(1));
    let workers = (2..20).find(|n| (tables()[0].route() >> 20) % n != (tables()[1].route() >> 20) % n).unwrap();
    let settings = json!({ "function": "hangs", "timeout": "10m", "workers": workers });
    let outcome = run(folder.path(), settings, [items(), vec![customers.into()]].concat());
    assert_eq!(outcome.error.map(|e| e.code.id), Some("PY0004"));
}

#[test]
fn wrong_settings() {
    for (settings, pointer) in [
        (json!({ "module": "ops.py" }), "/module"),
        (json!({ "function": "f", "class": "C" }), "/class"),
        (json!({ "workers": 0 }), "/workers"),
        (json!({ "timeout": "0s" }), "/timeout"),
        (json!({ "on_error": "dead_letter" }), "/on_error"),
        (json!({ "dead_letters": "x" }), "/dead_letters"),
    ] {
        let mut findings = Findings::default();
        config(settings.clone()).check(&mut findings);
        assert_eq!(findings.0.iter().map(|f| (f.code.id, &*f.pointer)).collect::<Vec<_>>(), [("CFG0070", pointer)], "{settings}");
    }
    let example: PythonConfig =
        serde_json::from_value(json!({ "module": "my_operators", "function": "clean", "tables": ["public.orders"], "workers": 2 }))
            .unwrap();
    let mut findings = Findings::default();
    example.check(&mut findings);
    assert!(findings.0.is_empty());
}
