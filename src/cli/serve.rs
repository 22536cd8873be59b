//! `serve`, and `healthcheck`, which asks it.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use reqwest::Client;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::info;

use super::{Outcome, refuse_pending};
use crate::config::{self, AuthorizationSetting, Listen, ServeSettings};
use crate::domain::permission::Authorization;
use crate::http::{AppState, TrustedSources};
use crate::server::{Limits, RELOAD_INTERVAL, Socket, Tls, TlsFiles};
use crate::service::gateway::Gateway;
use crate::service::limit::Limiter;
use crate::service::login::Login;
use crate::service::memory::Memory;
use crate::service::{Pool, Service};
use crate::telemetry::error_chain;
use crate::telemetry::metrics::Metrics;
use crate::{http, server, service};

pub(super) async fn serve(settings: ServeSettings) -> anyhow::Result<Outcome> {
    let stop = stop_signal()?;
    tokio::pin!(stop);
    let metrics = Metrics::install()?;
    let (login, gateway, tls) = (login(&settings)?, gateway(&settings)?, tls(&settings.listen)?);
    let database = config::database()?;
    let (listener, ops) = tokio::select! {
        started = start(&settings, &database) => started?,
        () = &mut stop => return Ok(Outcome::Success),
    };
    let pool = config::serving_pool(database.clone(), settings.database_connections);
    let (draining, watched) = watch::channel(false);
    let service = Service {
        pool: pool.clone(),
        authorization: match settings.authorization {
            AuthorizationSetting::Grants => Authorization::Grants,
            AuthorizationSetting::Off => Authorization::Off,
        },
        limiter: settings.rate_limit.map(Limiter::new),
        login,
        gateway,
        places: Semaphore::new(settings.requests_at_once() as usize),
        memory: Memory::default(),
    };
    let in_flight = TaskTracker::new();
    let state = AppState {
        trust: TrustedSources { gateway: service.gateway.is_some(), peers: settings.trusted_peers },
        service: Arc::new(service),
        readiness: config::serving_pool(database, 1),
        room: Arc::default(),
        body_limit: settings.body_limit as usize,
        deadline: config::REQUEST_TIMEOUT,
        draining: watched.clone(),
        in_flight: in_flight.clone(),
        metrics: Arc::new(metrics),
    };
    let tidying = tokio::spawn(tidy(pool.clone(), Arc::clone(&state.metrics)));
    let (mut router, operations) = (http::router(state.clone()), http::operations(state));
    let mut background = vec![tidying];
    match ops {
        Some(listener) => {
            let serving = server::serve_operations(listener, operations, watched);
            background.push(tokio::spawn(serving));
        }
        None => router = router.merge(operations),
    }
    // Each connection takes a file descriptor. Where no more are allowed, fewer are accepted.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    background.push(tokio::spawn(service::idempotency::sweep(pool.clone())));
    let tls = tls.map(|tls| {
        let acceptor = tls.acceptor();
        background.push(tokio::spawn(tls.reload_every(RELOAD_INTERVAL)));
        acceptor
    });
    let limits = Limits {
        connections: settings.connections as usize,
        head_timeout: config::HEAD_TIMEOUT,
        read_timeout: config::READ_TIMEOUT,
    };
    server::serve(Socket { listener, tls }, router, limits, in_flight, draining, stop).await;
    background.iter().for_each(JoinHandle::abort);
    // A connection that does not say goodbye does not keep the process.
    let _ = tokio::time::timeout(Duration::from_secs(1), pool.close()).await;
    Ok(Outcome::Success)
}

fn login(settings: &ServeSettings) -> anyhow::Result<Option<Login>> {
    let login = settings.login_url.as_deref().map(Login::new).transpose();
    login.context("CMDB_LOGIN_URL is of no use")
}

fn gateway(settings: &ServeSettings) -> anyhow::Result<Option<Gateway>> {
    let name = "CMDB_GATEWAY_PUBLIC_KEY_FILE";
    let file = settings.gateway_public_key_file.clone();
    let (name, key) = match file.map(|file| config::read_file(name, file)).transpose()? {
        Some(key) => (name, Some(key)),
        None => ("CMDB_GATEWAY_PUBLIC_KEY", settings.gateway_public_key.clone()),
    };
    let gateway = key.map(|key| Gateway::new(&key, settings.gateway_issuer.as_deref()));
    gateway.transpose().with_context(|| {
        format!("{name} is no RSA public key: it should begin with -----BEGIN PUBLIC KEY-----")
    })
}

fn tls(listen: &Listen) -> anyhow::Result<Option<Tls>> {
    let files = listen.tls_certificate.clone().zip(listen.tls_key.clone());
    let tls = files.map(|(certificate, key)| Tls::new(TlsFiles { certificate, key })).transpose();
    tls.context("CMDB_TLS_CERTIFICATE, CMDB_TLS_KEY")
}

/// Now and then, for ever.
async fn tidy(pool: Pool, metrics: Arc<Metrics>) {
    let mut every = tokio::time::interval(Duration::from_secs(5));
    loop {
        every.tick().await;
        metrics.sort();
        pool.reap_idle().await;
    }
}

/// Brings the schema up to date, or refuses to, and takes the addresses.
async fn start(
    settings: &ServeSettings,
    database: &PgConnectOptions,
) -> anyhow::Result<(TcpListener, Option<TcpListener>)> {
    let mut conn = config::connect_to(database).await?;
    if settings.no_migrate {
        refuse_pending(&mut conn).await?;
    } else {
        service::schema::migrate(&mut conn).await?;
    }
    let listener = listen(settings.listen.listen).await?;
    info!(address = %listener.local_addr()?, "listening");
    let Some(address) = settings.listen.ops_listen else { return Ok((listener, None)) };
    let ops = listen(address).await?;
    info!(address = %ops.local_addr()?, "listening to operators");
    Ok((listener, Some(ops)))
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Ends with the first SIGTERM or SIGINT from now on.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Asks a server on this machine: one that listens everywhere is asked at the loopback address.
pub(super) async fn healthcheck(listen: &Listen) -> anyhow::Result<Outcome> {
    let (scheme, address) = match (listen.ops_listen, &listen.tls_certificate) {
        (Some(address), _) => ("http", address),
        (None, Some(_)) => ("https", listen.listen),
        (None, None) => ("http", listen.listen),
    };
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let address = SocketAddr::new(ip, address.port());
    // It is asked at its address, which its certificate does not name; nothing secret is said.
    let client = Client::builder().tls_danger_accept_invalid_certs(true).no_proxy();
    let client = client.timeout(Duration::from_secs(5)).build()?;
    let asked = async {
        let response = client.get(format!("{scheme}://{address}/readyz")).send().await?;
        Ok::<_, reqwest::Error>((response.status().is_success(), response.text().await?))
    };
    match asked.await {
        Ok((true, _)) => Ok(Outcome::Success),
        Ok((false, why)) => {
            writeln!(io::stderr(), "{address} is not ready: {}", why.trim_end())?;
            Ok(Outcome::Negative)
        }
        Err(error) => {
            writeln!(
                io::stderr(),
                "{address} does not answer: {}",
                error_chain(&error.without_url())
            )?;
            Ok(Outcome::Negative)
        }
    }
}
