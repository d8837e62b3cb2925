//! The etl-stream binary.

use etl_stream::Registry;
use etl_stream::bench::Counting;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: Counting<mimalloc::MiMalloc> = Counting(mimalloc::MiMalloc);

/// `mi_option_purge_delay` of mimalloc 3's `mimalloc.h`: milliseconds until freed memory goes back to the system.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Batches are made and let go all the time: what is freed in a second, which is mimalloc's default, is as much again as is in
/// use. In this time what the next batch needs is mostly still there. `MIMALLOC_PURGE_DELAY` goes before it.
const PURGE_AFTER: std::ffi::c_long = 50;

fn main() -> ExitCode {
    #[expect(unsafe_code, reason = "mimalloc's options have no safe interface")]
    // SAFETY: the function takes any number and value; it writes to a static of the allocator that is read without order, and no
    // other thread has been started.
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, PURGE_AFTER);
    }
    etl_stream::cli::main(Registry::builtin())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_one_that_is_meant() {
        let before = std::env::var("MIMALLOC_PURGE_DELAY").ok().and_then(|said| said.parse().ok()).unwrap_or(1_000);
        #[expect(unsafe_code, reason = "mimalloc's options have no safe interface")]
        // SAFETY: it reads a static of the allocator.
        let found = unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(found, before, "mimalloc's own default, unlike that of any option beside it");
    }
}
