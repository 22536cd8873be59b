//! `serve`, and `healthcheck`, which asks it.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use sqlx::Connection;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

use super::{Answer, refuse_pending};
use crate::config::{self, ServeSettings};
use crate::http::AppState;
use crate::{http, server, service};

pub(super) async fn serve(settings: ServeSettings) -> anyhow::Result<Answer> {
    // Before anything else, so that a stop during the start is one.
    let stop = stop_signal()?;
    let mut conn = config::connect().await?;
    if settings.no_migrate {
        refuse_pending(&mut conn).await?;
    } else {
        service::schema::migrate(&mut conn).await?;
    }
    conn.close().await?;
    let pool = config::serving_pool(config::database()?, settings.database_connections);
    let listener = TcpListener::bind(settings.listen.listen)
        .await
        .with_context(|| format!("cannot listen on {}", settings.listen.listen))?;
    let (draining, watched) = watch::channel(false);
    let router = http::router(AppState {
        pool: pool.clone(),
        body_limit: settings.body_limit,
        deadline: config::REQUEST_TIMEOUT,
        draining: watched,
    });
    info!(address = %listener.local_addr()?, "listening");
    server::serve(listener, router, draining, stop).await;
    pool.close().await;
    Ok(Answer::Fine)
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
