//! `serve`, and `healthcheck`, which asks it.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use tracing::info;

use super::{Answer, refuse_pending};
use crate::config::{self, AuthorizationSetting, ServeSettings};
use crate::domain::permission::Authorization;
use crate::http::{AppState, Trust};
use crate::server::Limits;
use crate::service::Service;
use crate::service::gateway::Gateway;
use crate::service::limit::Limiter;
use crate::service::login::Login;
use crate::service::memory::Memory;
use crate::{http, server, service};

pub(super) async fn serve(settings: ServeSettings) -> anyhow::Result<Answer> {
    let stop = stop_signal()?;
    tokio::pin!(stop);
    let (login, gateway) = (login(&settings)?, gateway(&settings)?);
    let database = config::database()?;
    let listener = tokio::select! {
        started = start(&settings, &database) => started?,
        () = &mut stop => return Ok(Answer::Fine),
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
    let under_way = TaskTracker::new();
    let router = http::router(AppState {
        trust: Trust { gateway: service.gateway.is_some(), peers: settings.trusted_peers },
        service: Arc::new(service),
        readiness: config::serving_pool(database, 1),
        room: Arc::default(),
        body_limit: settings.body_limit as usize,
        deadline: config::REQUEST_TIMEOUT,
        draining: watched,
        under_way: under_way.clone(),
    });
    // Each connection takes a file descriptor. Where no more are allowed, fewer are accepted.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    info!(address = %listener.local_addr()?, "listening");
    let sweeping = tokio::spawn(service::idempotency::sweep(pool.clone()));
    let limits = Limits {
        connections: settings.connections as usize,
        head_timeout: config::HEAD_TIMEOUT,
        read_timeout: config::READ_TIMEOUT,
    };
    server::serve(listener, router, limits, under_way, draining, stop).await;
    sweeping.abort();
    // A connection that does not say goodbye does not keep the process.
    let _ = tokio::time::timeout(Duration::from_secs(1), pool.close()).await;
    Ok(Answer::Fine)
}

/// A setting; an empty one counts as absent.
fn given(setting: Option<&str>) -> Option<&str> {
    setting.filter(|setting| !setting.is_empty())
}

fn login(settings: &ServeSettings) -> anyhow::Result<Option<Login>> {
    let login = given(settings.login_url.as_deref()).map(Login::new).transpose();
    login.context("CMDB_LOGIN_URL is of no use")
}

fn gateway(settings: &ServeSettings) -> anyhow::Result<Option<Gateway>> {
    let issuer = given(settings.gateway_issuer.as_deref());
    let gateway =
        given(settings.gateway_public_key.as_deref()).map(|key| Gateway::new(key, issuer));
    gateway.transpose().context(
        "CMDB_GATEWAY_PUBLIC_KEY is no RSA public key: it should begin with -----BEGIN PUBLIC KEY-----",
    )
}

/// Brings the schema up to date, or refuses to, and takes the address.
async fn start(
    settings: &ServeSettings,
    database: &PgConnectOptions,
) -> anyhow::Result<TcpListener> {
    let mut conn = config::connect_to(database).await?;
    if settings.no_migrate {
        refuse_pending(&mut conn).await?;
    } else {
        service::schema::migrate(&mut conn).await?;
    }
    let address = settings.listen.listen;
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
pub(super) async fn healthcheck(listen: SocketAddr) -> anyhow::Result<Answer> {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let address = SocketAddr::new(ip, listen.port());
    let asked = tokio::time::timeout(Duration::from_secs(5), server::ask_ready(address)).await;
    match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok((true, _)) => Ok(Answer::Fine),
        Ok((false, why)) => {
            writeln!(io::stderr(), "{address} is not ready: {}", why.trim_end())?;
            Ok(Answer::No)
        }
        Err(error) => {
            writeln!(io::stderr(), "{address} does not answer: {error}")?;
            Ok(Answer::No)
        }
    }
}
