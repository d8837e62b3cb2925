//! The real binary against real servers.

mod bad_input;
mod earlier_defects;
mod examples;
mod faults;
mod harness;
mod pipelines;
mod schema_changes;
mod snowflake;
mod snowflake_refusals;
mod types;
mod warehouse;
