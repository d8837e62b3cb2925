//! A Python interpreter for tests: that of the local Snowflake's environment, which has pyarrow and the streaming SDK.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The interpreter; its environment is made first where it is missing, which takes minutes.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn python() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let setup = here.join("testing/local_snowflake/run");
    let made = Command::new(&setup).arg("--setup-only").status().unwrap_or_else(|e| panic!("{} does not run: {e}", setup.display()));
    assert!(made.success(), "{} --setup-only: {made}", setup.display());
    let venv = std::env::var_os("ETL_STREAM_VENV").map_or_else(|| here.join("../target/local-snowflake/venv"), PathBuf::from);
    let python = venv.join("bin/python");
    // Not resolved: a link's own place says which packages it has.
    std::path::absolute(&python).unwrap_or(python)
}
