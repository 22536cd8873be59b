//! A drop-in server for association endpoints of BlueKing CMDB, on PostgreSQL.
//!
//! Calls go from left to right, and `use` declarations with them, which `tests/it/tidy.rs` checks.
//!
//! ```text
//! main ── cli ──┬── server, http ────┐
//!          │    └── import, check … ─┴──► service ──► db ──► PostgreSQL
//!          │                                 └─► domain ◄─┘
//!          └── send ──► client ──► the API of a server
//! ```
//!
//! - [`config`]: every setting.
//! - [`cli`]: the commands, which parse, call a service and print.
//! - [`server`]: sockets, TLS, connection limits, shutdown.
//! - [`http`]: the list of endpoints, one file per endpoint, and the pipeline around them:
//!   authentication, decoding, the envelope of the answer, error codes and texts.
//! - [`service`]: use cases, such as authorize, create, search, import, check, and the inspections
//!   of the database.
//! - [`client`]: sends the rows of a file to the gateway API of any server, without a database. It
//!   uses [`domain`] only.
//! - [`domain`]: rules and types without I/O.
//! - [`db`]: SQL, one file per table or statement, and the pool and settings of connections.
//! - [`telemetry`]: logs, metrics and traces.
//!
//! Constraints and triggers enforce uniqueness, mappings and the existence of instances for every
//! client of the database; the migrations explain them. The program adds these invariants:
//!
//! - A batch, or a deletion, and its audit record are written by one statement.
//! - The number of statements of a batch or a deletion does not depend on its size.
//! - The statement that writes first checks, in its own snapshot, everything that what it writes
//!   relies on. Details are refused on the snapshot of an earlier statement of the request.

pub mod cli;
pub mod client;
pub mod config;
pub mod db;
pub mod domain;
pub mod http;
pub mod server;
pub mod service;
pub mod telemetry;
