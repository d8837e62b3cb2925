//! The etl-stream binary.

use etl_stream::Registry;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    etl_stream::cli::main(Registry::builtin())
}
