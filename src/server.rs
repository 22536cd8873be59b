//! The socket: accepting connections, and letting go of them in order.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper::{client, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::config::{DRAIN_TIMEOUT, HEAD_TIMEOUT};
use crate::http::Peer;

/// How long connections are still accepted after a stop, so that whoever watches `/readyz` looks elsewhere first.
const NOTICE: Duration = Duration::from_millis(500);

/// Serves until `stop`, then tells `draining`, answers what is under way and returns.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    draining: watch::Sender<bool>,
    stop: impl Future<Output = ()>,
) {
    let connections = GracefulShutdown::new();
    let noticed = async {
        stop.await;
        info!("stopping: answering what is under way");
        draining.send_replace(true);
        tokio::time::sleep(NOTICE).await;
    };
    tokio::pin!(noticed);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut noticed => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Answers are small and complete: waiting to fill a packet only delays them.
                let _ = stream.set_nodelay(true);
                let router = TowerToHyperService::new(router.clone());
                let service = service_fn(move |mut request: Request<Incoming>| {
                    request.extensions_mut().insert(Peer(peer.ip()));
                    router.call(request)
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                let connection = connections.watch(connection);
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        debug!(error = &error as &dyn std::error::Error, "a connection broke off");
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: some will be free soon.
                warn!(error = &error as &dyn std::error::Error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.shutdown()).await.is_err() {
        warn!("some requests did not end in time");
    }
    info!("stopped");
}

/// Asks the server at `address` whether it is ready, and for its word on that.
pub async fn ask_ready(address: SocketAddr) -> io::Result<(bool, String)> {
    let stream = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) =
        client::conn::http1::handshake(stream).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    let request = Request::get("/readyz")
        .header("host", address.to_string())
        .body(Body::empty())
        .map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let is_ready = response.status().is_success();
    let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
    Ok((is_ready, String::from_utf8_lossy(&body).into_owned()))
}
