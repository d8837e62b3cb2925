//! The end-to-end measurements work: at a size that says nothing about speed.

use std::process::Command;

/// The drain, both clients of PostgreSQL and the engine give the same rows, or the run is invalid.
#[test]
fn the_lab_measures_what_it_counted() {
    // Its contenders are client programs of PostgreSQL, which servers from npm come without.
    if !std::path::Path::new("/usr/lib/postgresql").exists() {
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let run = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/run"))
        .args(["stream", "--per", "100", "--rounds", "1", "--scale", "0.002", "--no-page"])
        .env("ETL_STREAM_BIN", env!("CARGO_BIN_EXE_etl-stream"))
        .env("ETL_STREAM_BENCH_OUT", out.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    let result: serde_json::Value = serde_json::from_slice(&std::fs::read(out.path().join("stream.json")).unwrap()).unwrap();
    let lines = result["scenarios"][0]["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 5, "{said}");
    for line in lines {
        assert_eq!(line["runs"][0]["changes"], 1_000, "{line}");
    }
}
