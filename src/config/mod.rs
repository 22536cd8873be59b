//! Every setting: its flag, its environment variable, its default and its meaning.
//!
//! The URL of the database contains a password, so it has no flag: other users of the machine can
//! read command lines.

mod credentials;
mod database_url;

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use opentelemetry_otlp::OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use tracing_subscriber::EnvFilter;

pub use self::credentials::{Credentials, credentials};
pub use self::database_url::UrlError;
use crate::db::hosts::{Hosts, Target};
use crate::domain::permission::Authorization;

/// How long a request may take, its body included. Timeouts are in strict order: statement,
/// request, drain, and the supervisor's, which is 30 s. Clients of the original CMDB give up after
/// 25 s.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a shutdown waits for the requests in flight.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(18);

/// How long the head of a request may take to arrive.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection is kept open after a response, unless set otherwise. Proxies such as
/// nginx close theirs after 60 s. The client should close first, so that it never sends a request
/// on a connection that is closing.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// How long a client may leave a response unread.
pub const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// The settings without a flag, and their meaning.
pub const ENVIRONMENT_ONLY: [(&str, &str); 13] = [
    (
        "CMDB_DATABASE_URL",
        "URL of the database, such as `postgresql://user:password@host/name`. Default: the value \
         of `DATABASE_URL`. This is the only required setting",
    ),
    ("CMDB_DATABASE_URL_FILE", "File that contains the URL, instead of `CMDB_DATABASE_URL`"),
    (
        "CMDB_DATABASE_READ_URL",
        "URL of a replica that answers endpoints that only read. It must lead to one server. \
         Default: the database of `CMDB_DATABASE_URL` answers them",
    ),
    (
        "CMDB_DATABASE_READ_URL_FILE",
        "File that contains that URL, instead of `CMDB_DATABASE_READ_URL`",
    ),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "Collector of traces over OTLP/HTTP, such as `http://collector:4318`. Default: no traces",
    ),
    (
        "OTEL_…",
        "The standard variables of OpenTelemetry for service name, resource, sampler, batches, \
         headers, timeout and `OTEL_SDK_DISABLED`. gRPC and compression are not supported",
    ),
    (
        "SSL_CERT_FILE",
        "File with the certificate authorities, in PEM, that sign the certificates of the login \
         service, of the collector of traces, and of the server that `send` calls. Default: those \
         of the system",
    ),
    ("CMDB_APP_CODE", "Of `send`: the application that calls (`bk_app_code`)"),
    ("CMDB_APP_SECRET", "Of `send`: its secret (`bk_app_secret`)"),
    ("CMDB_APP_SECRET_FILE", "File that contains the secret, instead of `CMDB_APP_SECRET`"),
    ("CMDB_USERNAME", "Of `send`: the user (`bk_username`)"),
    ("CMDB_BK_TOKEN", "Of `send`: the login token of the user (`bk_token`)"),
    ("CMDB_BK_TOKEN_FILE", "File that contains the token, instead of `CMDB_BK_TOKEN`"),
];

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    Human,
    /// One JSON object per line.
    Json,
}

/// The settings of the log.
#[derive(Debug, Clone, Args)]
pub struct LogSettings {
    /// Log filter, such as `info,sqlx=debug`
    #[arg(long, global = true, env = "RUST_LOG", default_value = "info,sqlx=warn")]
    #[arg(help_heading = "Log", value_name = "FILTER", value_parser = log_filter)]
    pub log: EnvFilter,

    /// Log format: `human` or `json`
    #[arg(long, global = true, env = "CMDB_LOG_FORMAT", default_value = "human")]
    #[arg(help_heading = "Log", value_name = "FORMAT")]
    pub log_format: LogFormat,
}

fn log_filter(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(filter)
        .map_err(|error| format!("{error}; it should look like `info,sqlx=debug`"))
}

/// The settings of the listening sockets.
#[derive(Debug, Clone, Args)]
pub struct Listen {
    /// IP address and port of the server
    #[arg(long, env = "CMDB_LISTEN", default_value = "127.0.0.1:8090", value_name = "ADDR")]
    pub listen: SocketAddr,

    /// Separate IP address and port for `/healthz`, `/readyz` and `/metrics`. Default: the address
    /// of the server
    #[arg(long, env = "CMDB_OPS_LISTEN", value_name = "ADDR")]
    pub ops_listen: Option<SocketAddr>,

    /// File with the TLS certificate of the server, followed by its intermediate certificates, in
    /// PEM. It is reloaded when it changes. Default: no TLS
    #[arg(long, env = "CMDB_TLS_CERTIFICATE", value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,

    /// File with the private key of the TLS certificate, in PEM
    #[arg(long, env = "CMDB_TLS_KEY", value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
}

/// The settings of the server.
#[derive(Debug, Clone, Args)]
pub struct ServeSettings {
    #[command(flatten)]
    #[expect(missing_docs, reason = "documented at its type")]
    pub listen: Listen,

    /// Do not apply pending migrations; refuse to start if there are any
    #[arg(long, env = "CMDB_NO_MIGRATE", value_parser = BoolishValueParser::new())]
    pub no_migrate: bool,

    /// Accept that PostgreSQL can lose acknowledged associations in a crash, because
    /// `synchronous_commit`, `fsync` or `full_page_writes` is below `on`, without a warning
    #[arg(long, env = "CMDB_ACCEPT_DATA_LOSS", value_parser = BoolishValueParser::new())]
    pub accept_data_loss: bool,

    /// Maximum number of connections to the database for requests, 1 to 1000. The server itself
    /// uses two more, and two more when it starts
    #[arg(long, env = "CMDB_DATABASE_CONNECTIONS", default_value_t = 10, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_connections: u32,

    /// How many seconds the replica in `CMDB_DATABASE_READ_URL` may be behind, 3 to 60. If it is
    /// further behind, it is not used
    #[arg(long, env = "CMDB_DATABASE_READ_LAG", default_value_t = 5, value_name = "SECONDS")]
    #[arg(value_parser = clap::value_parser!(u64).range(3..=60))]
    pub database_read_lag: u64,

    /// Maximum number of client connections, 1 to 100000. For a new connection beyond it, an idle
    /// one is closed. If none is idle, its requests are refused with 503
    #[arg(long, env = "CMDB_CONNECTIONS", default_value_t = 1_000, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections: u32,

    /// Maximum number of client connections of one IPv4 address or IPv6 /64 network, 1 to 100000.
    /// Beyond it, requests are refused with 503, and connections beyond twice the number are
    /// closed. Default: half of `CMDB_CONNECTIONS`
    #[arg(long, env = "CMDB_CONNECTIONS_PER_PEER", value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections_per_peer: Option<u32>,

    /// Networks of proxies, to which `CMDB_CONNECTIONS_PER_PEER` does not apply, such as
    /// `10.0.0.0/8,::1`; an address is a network of its own. Default: none
    #[arg(long, env = "CMDB_PROXIES", value_name = "CIDRS", value_delimiter = ',')]
    #[arg(value_parser = network)]
    pub proxies: Vec<IpNet>,

    /// How long a client connection is kept open after a response, in seconds, 1 to 3600. It should
    /// be longer than proxies keep theirs
    #[arg(long, env = "CMDB_IDLE_TIMEOUT", value_name = "SECONDS")]
    #[arg(default_value_t = IDLE_TIMEOUT.as_secs())]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub idle_timeout: u64,

    /// Maximum number of requests that use or wait for a database connection, without searches
    /// whose answer is being sent. Requests beyond it are refused with 503. Default: eight for each
    /// database connection
    #[arg(long, env = "CMDB_REQUESTS", value_name = "N")]
    pub requests: Option<NonZeroU32>,

    /// `grants`: users may do what is granted to them; `off`: users may do everything
    #[arg(long, env = "CMDB_AUTHORIZATION", default_value = "grants", value_name = "HOW")]
    #[arg(value_parser = authorization())]
    pub authorization: Authorization,

    /// URL of the login service that verifies `bk_token`, such as `https://paas.example.com`.
    /// Default: requests with a `bk_token` are refused
    #[arg(long, env = "CMDB_LOGIN_URL", value_name = "URL")]
    pub login_url: Option<String>,

    /// Public key of the gateway that signs `X-Bkapi-JWT`, in PEM. Default: the header is ignored
    #[arg(long, env = "CMDB_GATEWAY_PUBLIC_KEY", value_name = "PEM")]
    #[arg(allow_hyphen_values = true, conflicts_with = "gateway_public_key_file")]
    pub gateway_public_key: Option<String>,

    /// File that contains the public key of the gateway, instead of `CMDB_GATEWAY_PUBLIC_KEY`
    #[arg(long, env = "CMDB_GATEWAY_PUBLIC_KEY_FILE", value_name = "FILE")]
    pub gateway_public_key_file: Option<PathBuf>,

    /// Required issuer (`iss`) of `X-Bkapi-JWT`. Default: any issuer
    #[arg(long, env = "CMDB_GATEWAY_ISSUER", value_name = "NAME")]
    pub gateway_issuer: Option<String>,

    /// Refuse requests at the gateway API without `X-Bkapi-JWT`, whatever credentials they have.
    /// Needs the public key of the gateway
    #[arg(long, env = "CMDB_GATEWAY_ONLY", value_parser = BoolishValueParser::new())]
    pub gateway_only: bool,

    /// Networks whose identity headers are trusted at the CMDB API, such as `10.0.0.0/8,::1`; an
    /// address is a network of its own. Default: none
    #[arg(long, env = "CMDB_TRUSTED_PEERS", value_name = "CIDRS", value_delimiter = ',')]
    #[arg(value_parser = network)]
    pub trusted_peers: Vec<IpNet>,

    /// Maximum number of details per second on this server, for each application, and for each user
    /// of a gateway that names no application. Default: unlimited
    #[arg(long, env = "CMDB_RATE_LIMIT", value_name = "DETAILS")]
    pub rate_limit: Option<NonZeroU32>,

    /// Maximum size of a request body in bytes, 1 to 8388608 (8 MiB)
    #[arg(long, env = "CMDB_BODY_LIMIT", default_value_t = 1_048_576, value_name = "BYTES")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=8_388_608))]
    pub body_limit: u32,
}

/// Parses a network or an address. A network of mapped IPv4 addresses is that IPv4 network.
fn network(text: &str) -> Result<IpNet, &'static str> {
    let text = text.trim();
    let network: Option<IpNet> =
        text.parse().ok().or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)));
    let network = network.ok_or("it should look like `10.0.0.0/8`, `10.1.2.3` or `fd00::/8`")?;
    let mapped = match network {
        IpNet::V6(v6) => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    let v4 = mapped.and_then(|(address, length)| IpNet::new(address.into(), length).ok());
    Ok(v4.unwrap_or(network))
}

fn authorization() -> impl TypedValueParser<Value = Authorization> {
    let grants = PossibleValue::new("grants").help("Users may do what is granted to them");
    let off = PossibleValue::new("off").help("Users may do everything");
    PossibleValuesParser::new([grants, off])
        .map(|value| if value == "off" { Authorization::Off } else { Authorization::Grants })
}

/// Why a setting cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum Error {
    #[error(
        "no database is configured: set CMDB_DATABASE_URL to \
         postgresql://user:password@host/name, or CMDB_DATABASE_URL_FILE to a file that contains it"
    )]
    NoDatabase,
    #[error("{0} and {1} are both set: set one")]
    SetTwice(&'static str, &'static str),
    #[error("{0} is not set")]
    Missing(&'static str),
    #[error("CMDB_USERNAME and CMDB_BK_TOKEN are not set: set one")]
    NoUser,
    #[error("{0}: cannot read {1}")]
    File(&'static str, PathBuf, #[source] io::Error),
    #[error("{0} {1}")]
    Url(&'static str, UrlError),
}

/// The value of an environment variable that is set and not empty.
fn environment(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "this module reads the settings")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether an environment variable is set and empty.
pub fn is_empty(variable: &OsStr) -> bool {
    std::env::var_os(variable).is_some_and(|value| value.is_empty())
}

/// Whether the standard variables of OpenTelemetry ask for traces to be exported.
pub fn exports_traces() -> bool {
    let is = |name, expected| environment(name).is_some_and(|v| v.eq_ignore_ascii_case(expected));
    let endpoint = environment("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        .or_else(|| environment("OTEL_EXPORTER_OTLP_ENDPOINT"));
    endpoint.is_some() && !is("OTEL_SDK_DISABLED", "true") && !is("OTEL_TRACES_EXPORTER", "none")
}

/// How long the collector of traces may take to answer, by the standard variables of OpenTelemetry.
pub fn trace_timeout() -> Duration {
    let timeout = environment("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
        .or_else(|| environment("OTEL_EXPORTER_OTLP_TIMEOUT"));
    let timeout = timeout.and_then(|milliseconds| milliseconds.parse().ok());
    timeout.map_or(OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT, Duration::from_millis)
}

/// The content of the file that a setting names, without trailing white space.
pub fn read_file(setting: &'static str, file: PathBuf) -> Result<String, Error> {
    let text = std::fs::read_to_string(&file);
    Ok(text.map_err(|error| Error::File(setting, file, error))?.trim_end().to_owned())
}

/// The database that the environment configures.
pub fn database() -> Result<Hosts, Error> {
    let (name, url) = match database_url("CMDB_DATABASE_URL", "CMDB_DATABASE_URL_FILE")? {
        Some(found) => found,
        None => ("DATABASE_URL", environment("DATABASE_URL").ok_or(Error::NoDatabase)?),
    };
    database_at(&url).map_err(|error| Error::Url(name, error))
}

/// The replica that the environment configures, if there is one.
pub fn replica() -> Result<Option<Hosts>, Error> {
    let found = database_url("CMDB_DATABASE_READ_URL", "CMDB_DATABASE_READ_URL_FILE")?;
    let replica_at = |(name, url): (_, String)| match hosts_at(&url, Target::Any) {
        Ok(hosts) if hosts.options().len() > 1 => Err(Error::Url(name, UrlError::SeveralReplicas)),
        hosts => hosts.map_err(|error| Error::Url(name, error)),
    };
    found.map(replica_at).transpose()
}

/// A URL in a variable, or in the file that another one names, and the name of that variable.
fn database_url(
    variable: &'static str, file_variable: &'static str,
) -> Result<Option<(&'static str, String)>, Error> {
    if let Some(mode) = environment("PGSSLMODE") {
        database_url::require_ssl_mode(&mode).map_err(|error| Error::Url("PGSSLMODE", error))?;
    }
    value_or_file(variable, file_variable)
}

/// The value of a variable, or of the file that another one names, and the name of that variable.
fn value_or_file(
    variable: &'static str, file_variable: &'static str,
) -> Result<Option<(&'static str, String)>, Error> {
    match (environment(variable), environment(file_variable)) {
        (Some(_), Some(_)) => Err(Error::SetTwice(variable, file_variable)),
        (Some(value), None) => Ok(Some((variable, value))),
        (None, Some(file)) => Ok(Some((file_variable, read_file(file_variable, file.into())?))),
        (None, None) => Ok(None),
    }
}

/// The hosts of the database at a URL. Of several ones, that is by default the one that accepts
/// writes.
pub fn database_at(url: &str) -> Result<Hosts, UrlError> {
    hosts_at(url, Target::ReadWrite)
}

fn hosts_at(url: &str, default: Target) -> Result<Hosts, UrlError> {
    let (options, target) = database_url::parse(url, default)?;
    let adapt = |mut options: PgConnectOptions| {
        if options.get_application_name().is_none() {
            options = options.application_name("cmdb-associations");
        }
        // Poolers refuse unknown start-up parameters. No value of ours is a floating-point number.
        options.extra_float_digits(None).disable_statement_logging()
    };
    Ok(Hosts::new(options.into_iter().map(adapt).collect(), target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_from_an_address_and_from_mapped_addresses_too() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            (" 10.1.2.3 ", "10.1.2.3/32"),
            ("::1", "::1/128"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), expected, "{text}");
        }
        for invalid in ["", "10.0.0.0/99", "localhost", "10.0.0.0/8;::1"] {
            assert!(network(invalid).is_err(), "{invalid}");
        }
    }
}
