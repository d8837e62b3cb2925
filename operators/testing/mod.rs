//! For tests, of this crate and of users' own operators: real servers in private folders.

pub mod drive;
pub mod postgres;
pub mod proxy;
pub mod python;
pub mod random;
pub mod replay;
pub mod rows;
pub mod snowflake;
