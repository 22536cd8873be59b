//! Everything with HTTP or SQL, each test on a database of its own.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that panics has failed, also in the functions that tests share"
)]

mod app; // the production router on a test's database
mod binary; // the compiled program as a child
mod cluster; // a PostgreSQL of one's own
mod proxy; // the way to the database
mod socket; // a server's own socket, and a client that writes bytes

mod batches; // what becomes of the details
mod checks; // the command `check`
mod commands; // the command line
mod constraints; // what the database rejects from any client
mod credentials; // who may call
mod description; // what the API says of itself
mod doors; // what a gateway forwards, and whom the doors believe
mod drain; // stopping under load
mod envelope; // how everything is answered
mod faults; // what happens to databases
mod fuzzing; // what the fuzz targets found
mod idempotency; // the same request again
mod imports; // the command `import`
mod limits; // how much, and which APIs and tenants
mod load; // how much is taken on
mod logins; // users by the login service
mod memory; // what is remembered of earlier requests
mod operations; // what operators see
mod permissions; // what users may edit
mod pool; // how connections are lent
mod races; // many at once
mod replay; // a whole inventory and its requests
mod requests; // what is judged before the details
mod statements; // how many a request takes
mod tidy; // the repository's own rules
