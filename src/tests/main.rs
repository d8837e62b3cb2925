//! The real binary against real servers.

mod bad_input;
mod bench;
mod benches;
mod comply;
mod dead_letters;
mod earlier_defects;
mod examples;
mod faults;
mod harness;
mod monitor;
mod order;
mod order_operators;
mod order_publications;
mod pipelines;
mod programs;
mod python;
mod schema_changes;
mod shell;
mod snowflake;
mod snowflake_refusals;
mod tables;
mod types;
mod via_sdk;
mod warehouse;
