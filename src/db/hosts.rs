//! The hosts of a database. If there are several, only one of them accepts writes, and which one
//! that is may change at any time.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, Row};
use strum::{EnumString, VariantNames};
use tokio::time::{sleep, timeout};

use super::{sqlstate, timed_out};

/// How long a host may take before the next one is tried beside it. RFC 8305 recommends this.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How long one of several hosts may take. The caller should try again soon: another host may have
/// become the primary meanwhile.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// Which servers are connected to, as libpq's parameter `target_session_attrs` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "kebab-case")]
pub enum Target {
    /// Every server.
    Any,
    /// A server that accepts writes.
    ReadWrite,
    /// A server that is not a standby.
    Primary,
}

impl Target {
    /// The query that says why a server is refused, or null.
    fn query(self) -> Option<&'static str> {
        match self {
            Self::Any => None,
            Self::Primary => {
                Some("select case when pg_catalog.pg_is_in_recovery() then 'it is a standby' end")
            }
            // The default of the role does not matter, because `session` overrides it.
            Self::ReadWrite => Some(
                "select case
                     when pg_catalog.pg_is_in_recovery() then 'it is a standby'
                     when exists (
                         select from pg_catalog.pg_settings
                         where name = 'default_transaction_read_only' and setting = 'on'
                             and source in ('configuration file', 'command line', 'database'))
                         then 'it is read-only'
                 end",
            ),
        }
    }

    /// Fails unless a connection leads to such a server.
    pub async fn verify(self, conn: &mut PgConnection) -> sqlx::Result<()> {
        let Some(query) = self.query() else { return conn.ping().await };
        let reason: Option<String> = sqlx::raw_sql(query).fetch_one(conn).await?.try_get(0)?;
        reason.map_or(Ok(()), |reason| Err(io::Error::other(reason).into()))
    }
}

/// The hosts of a database, and how to connect to each.
#[derive(Debug, Clone)]
pub struct Hosts {
    options: Arc<[PgConnectOptions]>,
    target: Target,
    /// The host that was connected to last. It is tried first.
    last: Arc<AtomicUsize>,
}

impl From<PgConnectOptions> for Hosts {
    fn from(options: PgConnectOptions) -> Self {
        Self::new(vec![options], Target::Any)
    }
}

impl Hosts {
    /// The hosts with these options.
    pub fn new(options: Vec<PgConnectOptions>, target: Target) -> Self {
        Self { options: options.into(), target, last: Arc::default() }
    }

    /// How to connect to each host.
    pub fn options(&self) -> &[PgConnectOptions] {
        &self.options
    }

    /// Which of the servers are connected to.
    pub fn target(&self) -> Target {
        self.target
    }

    /// Connects to the first host that accepts the connection and is one of the target. The next
    /// host is tried as soon as one is refused, and also while one does not answer.
    ///
    /// Has no timeout if there is one host. Fails if every host is refused.
    pub async fn connect(&self) -> sqlx::Result<PgConnection> {
        let last = self.last.load(Ordering::Relaxed);
        let mut hosts = self.options.iter().enumerate().cycle().skip(last).take(self.options.len());
        let mut attempts = FuturesUnordered::new();
        let mut errors = Vec::new();
        loop {
            if let Some((index, options)) = hosts.next() {
                attempts.push(async move { (index, options, self.try_host(options).await) });
            }
            tokio::select! {
                attempt = attempts.next() => match attempt {
                    Some((index, _, Ok(conn))) => {
                        self.last.store(index, Ordering::Relaxed);
                        return Ok(conn);
                    }
                    Some((_, options, Err(error))) => errors.push((options, error)),
                    None => return Err(no_host(errors)),
                },
                () = sleep(ATTEMPT_DELAY) => {}
            }
        }
    }

    async fn try_host(&self, options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
        let connecting = self.connect_to(options);
        if self.options.len() == 1 {
            return connecting.await;
        }
        timeout(ATTEMPT_TIMEOUT, connecting).await.unwrap_or_else(|_| Err(timed_out()))
    }

    async fn connect_to(&self, options: &PgConnectOptions) -> sqlx::Result<PgConnection> {
        let mut conn = options.connect().await?;
        if self.target != Target::Any {
            self.target.verify(&mut conn).await?;
        }
        Ok(conn)
    }
}

/// Why there is no connection. If no server accepts the role or has the database, that is the
/// reason; other hosts may come back.
fn no_host(mut errors: Vec<(&PgConnectOptions, sqlx::Error)>) -> sqlx::Error {
    // Classes: invalid authorization, invalid catalog name.
    let is_certain = errors.iter().all(|(_, error)| {
        matches!(error, sqlx::Error::Tls(_))
            || sqlstate(error).is_some_and(|code| code.starts_with("28") || code.starts_with("3D"))
    });
    if (errors.len() == 1 || is_certain)
        && let Some((_, error)) = errors.pop()
    {
        return error;
    }
    let reasons = errors.iter().map(|(options, error)| format!("{}: {error}", address(options)));
    io::Error::other(reasons.collect::<Vec<_>>().join("; ")).into()
}

/// The host, or the directory of the socket, and the port.
fn address(options: &PgConnectOptions) -> String {
    let socket = options.get_socket().map(|directory| directory.display().to_string());
    let host = socket.unwrap_or_else(|| options.get_host().to_owned());
    format!("{host}:{}", options.get_port())
}

/// The addresses, separated by commas.
impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.options.iter().map(address).collect::<Vec<_>>().join(","))
    }
}
