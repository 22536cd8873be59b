//! `serve`: runs the server.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::{Outcome, shutdown_signal};
use crate::config::{self, Listen, ServeSettings};
use crate::http::AppState;
use crate::http::auth::Authenticator;
use crate::http::auth::gateway_jwt::JwtVerifier;
use crate::http::auth::login_token::LoginService;
use crate::server::tls::{RELOAD_INTERVAL, Tls};
use crate::server::{Limits, Socket};
use crate::service::attempt::Caches;
use crate::service::commits::{self, CommitProbe};
use crate::service::database::Database;
use crate::service::limit::Limiter;
use crate::service::monitor::{self, Monitor};
use crate::service::replica::{self, Replica, ReplicaProbe};
use crate::service::{Abandoned, Pool, Service, stream_limit};
use crate::telemetry::metrics::Metrics;
use crate::{http, server, service};

/// How often expired connections are closed and recorded durations are aggregated.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the server until SIGTERM or SIGINT.
pub(super) async fn serve(settings: ServeSettings) -> anyhow::Result<Outcome> {
    let shutdown = shutdown_signal()?;
    tokio::pin!(shutdown);
    let metrics = Metrics::install()?;
    warn_of_open_networks(&settings);
    let (authenticator, tls) = (authenticator(&settings)?, tls(&settings)?);
    let database = Database::new(config::database()?);
    let replica = config::replica()?;
    let abandoned = Arc::<Abandoned>::default();
    let pool =
        Pool::limited(database.clone(), settings.database_connections, Arc::clone(&abandoned));
    let mut commit_probe = CommitProbe::new(database.clone(), abandoned);
    let (migrates, accepts_data_loss) = (!settings.no_migrate, settings.accept_data_loss);
    let mut monitor = Monitor::new(database.clone(), pool.clone(), migrates, accepts_data_loss);
    tokio::select! {
        started = async {
            monitor.start().await?;
            if monitor.state().borrow().problem.is_none() {
                commit_probe.step().await;
            }
            anyhow::Ok(())
        } => started?,
        () = &mut shutdown => return Ok(Outcome::Success),
    }
    let (listener, ops) = listen_all(&settings.listen).await?;

    let requests = settings.requests.map_or(settings.database_connections * 8, NonZeroU32::get);
    let (draining, watched) = watch::channel(false);
    let service = Service {
        pool: pool.clone(),
        authorization: settings.authorization,
        limiter: settings.rate_limit.map(Limiter::new).map(Arc::new),
        permits: Arc::new(Semaphore::new(requests as usize)),
        stream_permits: Arc::new(Semaphore::new(stream_limit(
            settings.database_connections as usize,
        ))),
        caches: Caches::default(),
    };
    let mut background = JoinSet::new();
    let replica = replica.map(|hosts| {
        let database = Database::new(hosts);
        let pool = Pool::new(database.clone(), settings.database_connections);
        let max_lag = Duration::from_secs(settings.database_read_lag);
        let messages = commit_probe.messages();
        let probe = ReplicaProbe::new(database, pool.clone(), messages, max_lag);
        let is_usable = probe.is_usable();
        background.spawn(probe.run(replica::INTERVAL));
        Replica { service: Arc::new(service.for_replica(pool)), is_usable }
    });
    let in_flight = TaskTracker::new();
    let state = AppState {
        service: Arc::new(service),
        replica,
        authenticator: Arc::new(authenticator),
        readiness: Pool::new(database, 1),
        database: monitor.state(),
        commit_problem: commit_probe.problem(),
        body_budget: Arc::default(),
        body_limit: settings.body_limit as usize,
        request_timeout: config::REQUEST_TIMEOUT,
        draining: watched.clone(),
        in_flight: in_flight.clone(),
        metrics: Arc::new(metrics),
    };

    background.spawn(monitor.run(monitor::INTERVAL, monitor::RETRY_INTERVAL));
    background.spawn(commit_probe.run(commits::INTERVAL));
    let replica_pool = state.replica.as_ref().map(|replica| replica.service.pool.clone());
    let pools = [Some(pool.clone()), replica_pool].into_iter().flatten().collect();
    background.spawn(maintain(pools, Arc::clone(&state.metrics)));
    background.spawn(service::idempotency::purge(pool.clone()));
    let (mut router, operations) = (http::router(state.clone()), http::operations(state));
    match ops {
        Some(listener) => {
            background.spawn(server::serve_operations(listener, operations, watched));
        }
        None => router = router.merge(operations),
    }
    let tls = tls.map(|tls| {
        let acceptor = tls.acceptor();
        background.spawn(tls.reload_every(RELOAD_INTERVAL));
        acceptor
    });
    // Each connection needs a file descriptor. If the limit cannot be raised, fewer are accepted.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let mut limits = Limits::new(settings.connections as usize);
    if let Some(connections) = settings.connections_per_peer {
        limits.connections_per_peer = connections as usize;
    }
    limits.proxies = settings.proxies;
    limits.idle_timeout = Duration::from_secs(settings.idle_timeout);
    let socket = Socket { listener, tls };
    server::serve(socket, router, limits, in_flight, draining, shutdown).await;
    background.abort_all();
    // A database that does not respond must not delay the end of the process.
    let _ = tokio::time::timeout(Duration::from_secs(1), pool.close()).await;
    Ok(Outcome::Success)
}

/// Warns of settings that are valid but trust every address.
fn warn_of_open_networks(settings: &ServeSettings) {
    for network in settings.trusted_peers.iter().filter(|network| network.prefix_len() == 0) {
        warn!(%network, "CMDB_TRUSTED_PEERS trusts every address to name users");
    }
    for network in settings.proxies.iter().filter(|network| network.prefix_len() == 0) {
        warn!(%network, "CMDB_PROXIES exempts every address from CMDB_CONNECTIONS_PER_PEER");
    }
}

fn authenticator(settings: &ServeSettings) -> anyhow::Result<Authenticator> {
    let login = settings.login_url.as_deref().map(LoginService::new).transpose();
    let login = login.context("CMDB_LOGIN_URL cannot be used")?;
    let (jwt, gateway_only) = (jwt(settings)?, settings.gateway_only);
    if gateway_only && jwt.is_none() {
        bail!("CMDB_GATEWAY_ONLY needs the public key of the gateway: set CMDB_GATEWAY_PUBLIC_KEY");
    }
    let trusted_peers = settings.trusted_peers.clone();
    Ok(Authenticator { jwt, gateway_only, login, trusted_peers })
}

fn jwt(settings: &ServeSettings) -> anyhow::Result<Option<JwtVerifier>> {
    const FILE: &str = "CMDB_GATEWAY_PUBLIC_KEY_FILE";
    let (name, key) = match (&settings.gateway_public_key_file, &settings.gateway_public_key) {
        (Some(file), _) => (FILE, config::read_file(FILE, file.clone())?),
        (None, Some(key)) => ("CMDB_GATEWAY_PUBLIC_KEY", key.clone()),
        (None, None) => return Ok(None),
    };
    let jwt = JwtVerifier::new(&key, settings.gateway_issuer.as_deref()).with_context(|| {
        format!("{name} is not an RSA public key: it should begin with -----BEGIN PUBLIC KEY-----")
    })?;
    Ok(Some(jwt))
}

fn tls(settings: &ServeSettings) -> anyhow::Result<Option<Tls>> {
    let files = settings.listen.tls_certificate.clone().zip(settings.listen.tls_key.clone());
    let tls = files.map(|(certificate, key)| Tls::new(certificate, key)).transpose();
    tls.context("CMDB_TLS_CERTIFICATE and CMDB_TLS_KEY cannot be used")
}

/// Runs regular maintenance. Never returns.
async fn maintain(pools: Vec<Pool>, metrics: Arc<Metrics>) {
    let mut interval = tokio::time::interval(MAINTENANCE_INTERVAL);
    loop {
        interval.tick().await;
        metrics.run_upkeep();
        for pool in &pools {
            pool.reap_idle().await;
        }
    }
}

/// Listens on the address for callers and, if there is one, on the address for operators.
async fn listen_all(addresses: &Listen) -> anyhow::Result<(TcpListener, Option<TcpListener>)> {
    let listener = listen(addresses.listen).await?;
    info!(address = %listener.local_addr()?, "listening");
    let Some(address) = addresses.ops_listen else { return Ok((listener, None)) };
    let ops = listen(address).await?;
    info!(address = %ops.local_addr()?, "listening for health checks and metrics");
    Ok((listener, Some(ops)))
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}
