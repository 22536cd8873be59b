//! Every setting: its flag, its environment variable, its default, and why one would change it.
//!
//! The database's URL holds a password, so it has no flag: a command line can be read by everybody.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use tracing::subscriber::NoSubscriber;
use tracing_subscriber::EnvFilter;

use crate::db::STATEMENT_TIMEOUT;
use crate::db::pool::Pool;

/// How long a request may take, its body included. Deadlines are in strict order: a statement's, this, the
/// drain's, and the supervisor's kill at 30 s; the original's callers give up at 25 s.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How long requests under way have to end after a stop.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(18);

/// How long the head of a request may take to arrive.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may leave an answer unread.
pub const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a request waits for a connection to the database before it is told that there is none.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// What only the environment says: the URL holds a password, and the others are OpenTelemetry's own.
pub const ENVIRONMENT_ONLY: [(&str, &str); 4] = [
    (
        "CMDB_DATABASE_URL",
        "The database, as in `postgresql://user:password@host/name`; else `DATABASE_URL` is used. It, or its file, is the \
         only thing that must be set",
    ),
    ("CMDB_DATABASE_URL_FILE", "A file that holds the URL; not together with `CMDB_DATABASE_URL`"),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "Where traces go, as in `http://collector:4318` (OTLP over HTTP); nowhere unless given",
    ),
    (
        "OTEL_…",
        "The other variables of OpenTelemetry: service name, resource, sampler, batches, headers, timeout, `OTEL_SDK_DISABLED`; \
         no gRPC and no compression",
    ),
];

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line to read.
    Human,
    /// A JSON object a line.
    Json,
}

/// Whether users need permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuthorizationSetting {
    /// They may edit what they were granted
    Grants,
    /// They may edit everything
    Off,
}

/// What is logged, and how.
#[derive(Debug, Clone, Args)]
pub struct LogSettings {
    /// What to log, as in `info,sqlx=debug`
    #[arg(long, global = true, env = "RUST_LOG", default_value = "info,sqlx=warn")]
    #[arg(help_heading = "Log", value_name = "FILTER", value_parser = log_filter)]
    pub log: String,

    /// How to log: `human` or `json`, one line a request
    #[arg(long, global = true, env = "CMDB_LOG_FORMAT", default_value = "human")]
    #[arg(help_heading = "Log", value_name = "FORMAT")]
    pub log_format: LogFormat,
}

fn log_filter(filter: &str) -> Result<String, String> {
    match EnvFilter::try_new(filter) {
        Ok(_) => Ok(filter.to_owned()),
        Err(error) => Err(format!("{error}; it should look like `info,sqlx=debug`")),
    }
}

/// Where the server is to be found.
#[derive(Debug, Clone, Args)]
pub struct Listen {
    /// IP address and port of the server
    #[arg(long, env = "CMDB_LISTEN", default_value = "127.0.0.1:8090", value_name = "ADDR")]
    pub listen: SocketAddr,

    /// IP address and port for operators: `/healthz`, `/readyz` and `/metrics` are there and nowhere else. Unless
    /// given, they are where the server listens
    #[arg(long, env = "CMDB_OPS_LISTEN", value_name = "ADDR")]
    pub ops_listen: Option<SocketAddr>,

    /// A file with the server's certificate and those between it and its root, in PEM: clients then speak TLS. It is
    /// read again when it was renewed
    #[arg(long, env = "CMDB_TLS_CERTIFICATE", value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,

    /// A file with its private key, in PEM
    #[arg(long, env = "CMDB_TLS_KEY", value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
}

/// What the server can be told.
#[derive(Debug, Clone, Args)]
pub struct ServeSettings {
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub listen: Listen,

    /// Refuse to start while migrations are pending, instead of applying them
    #[arg(long, env = "CMDB_NO_MIGRATE", value_parser = BoolishValueParser::new())]
    pub no_migrate: bool,

    /// The most connections to the database for requests, 1 to 1000; one more is for `/readyz`
    #[arg(long, env = "CMDB_DATABASE_CONNECTIONS", default_value_t = 10, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_connections: u32,

    /// The most connections of clients that are served at once; whoever comes beyond is told so (503)
    #[arg(long, env = "CMDB_CONNECTIONS", default_value_t = 1_000, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections: u32,

    /// The most requests at work at once, waiting for a connection to the database or using it; more are refused at
    /// once (503). Eight for each such connection unless given
    #[arg(long, env = "CMDB_REQUESTS", value_name = "N")]
    pub requests: Option<NonZeroU32>,

    /// `grants`: users may edit what they were granted; `off`: everything
    #[arg(long, env = "CMDB_AUTHORIZATION", default_value = "grants", value_name = "HOW")]
    pub authorization: AuthorizationSetting,

    /// The login service that knows whose a `bk_token` is, as in `https://paas.example.com`
    #[arg(long, env = "CMDB_LOGIN_URL", value_name = "URL")]
    pub login_url: Option<String>,

    /// The public key of the gateway that signs `X-Bkapi-JWT`, as PEM text
    #[arg(long, env = "CMDB_GATEWAY_PUBLIC_KEY", value_name = "PEM")]
    #[arg(allow_hyphen_values = true, conflicts_with = "gateway_public_key_file")]
    pub gateway_public_key: Option<String>,

    /// A file that holds this key
    #[arg(long, env = "CMDB_GATEWAY_PUBLIC_KEY_FILE", value_name = "FILE")]
    pub gateway_public_key_file: Option<PathBuf>,

    /// The only issuer of such tokens that is accepted
    #[arg(long, env = "CMDB_GATEWAY_ISSUER", value_name = "NAME")]
    pub gateway_issuer: Option<String>,

    /// The networks whose word for who is calling is taken at the CMDB door, as in `10.0.0.0/8,::1/128`
    #[arg(long, env = "CMDB_TRUSTED_PEERS", value_name = "CIDRS")]
    #[arg(value_delimiter = ',')]
    pub trusted_peers: Vec<IpNet>,

    /// The most details a second for each application and server; unlimited unless given
    #[arg(long, env = "CMDB_RATE_LIMIT", value_name = "DETAILS")]
    pub rate_limit: Option<NonZeroU32>,

    /// The largest body that is read, in bytes, up to 8 MiB
    #[arg(long, env = "CMDB_BODY_LIMIT", default_value_t = 1_048_576, value_name = "BYTES")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=8_388_608))]
    pub body_limit: u32,
}

impl ServeSettings {
    /// The most requests at work at once.
    pub fn requests_at_once(&self) -> u32 {
        self.requests.map_or(self.database_connections * 8, NonZeroU32::get)
    }
}

/// Why the settings are of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No database was named.
    #[error(
        "no database is set: set CMDB_DATABASE_URL to postgresql://user:password@host/name, or CMDB_DATABASE_URL_FILE to a file that holds it"
    )]
    NoDatabase,
    /// Two were named.
    #[error("CMDB_DATABASE_URL and CMDB_DATABASE_URL_FILE are both set: set one")]
    TwoDatabases,
    /// The file cannot be read.
    #[error("{0}: cannot read {1}")]
    File(&'static str, PathBuf, #[source] io::Error),
    /// The URL is none. It is not repeated, since it holds a password.
    #[error("{0} is no Postgres URL: it should look like postgresql://user:password@host/name")]
    Url(&'static str),
    /// The database does not let us in.
    #[error("cannot connect to the database at {host}:{port}")]
    Connect {
        /// Its host, or the folder of its socket.
        host: String,
        /// Its port.
        port: u16,
        /// Why.
        #[source]
        error: sqlx::Error,
    },
}

/// What the environment says, if it says anything.
fn environment(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this is where settings are read")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether a variable is there and says nothing.
pub fn is_empty(variable: &OsStr) -> bool {
    std::env::var_os(variable).is_some_and(|value| value.is_empty())
}

/// Whether traces are exported, by the variables that every program with OpenTelemetry has.
pub fn exports_traces() -> bool {
    let is = |name, value: &str| {
        environment(name).is_some_and(|given| given.eq_ignore_ascii_case(value))
    };
    ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
        .into_iter()
        .any(|name| environment(name).is_some())
        && !is("OTEL_SDK_DISABLED", "true")
        && !is("OTEL_TRACES_EXPORTER", "none")
}

/// What a file holds that a setting names.
pub fn read_file(setting: &'static str, file: PathBuf) -> Result<String, Error> {
    let text = std::fs::read_to_string(&file);
    Ok(text.map_err(|error| Error::File(setting, file, error))?.trim_end().to_owned())
}

/// The database that the environment names.
pub fn database() -> Result<PgConnectOptions, Error> {
    let (name, url) =
        match (environment("CMDB_DATABASE_URL"), environment("CMDB_DATABASE_URL_FILE")) {
            (Some(_), Some(_)) => return Err(Error::TwoDatabases),
            (Some(url), None) => ("CMDB_DATABASE_URL", url),
            (None, Some(file)) => {
                ("CMDB_DATABASE_URL_FILE", read_file("CMDB_DATABASE_URL_FILE", file.into())?)
            }
            (None, None) => ("DATABASE_URL", environment("DATABASE_URL").ok_or(Error::NoDatabase)?),
        };
    database_at(&url).ok_or(Error::Url(name))
}

/// The database at a URL, as this program connects to it; none if that is no Postgres URL.
pub fn database_at(url: &str) -> Option<PgConnectOptions> {
    if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
        return None;
    }
    // It would log parameters that it does not know, with their values.
    let parse = || url.parse::<PgConnectOptions>().ok();
    let options = tracing::subscriber::with_default(NoSubscriber::default(), parse)?;
    // What is written depends on each statement having a snapshot of its own: see the migrations.
    let isolation = [("default_transaction_isolation", "read committed")];
    let options = options.application_name("cmdb-associations").options(isolation);
    Some(options.disable_statement_logging())
}

/// The server's connections: a statement that takes too long is given up, by Postgres itself.
pub fn serving_pool(options: PgConnectOptions, connections: u32) -> Pool {
    let timeout = STATEMENT_TIMEOUT.as_millis().to_string();
    Pool::new(options.options([("statement_timeout", timeout)]), connections, CONNECT_TIMEOUT)
}

/// A command's connection, which may take its time.
pub async fn connect() -> Result<PgConnection, Error> {
    connect_to(&database()?).await
}

/// A connection that may take its time.
pub async fn connect_to(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    let connecting = tokio::time::timeout(Duration::from_secs(10), options.connect()).await;
    connecting.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())).map_err(
        |error| {
            let socket = options.get_socket().map(|folder| folder.display().to_string());
            let host = socket.unwrap_or_else(|| options.get_host().to_owned());
            Error::Connect { host, port: options.get_port(), error }
        },
    )
}
