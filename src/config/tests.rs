//! Files against the problems they must give.

use super::{Drawing, Environment, Loaded, Problem, dummies, parse};
use std::path::Path;

fn read(text: &str) -> Loaded {
    let lookup = |name: &str| match name {
        "PORT" => Some("6543".to_owned()),
        "HOST" => Some("db.example".to_owned()),
        "WORD" => Some("sesame-open".to_owned()),
        _ => None,
    };
    parse("p.yaml", text, Path::new("dir/my-shop.yaml"), &dummies::registry(), &Environment::Lookup(&lookup))
}

fn line(p: &Problem) -> String {
    format!("{} {}:{} {} | {} | {}", p.code.id, p.line, p.column, p.pointer, p.message, p.help.as_deref().unwrap_or("-"))
}

fn lines(text: &str) -> Vec<String> {
    read(text).problems.list.iter().map(line).collect()
}

const GOOD: &str = "\
sources:
  shop:
    type: pull
    url: { env: PULL_URL }
    port: ${PORT}
    tables: { include: [\"public.*\"] }
sinks:
  raw:
    type: push
    account: ACME
";

#[test]
fn a_good_file() {
    let loaded = read(GOOD);
    assert!(loaded.problems.list.is_empty(), "{:?}", loaded.problems.list.iter().map(line).collect::<Vec<_>>());
    let graph = loaded.graph.expect("there is nothing wrong");
    assert_eq!(&*graph.pipeline, "my_shop");
    assert_eq!(graph.state.file(), Some(Path::new("dir/.etl-stream/my_shop.db")));
    assert_eq!(graph.server.map(|s| s.listen.to_string()).as_deref(), Some("127.0.0.1:8080"));
    assert_eq!(graph.engine.workers, 1);
    assert_eq!(format!("{:?}", graph.nodes), "[source shop: pull [] [], sink raw: push [Input { node: 0, output: 0 }] []]");
    let context = graph.context(&graph.nodes[0]);
    assert!(graph.nodes[0].parsed.source(&context).is_ok());
}

#[test]
fn problems() {
    for (text, expected) in [
        ("[1]", vec!["CFG0002 1:1  | a pipeline file is a map, not a list"]),
        ("a: b: c", vec!["CFG0001 1:5"]),
        ("{}", vec!["CFG0013 1:1 /sources | the pipeline has no sources", "CFG0013 1:1 /sinks | the pipeline has no sinks"]),
        (
            "sorces: {}\nsources: {s: {type: pull}}\nsinks: {k: {type: push, account: a}}\nsources: {}",
            vec!["CFG0003 1:1 /sorces | a pipeline has no field `sorces` | did you mean `sources`?", "CFG0011 4:1 /sources |"],
        ),
        (
            "sources:\n  s: {type: pull, prot: 1, port: x, tls: {mod: disable, mode: verify}}\nsinks:\n  k: {type: push}",
            vec![
                "CFG0003 2:19 /sources/s/prot | source \"s\" has no field `prot` | did you mean `port`?",
                "CFG0002 2:34 /sources/s/port | `port` of source \"s\": invalid type: string \"x\", expected u16",
                "CFG0003 2:43 /sources/s/tls/mod | `tls` of source \"s\" has no field `mod` | did you mean `mode`? valid here: mode, ca_file",
                "CFG0002 2:63 /sources/s/tls/mode | `tls.mode` of source \"s\": unknown variant `verify`, expected `disable` or `verify-full` | did you mean `verify-full`?",
                "CFG0016 4:3 /sinks/k | sink \"k\" needs `account` | Whose account.",
            ],
        ),
        (
            "sources: {s: {type: pull}}\noperators:\n  a: {type: keep, where: x, inputs: [s], verbose: no, tables: [orders]}\nsinks: {k: {type: push, inputs: [a], account: 5, wait: 5, chunk: 1kb}}",
            vec![
                "CFG0002 3:51 /operators/a/verbose | `verbose` of operator \"a\": invalid type: string \"no\", expected a boolean | write true or false",
                "CFG0002 3:64 /operators/a/tables/0 | `tables.0` of operator \"a\": `orders` is not a table pattern",
                "CFG0002 4:47 /sinks/k/account | `account` of sink \"k\": invalid type: integer `5`, expected a string | put it in quotes",
                "CFG0002 4:56 /sinks/k/wait | `wait` of sink \"k\": invalid type: integer `5`, expected a string | A duration such as",
                "CFG0002 4:66 /sinks/k/chunk | `chunk` of sink \"k\": `1kb` is not a size",
            ],
        ),
        (
            "sources: {shop: {type: pull}, till: {type: pull}}\noperators: {a: {type: keep, where: x, inputs: [shp, sink]}}\nsinks: {sink: {type: push, account: a}}",
            vec![
                "CFG0004 2:48 /operators/a/inputs/0 | operator \"a\" reads from \"shp\", which does not exist | did you mean `shop`? valid here: shop, till",
                "CFG0004 2:53 /operators/a/inputs/1 | operator \"a\" reads from \"sink\", which is a sink",
                "CFG0007 3:9 /sinks/sink | sink \"sink\" does not say what it reads | write inputs: […] with one or more of: shop, till, a",
            ],
        ),
        (
            "sources: {s: {type: pull}}\noperators:\n  a: {type: keep, where: x, inputs: [s, c]}\n  b: {type: keep, where: x, inputs: [a]}\n  c: {type: keep, where: x, inputs: [b]}\n  d: {type: keep, where: x, inputs: [d]}\nsinks: {k: {type: push, inputs: [c], account: a}}",
            vec![
                "CFG0005 3:3 /operators/a | nodes read in a circle: a -> b -> c -> a",
                "CFG0005 6:3 /operators/d | operator \"d\" reads itself",
            ],
        ),
        (
            "sources: {s: {type: pul}, t: {}, k: {type: push}, Big: {type: pull}}\noperators: {p: {type: python, inputs: [s]}}\nsinks: {k: {type: push, inputs: [p], account: a}}",
            vec![
                "CFG0006 1:21 /sources/s/type | source \"s\" is of type `pul`, which does not exist | did you mean `pull`?",
                "CFG0006 1:27 /sources/t | source \"t\" has no `type` | valid here: pull",
                "CFG0006 1:44 /sources/k/type | source \"k\" is of type `push`, which does not exist | `push` is a sink: it belongs under `sinks`",
                "CFG0012 1:51 /sources/Big",
                "CFG0014 2:23 /operators/p/type",
                "CFG0011 3:9 /sinks/k | the name \"k\" is given to two nodes",
            ],
        ),
        (
            "sources: {s: {type: pull, inputs: [x], password: ${NOPE}, host: ${NOPE}, port: ${HOST}}}\nsinks: {k: {type: push, inputs: s, account: a}}",
            vec!["CFG0001 1:51 /sources/s |"],
        ),
        (
            "sources:\n  s:\n    type: pull\n    inputs: [x]\n    host: ${NOPE}\n    port: ${HOST}\nsinks: {k: {type: push, inputs: s, account: a}}",
            vec![
                "CFG0003 4:5 /sources/s/inputs | source \"s\" has no field `inputs` | rows start at a source",
                "CFG0008 5:11 /sources/s/host | environment variable NOPE is not set",
                "CFG0002 6:11 /sources/s/port | `port` of source \"s\": invalid type: string \"${HOST}\", expected u16",
                "CFG0002 7:33 /sinks/k/inputs | the inputs of sink \"k\" are a list of names, not a single value | write inputs: [s]",
            ],
        ),
        (
            "sources: {s: {type: pull}, t: {type: pull}}\noperators:\n  r: {type: split, inputs: [s], routes: {big: a, small: b}}\nsinks:\n  k: {type: push, inputs: [r.big], account: a}\n  l: {type: push, inputs: [r.huge, r, s.x, r.big, r.big], account: a}",
            vec![
                "CFG0004 6:28 /sinks/l/inputs/0 | operator \"r\" has no output \"huge\" | valid here: big, small",
                "CFG0004 6:36 /sinks/l/inputs/1 | operator \"r\" has several outputs, and sink \"l\" does not say which | write one of: r.big, r.small",
                "CFG0004 6:39 /sinks/l/inputs/2 | sink \"l\" reads output \"x\" of source \"s\", which has only one output | write s",
                "CFG0011 6:51 /sinks/l/inputs/4",
            ],
        ),
        (
            "sources: {s: {type: pull}, t: {type: pull}}\noperators:\n  r: {type: split, inputs: [s], routes: {big: a, small: b}}\n  o: {type: keep, where: x, inputs: [s]}\nsinks:\n  k: {type: push, inputs: [r.big, s], account: a}",
            vec![
                "CFG0015 1:28 /sources/t | source \"t\" is not read by any sink",
                "CFG0015 3:3 /operators/r | nothing reads output \"small\" of operator \"r\": its rows end there",
                "CFG0015 4:3 /operators/o | operator \"o\" is not read by any sink",
                "CFG0018 6:3 /sinks/k | rows of source \"s\" reach sink \"k\" more than once: over \"r\" and directly",
            ],
        ),
        (
            "sources: {s: {type: pull, url: {env: A}, host: h}}\noperators:\n  h: {type: hide, inputs: [s], columns: {a.b: {with: hash}, c.d: {with: hash, key: {env: K}}}}\nsinks: {k: {type: push, inputs: [h], account: a}}",
            vec![
                "CFG0099 1:48 /sources/s/host | source \"s\": `url` and `host` are given | keep one",
                "CFG0099 3:42 /operators/h/columns/a.b | operator \"h\": a hash needs a key",
            ],
        ),
        (
            "version: 2\nname: Ä\nengine: {workers: 0, worker: 1, credit: 1KiB}\nstate: 5\nserver: {listen: localhost}\nsources: {s: {type: pull}}\nsinks: {k: {type: push, account: a}}",
            vec![
                "CFG0002 1:1 /version",
                "CFG0012 2:7 /name",
                "CFG0003 3:22 /engine/worker | engine has no field `worker` | did you mean `workers`?",
                "CFG0002 4:1 /state | state: invalid type: integer `5`, expected a map of settings",
                "CFG0002 5:18 /server/listen",
            ],
        ),
        (
            "engine: {workers: 0, credit: 1KiB}\nsources: {s: {type: pull}}\nsinks: {k: {type: push, account: a}}",
            vec!["CFG0002 1:19 /engine/workers | `workers` of engine is from 1 to 1024", "CFG0002 1:30 /engine/credit"],
        ),
        (
            "sources: {s: {type: pull}}\nsinks: {k: {type: push, account: a}}\nalerts:\n  a: {when: sink.retries > 1, notify: [opps], severity: loud}\n  b: {notify: []}\n  c: {when: sink.retrys > 1, for: 1m, notify: [ops]}\nnotifiers: {ops: {type: webhook, url: {env: U}, queue: 0}}",
            vec![
                "CFG0017 4:40 /alerts/a/notify/0 | alert \"a\" tells \"opps\", which is not a notifier | did you mean `ops`?",
                "CFG0002 4:57 /alerts/a/severity",
                "CFG0016 5:3 /alerts/b | alert \"b\" needs `when`",
                "CFG0002 6:13 /alerts/c/when | `when` of alert \"c\": there is no metric `sink.retrys`; did you mean `sink.retries`?",
                "CFG0002 7:13 /notifiers/ops/queue",
            ],
        ),
        (
            "sources: {s: {type: pull}}\nsinks: {k: {type: push, account: a}}\nalerts:\n  a: {when: slot.retained_wal > 1GiB, notify: []}\n  b: {when: sink.retries > 1, danger: sink.rejected_rows > 1, repeat: 1ms, only: [k, s], notify: [old]}\nnotifiers: {old: {type: webhook, url: {env: U}, format: predecessor}}",
            vec![
                "CFG0062 4:13 /alerts/a/when | alert \"a\": nothing gives slot.retained_wal | add a source of type wal_monitor",
                "CFG0062 5:39 /alerts/b/danger | alert \"b\": `danger` is on sink.rejected_rows, `when` on sink.retries",
                "CFG0062 5:71 /alerts/b/repeat",
                "CFG0062 5:86 /alerts/b/only/1 | alert \"b\": \"s\" is not a sink of this file",
                "CFG0062 5:99 /alerts/b/notify/0 | alert \"b\" is on sink.retries",
            ],
        ),
        (
            "engine: {connections: {total: 0, per_server: 3}}\nsources: {s: {type: pull}}\nsinks: {k: {type: push, account: a}}",
            vec!["CFG0002 1:31 /engine/connections/total | `connections.total` of engine is from 1 to 100000"],
        ),
        (
            "defaults:\n  sinks: {batch: {max_rows: x}, bach: 1}\n  sorces: {}\nsources: {s: {type: pull}}\nsinks: {k: {type: push, inputs: [s], account: a}, l: {type: push, inputs: [s], account: a}}",
            vec![
                "CFG0002 2:29 /sinks/k/batch/max_rows",
                "CFG0003 2:33 /defaults/sinks/bach | no sink has a field `bach` to give a default to | did you mean `batch`?",
                "CFG0003 3:3 /defaults/sorces",
            ],
        ),
    ] {
        let got = lines(text);
        assert_eq!(got.len(), expected.len(), "{text}\n{got:#?}");
        for (got, expected) in got.iter().zip(expected) {
            assert!(got.starts_with(expected), "{text}\n     got {got}\nexpected {expected}");
        }
        let loaded = read(text);
        assert_eq!(loaded.graph.is_some(), loaded.problems.errors() == 0, "{text}");
    }
}

#[test]
fn secrets() {
    let text = "sources:
  a: {type: pull, password: hunter2}
  b:
    type: pull
    url: ${WORD}
  c: {type: pull, password: {env: A, file: b}}
  d: {type: pull, password: {plain: hunter2}}
  e: {type: pull, password: {evn: hunter2}}
  f: {type: pull, pasword: hunter2}
  g: {type: pull, password: [hunter2]}
  h: {type: pull, password: {plain: [hunter2]}}
  i: {type: pull, password: }
  j: {type: pull, url: postgres://me:hunter2@h/db}
  k: {type: pull, password: {env: 5}}
sinks:
  raw: {type: push, inputs: [a, b, c, d, e, f, g, h, i, j, k], account: A}
";
    let three = "write { env: NAME }, { file: PATH } or { command: [program, argument] }";
    let secret = |line: u32, node: &str, field: &str, help: &str| {
        let at = if line == 5 { 5 } else { 19 };
        format!(
            "CFG0009 {line}:{at} /sources/{node}/{field} | `{field}` of source \"{node}\" is a secret, and a secret is not written into the file | {help}"
        )
    };
    let got = lines(text);
    let expected = [
        secret(2, "a", "password", three),
        secret(5, "b", "url", "write { env: WORD }"),
        format!("CFG0009 6:19 /sources/c/password | `password` of source \"c\" needs exactly one of env, file and command | {three}"),
        format!("CFG0010 7:19 /sources/d/password | `password` of source \"d\" is written into the file | {three}"),
        "CFG0003 8:30 /sources/e/password/evn | `password` of source \"e\" has no field `evn` | did you mean `env`?".into(),
        "CFG0003 9:19 /sources/f/pasword | source \"f\" has no field `pasword` | did you mean `password`?".into(),
        secret(10, "g", "password", three),
        format!("CFG0009 11:30 /sources/h/password | `password` of source \"h\": `plain` takes one text, not a list | {three}"),
        secret(13, "j", "url", three),
        "CFG0002 14:35 /sources/k/password/env | `password.env` of source \"k\": invalid type: integer `5`, expected a string | put it in quotes".into(),
    ];
    assert_eq!(got.len(), expected.len(), "{got:#?}");
    for (got, expected) in got.iter().zip(&expected) {
        assert!(got.starts_with(expected.as_str()), "\n     got {got}\nexpected {expected}");
    }
    let loaded = read(text);
    for drawing in [Drawing::Plain, Drawing::Colour, Drawing::Narrated] {
        let drawn = loaded.problems.draw(drawing, 100);
        assert!(drawn.contains("password") && !drawn.contains("hunter2") && !drawn.contains("sesame"), "{drawn}");
    }
    let json: String = loaded.problems.json().map(|p| p.to_string()).collect();
    assert!(!json.contains("hunter2") && !json.contains("sesame"), "{json}");
    let effective = loaded.effective.expect("the file parses");
    assert!(!effective.contains("hunter2") && !effective.contains("sesame"), "{effective}");
}

#[test]
fn secrets_without_a_schema() {
    for text in [
        "sources:\n  s:\n    typ: pull\n    password: |\n      hunter2\n      hunter2\n    typo: x\n",
        "sources:\n  s:\n    type: nothing\n    db_token: >\n      hunter2\n",
        "sources:\n  s:\n    password: |\n      hunter2\n    oops: [\n",
        "sources:\n  s: { type: nothing, url: \"postgres://u:hunter2@h/d\" }\n  s: 1\n",
    ] {
        let loaded = read(text);
        let drawn = loaded.problems.draw(Drawing::Plain, 100);
        let effective = loaded.effective.unwrap_or_default();
        assert!(loaded.problems.errors() > 0 && !drawn.contains("hunter2") && !effective.contains("hunter2"), "{drawn}{effective}");
    }
}

#[test]
fn defaults_are_laid_under() {
    let text = "
defaults:
  sources: { password: { env: A }, tls: { mode: disable, ca_file: x }, tables: { include: [a.b, c.d] } }
  sinks: { batch: { max_rows: 5, max_age: 1s } }
sources:
  a: { type: pull, password: { file: f }, tls: { mode: verify-full }, tables: { include: [e.f] } }
  b: { type: pull, port: ${PORT} }
sinks:
  k: { type: push, inputs: [a, b], account: \"no\", batch: { max_rows: 6 } }
"
    .replace("${PORT} }", "\"${PORT}\" }");
    let loaded = read(&text);
    assert!(loaded.problems.list.is_empty(), "{:?}", loaded.problems.list.iter().map(line).collect::<Vec<_>>());
    let effective = loaded.effective.expect("the file parses");
    let expected = "\
version: 1
name: my_shop
engine:
  workers: 1
  source_credit: 32MiB
  credit: 64MiB
  connections:
    total: 100
    per_server: 16
state:
  type: sqlite
  path: .etl-stream/my_shop.db
server:
  listen: \"127.0.0.1:8080\"
sources:
  a:
    type: pull
    password:
      file: f
    tls:
      mode: verify-full
      ca_file: x
    tables:
      include: [e.f]
  b:
    type: pull
    port: \"6543\"
    password:
      env: A
    tls:
      mode: disable
      ca_file: x
    tables:
      include: [a.b, c.d]
sinks:
  k:
    type: push
    inputs: [a, b]
    account: no
    batch:
      max_rows: 6
      max_age: \"1s\"
";
    assert_eq!(effective, expected);
}

#[test]
fn without_environment() {
    let text = GOOD.replace("port: ${PORT}", "port: ${ANY}\n    host: ${OTHER:-x}").replace("ACME", "A${B}C");
    let loaded = parse("p.yaml", &text, Path::new("p.yaml"), &dummies::registry(), &Environment::Opaque);
    assert!(loaded.problems.list.is_empty(), "{:?}", loaded.problems.list.iter().map(line).collect::<Vec<_>>());
}

#[test]
fn problems_are_drawn() {
    let text = GOOD.replace("account: ACME", "account: ACME\n    inputs: [shp]");
    let drawn = read(&text).problems.draw(Drawing::Plain, 100);
    let expected = "\
CFG0004

  × sink \"raw\" reads from \"shp\", which does not exist
   ╭─[p.yaml:2:3]
 1 │ sources:
 2 │   shop:
   ·   ──┬─
   ·     ╰── did you mean this one?
 3 │     type: pull
   ╰────
    ╭─[p.yaml:11:14]
 10 │     account: ACME
 11 │     inputs: [shp]
    ·              ─┬─
    ·               ╰── here
    ╰────
  help: did you mean `shop`? valid here: shop
        etl-stream explain CFG0004
";
    assert_eq!(drawn.trim_end(), expected.trim_end());
}

#[test]
fn what_is_watched_is_there() {
    let read = |watch: &str| {
        let text = format!(
            "sources:\n  shop: {{type: postgres, host: h}}\n  wal: {{type: wal_monitor, watch: [{watch}]}}\nsinks: {{k: {{type: blackhole, inputs: [shop]}}}}"
        );
        parse("p.yaml", &text, Path::new("p.yaml"), &crate::Registry::builtin(), &Environment::Opaque)
    };
    for (watch, expected) in [
        ("shop", None),
        (
            "shp",
            Some(
                "CFG0061 3:36 /sources/wal/watch/0 | source \"wal\" watches \"shp\", which is not a source of this file | did you mean `shop`?",
            ),
        ),
        ("wal", Some("CFG0061 3:36 /sources/wal/watch/0 | source \"wal\" watches \"wal\", which is of type `wal_monitor`")),
    ] {
        let got: Vec<String> = read(watch).problems.list.iter().map(line).collect();
        // A monitor is of use when no sink reads its rows: there is no warning.
        assert_eq!(got.len(), usize::from(expected.is_some()), "{got:?}");
        assert!(expected.is_none_or(|expected| got[0].starts_with(expected)), "{got:?}");
    }
}
