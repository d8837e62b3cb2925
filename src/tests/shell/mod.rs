//! Commands that look at a pipeline and steer it: against real servers, with and without a process that runs it.

mod check;
mod steer;
mod verify;

use crate::harness::{Project, RUN, fold, signal, source_rows, wait_for};
use crate::warehouse::{account, snowflake};
use etl_stream_operators::testing::postgres::Postgres;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Output, Stdio};

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn pipeline(url: &str, source: &str, sinks: &str, port: u16) -> String {
    format!(
        "sources:\n  shop: {{ type: postgres, url: {{ plain: \"{url}\" }}, {source} }}\nsinks:\n{sinks}\nserver: {{ listen: \"127.0.0.1:{port}\" }}\n"
    )
}

const TABLES: &str = "tables: { include: [\"public.*\"] }";
const FILES: &str = "  files: { type: file, inputs: [shop], path: out, format: ndjson, batch: { max_age: 20ms } }";

/// The findings of `check`, as `severity code node: message`, and its exit code.
fn check(project: &Project) -> (Option<i32>, Vec<String>) {
    let output = project.run(&["check", "--format", "json"]);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let answer: Value =
        serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(answer["ok"], output.status.code() == Some(0));
    let finding = |f: &Value| {
        let word = |name: &str| f[name].as_str().unwrap_or("-").to_owned();
        format!("{} {} {}: {}", word("severity"), word("code"), word("node"), word("message"))
    };
    (output.status.code(), answer["findings"].as_array().unwrap().iter().map(finding).collect())
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn status(project: &Project) -> Value {
    let output = project.run(&["status", "--format", "json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn ends(mut child: Child, project: &Project) {
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", project.log());
}
