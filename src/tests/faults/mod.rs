//! Exactly once under faults: the real binary, real servers, and comparison by content.
//!
//! ```text
//! workload ──> PostgreSQL ──proxy──> etl-stream ──> files
//!     │             │                    └────────> local Snowflake
//!     └── audit ────┴── compared with both once the schedule of faults is over
//! ```
//! `docs/faults.md` says which fault is tried where. `make soak SEED=… MINUTES=…` runs random schedules.

mod compare;
mod refusals;
mod schedule;
mod stalled;
mod workload;
mod world;

use schedule::{Length, run};
use std::time::{Duration, Instant};

const SHORT: Length = Length { rounds: 7, pause: Duration::from_millis(900), writers: (2, Duration::from_millis(60)) };
const LONG: Length = Length { rounds: 30, pause: Duration::from_millis(2500), writers: (2, Duration::from_millis(250)) };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seed_1() {
    run(1, SHORT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seed_2() {
    run(2, SHORT).await;
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Random schedules, one seed after the other, until the time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs as long as it is told to: make soak SEED=… MINUTES=…"]
async fn soak() {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut seed = number("SEED").unwrap_or(clock);
    let end = Instant::now() + Duration::from_secs(60 * number("MINUTES").unwrap_or(10));
    loop {
        let began = Instant::now();
        eprintln!("SEED={seed}");
        let story = run(seed, LONG).await;
        eprintln!("SEED={seed} held for {} s: {}", began.elapsed().as_secs(), story.last().map_or("", |line| line.trim()));
        if Instant::now() >= end {
            return;
        }
        seed += 1;
    }
}
