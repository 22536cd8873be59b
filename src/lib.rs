//! A drop-in server for BlueKing CMDB's `batch_create_instance_association`, on PostgreSQL.
//!
//! Calls go from left to right, and imports with them; `tests/it/tidy.rs` checks the imports.
//!
//! ```text
//! main ── cli ──┬── server ── http ──┐
//!               └── import, check … ─┴──► service ──► db ──► PostgreSQL
//!                                            └─► domain ◄─┘
//! ```
//!
//! - [`config`]: every setting.
//! - [`cli`]: one file per command, which parses, calls a service and prints.
//! - [`server`]: sockets, TLS, connection limits, shutdown.
//! - [`http`]: the table of endpoints, one file per endpoint, and the steps around a handler:
//!   authentication, parsing, the envelope of the response, error codes and texts.
//! - [`service`]: use cases, such as authenticate, authorize, create, search, import, check.
//! - [`domain`]: rules and types without I/O.
//! - [`db`]: SQL, one file per table or statement.
//! - [`telemetry`]: logs, metrics and traces.
//!
//! Constraints and triggers enforce uniqueness, mappings and the existence of instances for every
//! client of the database; the migrations explain them. The program adds these invariants:
//!
//! - A batch and its audit record are written in one transaction.
//! - The number of statements of a batch does not depend on its size.
//! - A response relies only on facts that still hold when its transaction is committed.

pub mod cli;
pub mod config;
pub mod db;
pub mod domain;
pub mod http;
pub mod server;
pub mod service;
pub mod telemetry;
