//! The etl-stream binary.

use etl_stream::Registry;
use etl_stream::bench::Counting;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: Counting<mimalloc::MiMalloc> = Counting(mimalloc::MiMalloc);

fn main() -> ExitCode {
    etl_stream::cli::main(Registry::builtin())
}
