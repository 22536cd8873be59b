//! Creates associations between instances of a CMDB, in bulk, on Postgres.
//!
//! A request flows in one direction:
//!
//! ```text
//! main ── cli ──┬── server ── http ──┐
//!               └── import, check … ─┴──► service ──► db ──► Postgres
//!                                            └─► domain ◄─┘
//! ```
//!
//! - [`http`] knows the wire: paths, the body, the envelope. [`cli`] knows the command line.
//! - [`service`] knows the order of steps of each use case.
//! - [`domain`] has the rules, as pure functions. Every refusal is in [`domain::error`], what a batch does
//!   in [`domain::batch`].
//! - [`db`] has the SQL. What must hold whoever writes is in the migrations, with the reasons.
//!
//! Each imports only what is to its right; `tests/it/tidy.rs` keeps that.
//!
//! What always holds: a batch and its audit record are one commit; a batch is a constant number of
//! statements; the database itself keeps uniqueness, mappings and existence; an answer follows from facts
//! that were still true at its commit.

pub mod domain;

pub mod db;

pub mod service;

pub mod http;

pub mod cli;
pub mod config;
pub mod server;
pub mod telemetry;
