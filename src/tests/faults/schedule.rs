//! A random schedule of faults, repeated by its seed.

use super::workload::Workload;
use super::world::{World, calm};
use etl_stream_operators::failpoint;
use etl_stream_operators::testing::random::Random;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long one seed runs.
#[derive(Clone, Copy)]
pub(crate) struct Length {
    /// Faults.
    pub(crate) rounds: u64,
    /// Most that passes between two of them.
    pub(crate) pause: Duration,
    /// Writers, and how long each pauses.
    pub(crate) writers: (usize, Duration),
}

/// What Snowflake does wrong.
fn trouble(random: &mut Random) -> Value {
    let route = *random.pick(&["rows", "rows", "status", "open", "sql", "sql", "token", "*"]);
    let (times, after) = (random.between(1, 6), random.below(6));
    match random.below(10) {
        0 => json!({ "fail": { "route": route, "status": 429, "times": times, "after": after } }),
        1 => json!({ "fail": { "route": route, "status": 500, "times": times, "after": after } }),
        2 => json!({ "fail": { "route": route, "status": 503, "times": times, "after": after } }),
        3 => json!({ "fail": { "route": route, "status": 500, "apply": true, "times": times, "after": after } }),
        4 => json!({ "fail": { "route": route, "close": true, "apply": true, "times": times, "after": after } }),
        5 => json!({ "fail": { "route": route, "hang_ms": 9000, "apply": true, "times": 1, "after": after } }),
        6 => json!({ "fail": { "route": "rows", "status": 409, "code": "ERR_CHANNEL_MUST_BE_REOPENED", "times": times, "after": after } }),
        7 => json!({ "fail": { "route": route, "status": 401, "code": "390144", "times": 1, "after": after } }),
        8 => json!({ "commit_delay_ms": random.between(100, 3000), "on_reopen": *random.pick(&["drop", "flush"]) }),
        _ => json!({ "latency_ms": { "*": random.between(20, 300) }, "resent_token": *random.pick(&["stale", "dedupe"]) }),
    }
}

/// Runs a seed: faults, then everything home, then the comparison.
pub(crate) async fn run(seed: u64, length: Length) -> Vec<String> {
    let mut random = Random::new(seed);
    let mut world = World::new(seed, &mut random).await;
    let (writers, pause) = length.writers;
    let workload = Workload::start(&world.postgres.url("shop"), &mut random, writers, pause);
    for round in 0..length.rounds {
        world.look();
        if world.engine.is_none() {
            let workers = random.between(1, 4);
            world.start(workers, "", &[]);
        }
        tokio::time::sleep(length.pause.mul_f64(random.below(100) as f64 / 100.0)).await;
        fault(&mut world, &mut random, round).await;
    }
    let transactions = workload.done.load(std::sync::atomic::Ordering::Relaxed);
    workload.stop().await;
    world.tell(format!("{transactions} transactions"));
    world.settle().await;
    std::mem::take(&mut world.story)
}

async fn some_time(random: &mut Random, most: u64) {
    tokio::time::sleep(Duration::from_millis(random.between(most / 10, most))).await;
}

/// Starts the process with a plan of failpoints, and waits for its end or some seconds.
async fn with_failpoint(world: &mut World, random: &mut Random, plan: String) {
    world.kill();
    world.tell(format!("failpoint {plan}"));
    world.start(random.between(1, 4), &plan, &[]);
    let deadline = Instant::now() + Duration::from_secs(4);
    while world.engine.is_some() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
        world.look();
    }
}

async fn fault(world: &mut World, random: &mut Random, round: u64) {
    match random.below(16) {
        0 => {
            world.tell("SIGKILL");
            world.kill();
        }
        1..=4 => {
            // The first rounds are the snapshot's.
            // No table of this workload is stopped.
            let there = |name: &&str| *name != "snowflake.stopped" && (round < 2 || !name.starts_with("snapshot."));
            let places: Vec<&str> = failpoint::ALL.iter().copied().filter(there).collect();
            let name = *random.pick(&places);
            let most = if name.starts_with("snapshot.") { 3 } else { 40 };
            let plan = format!("{name}=kill@{}", random.between(1, most));
            with_failpoint(world, random, plan).await;
        }
        5 => {
            let plan = format!("{}=enospc@{}x{}", random.pick(failpoint::DISK), random.between(1, 20), random.between(1, 30));
            with_failpoint(world, random, plan).await;
        }
        6 => {
            world.tell("SIGTERM");
            world.terminate();
        }
        7 => {
            world.tell("PostgreSQL restarts");
            world.postgres.stop();
            some_time(random, 1500).await;
            world.postgres.resume();
        }
        8 => {
            world.tell("PostgreSQL crashes");
            world.postgres.kill();
            some_time(random, 1500).await;
            world.postgres.resume();
        }
        9 => {
            let reset = random.percent(50);
            world.tell(format!("connections cut, reset: {reset}"));
            world.proxy.refuse(random.percent(50));
            world.proxy.cut(reset);
            some_time(random, 2000).await;
            world.proxy.heal();
        }
        10 => {
            world.tell("connections stalled");
            world.proxy.stall(true);
            some_time(random, 8000).await;
            world.proxy.stall(false);
        }
        11 => {
            world.tell("connections half open for good");
            world.proxy.freeze();
            some_time(random, 8000).await;
        }
        12 => {
            world.tell("SIGKILL, and the server does not learn of it");
            world.proxy.forget(true);
            some_time(random, 200).await;
            world.kill();
            world.start(random.between(1, 4), "", &[]);
            some_time(random, 3000).await;
            world.proxy.heal();
        }
        13 | 14 => {
            let trouble = trouble(random);
            world.tell(format!("Snowflake: {trouble}"));
            world.snowflake.faults(trouble).await;
            some_time(random, 5000).await;
            world.snowflake.faults(calm()).await;
        }
        _ => {
            world.tell("Snowflake crashes");
            world.snowflake.kill();
            some_time(random, 2000).await;
            world.snowflake.resume();
            world.snowflake.faults(calm()).await;
        }
    }
}
