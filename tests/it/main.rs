//! The integration tests: everything that needs HTTP or SQL. Each test has a database of its own.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic fails the test, also in the functions that tests share"
)]

// Shared by the tests:

// The tests:
mod additions; // creating a single association
mod apis; // the gateway API and the CMDB API: the caller's identity, headers, envelopes
mod app; // the production router on the test's database
mod batch_options;
mod batches; // what happens to each detail of a batch
mod binary; // the compiled program as a child process
mod cache; // cached look-ups, and when they become invalid
mod checks; // what the `check` command finds
mod cluster; // a PostgreSQL server of the test's own, which can be stopped and killed
mod commands; // the command line
mod conditions; // conditions of searches, in SQL
mod connections; // the life of a client connection
mod constraints; // what the database rejects from any client
mod credentials; // application and user credentials
mod database; // what is checked about the database
mod deletions; // deleting links by their ids
mod description; // the OpenAPI description
mod envelope; // the form of every answer, and the answers to errors
mod failovers; // several hosts of a database, waiting commits, reads from replicas
mod faults; // failures of PostgreSQL and of the connection to it
mod flood; // many connections from one address
mod fuzzing; // the inputs of the fuzz corpus
mod golden; // the recorded exchanges, replayed at both APIs
mod hosts; // creating and changing hosts
mod idempotency; // requests repeated under an `Idempotency-Key`
mod imports; // importing an export
mod instance_commands; // the command `instance`
mod instance_races; // concurrent changes of instances, beside links and models
mod instance_searches; // searches for instances
mod instances; // creating, changing and deleting instances
mod inventory_races; // concurrent changes of models, association kinds and model associations
mod kinds; // association kinds: finding, creating, changing and deleting them
mod limits; // rate limits, and the APIs and tenants of an application
mod link_searches; // the links of a model that satisfy a condition
mod linked_instances; // the instances of one model that an instance is linked with
mod load; // limits on connections, requests and body sizes
mod logins; // users verified by the login service
mod migrations; // migrations of a database that has data
mod model_associations; // creating, renaming and deleting model associations
mod model_commands; // the commands model, kind and association
mod model_constraints; // what the database rejects of models and of what depends on them
mod model_imports; // importing models, association kinds and classifications
mod models; // finding, creating, changing and deleting models
mod operations; // metrics, logs, traces and TLS
mod permissions; // what users may edit and view
mod plan; // planning a batch, against a reference implementation
mod pool; // the connection pool
mod pooler; // a pooler of connections to PostgreSQL, in transaction mode
mod proxy; // a TCP proxy to PostgreSQL that loses messages and counts statements
mod purges; // purging the audit log
mod query_plans; // the plans of statements, whatever the tables hold
mod races; // concurrent writers
mod readme; // the commands of the README
mod recordings; // the exchanges recorded from BlueKing CMDB, and the deviations from them
mod related_links; // the links of one instance
mod replay; // the requests of a whole inventory, in order
mod requests; // the checks of a request before its details
mod schema; // the schema: documentation, collations, dumps
mod send; // the command `send`
mod shutdown; // shutdown under load
mod socket; // the server on a socket in this process, and a client that writes raw bytes
mod statements; // how many statements a request takes
mod tidy; // rules for the repository itself
mod topology; // the topology of an instance, model associations by kind
mod undo; // what became of a request that created links, and undoing it

// The migrations of every test's database.
use cmdb_associations::db::schema::MIGRATOR;
