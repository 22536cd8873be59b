//! The socket: accepting connections, and letting go of them in order.

use std::io;
use std::net::{SocketAddr, TcpListener as Backlog};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper::{client, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{debug, info, warn};

use crate::config::DRAIN_TIMEOUT;
use crate::http::{Peer, Surplus};

/// How long connections are still accepted after a stop, so that whoever watches `/readyz` looks elsewhere first.
/// Answers end their connections from then on.
const NOTICE: Duration = Duration::from_millis(500);

/// How long those who connected last have to say what they want.
const LAST_CALL: Duration = Duration::from_millis(100);

/// The largest head of a request, in bytes.
const HEAD_LIMIT: usize = 64 << 10;

/// How much the server takes on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most connections that are served. As many again are told that there are too many.
    pub connections: usize,
    /// How long the head of a request may take to arrive.
    pub head_timeout: Duration,
}

/// Serves until `stop`, then tells `draining`, answers what is under way and returns.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    draining: watch::Sender<bool>,
    stop: impl Future<Output = ()>,
) {
    let server = Server {
        router,
        limits,
        served: Arc::new(Semaphore::new(limits.connections)),
        surplus: Arc::new(Semaphore::new(limits.connections)),
        draining: draining.subscribe(),
        connections: GracefulShutdown::new(),
    };
    let noticed = async {
        stop.await;
        info!("stopping: answering what is under way");
        draining.send_replace(true);
        tokio::time::sleep(NOTICE).await;
    };
    tokio::select! {
        () = server.accept(&listener) => {}
        () = noticed => {}
    }
    if let Err(error) = server.accept_last(listener) {
        warn!(error = &error as &dyn std::error::Error, "cannot accept the last connections");
    }
    tokio::time::sleep(LAST_CALL).await;
    if tokio::time::timeout(DRAIN_TIMEOUT, server.connections.shutdown()).await.is_err() {
        warn!("some requests did not end in time");
    }
    info!("stopped");
}

struct Server {
    router: Router,
    limits: Limits,
    /// The places of connections that are served.
    served: Arc<Semaphore>,
    /// The places of those that are told that there are too many.
    surplus: Arc<Semaphore>,
    draining: watch::Receiver<bool>,
    connections: GracefulShutdown,
}

impl Server {
    /// Accepts for ever. Without any place left, whoever connects waits.
    async fn accept(&self, listener: &TcpListener) {
        // Semaphores that are never closed give a place sooner or later.
        while let Ok(place) = Arc::clone(&self.surplus).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, peer)) => self.spawn(stream, peer, place),
                Err(error) => {
                    // Out of file descriptors, most likely: some will be free soon.
                    warn!(error = &error as &dyn std::error::Error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Takes on who connected before the listener closes: their first request may be on its way.
    fn accept_last(&self, listener: TcpListener) -> io::Result<()> {
        let backlog: Backlog = listener.into_std()?;
        while let Ok(place) = Arc::clone(&self.surplus).try_acquire_owned() {
            match backlog.accept() {
                Ok((stream, peer)) => {
                    stream.set_nonblocking(true)?;
                    self.spawn(TcpStream::from_std(stream)?, peer, place);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn spawn(&self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        // Answers are small and complete: waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        let (place, is_surplus) = match Arc::clone(&self.served).try_acquire_owned() {
            Ok(served) => (served, false),
            Err(_) => (place, true),
        };
        let router = TowerToHyperService::new(self.router.clone());
        let draining = self.draining.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer.ip()));
            if is_surplus {
                request.extensions_mut().insert(Surplus);
            }
            let answering = router.call(request);
            let draining = draining.clone();
            async move {
                let mut response = answering.await;
                if let Ok(response) = &mut response
                    && (is_surplus || *draining.borrow())
                {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                response
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_timeout)
            .max_buf_size(HEAD_LIMIT)
            .serve_connection(TokioIo::new(stream), service);
        let connection = self.connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(error = &error as &dyn std::error::Error, "a connection broke off");
            }
            drop(place);
        });
    }
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
