//! Sockets: accepts connections, limits their number, and drains them at shutdown.

mod malformed;
pub mod tls;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Request, header};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics::{Gauge, gauge};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::config::{DRAIN_TIMEOUT, HEAD_TIMEOUT, READ_TIMEOUT};
use crate::http::{ClientAddr, OverCapacity};

/// How long connections are accepted after a shutdown has begun, so that load balancers that poll
/// `/readyz` stop sending requests first. In this time each response closes its connection.
pub const SHUTDOWN_DELAY: Duration = Duration::from_millis(500);

/// After that, how long connections that have sent no request may still send one.
pub const BACKLOG_GRACE: Duration = Duration::from_millis(300);

/// How long the head of a request may take to arrive on a connection over capacity.
const OVER_CAPACITY_HEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many connections the operations address serves at once.
const OPERATIONS_CONNECTIONS: usize = 64;

/// The largest head of a request, in bytes.
const HEAD_LIMIT: usize = 64 << 10;

/// The largest number of headers that is read. It is far above the limit of the endpoints, so that
/// most requests beyond that are refused with an error code.
const HEADERS_READ: usize = 1_000;

/// The limits of a server.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How many connections are served at once. The same number of connections beyond it are
    /// accepted, and their requests refused. More wait in the backlog of the listening socket.
    pub connections: usize,
    /// How long the head of a request may take to arrive.
    pub head_timeout: Duration,
    /// How long a client may leave a response unread.
    pub read_timeout: Duration,
}

impl Limits {
    /// This many connections, with the timeouts of [`config`](crate::config).
    pub const fn new(connections: usize) -> Self {
        Self { connections, head_timeout: HEAD_TIMEOUT, read_timeout: READ_TIMEOUT }
    }
}

/// A listening socket.
pub struct Socket {
    /// Accepts the connections.
    pub listener: TcpListener,
    /// Encrypts the connections, if clients speak TLS.
    pub tls: Option<watch::Receiver<TlsAcceptor>>,
}

/// Serves clients until `shutdown`, which completes on a signal. Then sets `draining`, answers the
/// requests in flight and returns.
pub async fn serve(
    socket: Socket, router: Router, limits: Limits, in_flight: TaskTracker,
    draining: watch::Sender<bool>, shutdown: impl Future<Output = ()>,
) {
    let Socket { listener, tls } = socket;
    let open_connections = gauge!("cmdb_client_connections");
    let server = Server::new(router, limits, draining.subscribe());
    let server = Server { tls, open_connections, ..server };
    let end_of_accepting = async {
        shutdown.await;
        info!("shutting down: answering the requests in flight");
        draining.send_replace(true);
        sleep(SHUTDOWN_DELAY).await;
    };
    tokio::select! {
        () = server.accept(&listener) => {}
        () = end_of_accepting => {}
    }
    if let Err(error) = server.accept_backlog(listener) {
        warn!(error = &error as &dyn std::error::Error, "cannot accept the last connections");
    }
    sleep(BACKLOG_GRACE).await;
    let drained = async {
        server.connections.shutdown().await;
        // Requests whose clients have disconnected are in flight, but have no connection.
        in_flight.close();
        in_flight.wait().await;
    };
    if timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        warn!("some requests were still in flight when the shutdown timed out");
    }
    info!("shut down");
}

/// Serves the paths for operators at an address of their own. Never returns.
pub async fn serve_operations(
    listener: TcpListener, router: Router, draining: watch::Receiver<bool>,
) {
    Server::new(router, Limits::new(OPERATIONS_CONNECTIONS), draining).accept(&listener).await;
}

struct Server {
    router: Router,
    limits: Limits,
    /// Permits for connections whose requests are served.
    served: Arc<Semaphore>,
    /// Permits for connections whose requests are refused.
    over_capacity: Arc<Semaphore>,
    draining: watch::Receiver<bool>,
    connections: GracefulShutdown,
    tls: Option<watch::Receiver<TlsAcceptor>>,
    open_connections: Gauge,
}

impl Server {
    /// A server without TLS whose connections are not counted.
    fn new(router: Router, limits: Limits, draining: watch::Receiver<bool>) -> Self {
        let served = Arc::new(Semaphore::new(limits.connections));
        let over_capacity = Arc::new(Semaphore::new(limits.connections));
        let (connections, tls, open_connections) = (GracefulShutdown::new(), None, Gauge::noop());
        Self { router, limits, served, over_capacity, draining, connections, tls, open_connections }
    }

    /// Acquires a permit for a connection if one is available: one to be served if possible.
    fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        let semaphores = [&self.served, &self.over_capacity];
        semaphores.into_iter().find_map(|permits| Arc::clone(permits).try_acquire_owned().ok())
    }

    /// Acquires a permit for a connection, waiting until one is available: one to be served if
    /// possible.
    async fn acquire(&self) -> OwnedSemaphorePermit {
        let permit = tokio::select! {
            biased;
            permit = Arc::clone(&self.served).acquire_owned() => permit,
            permit = Arc::clone(&self.over_capacity).acquire_owned() => permit,
        };
        permit.expect("the semaphores are never closed")
    }

    /// Accepts connections, each as soon as there is a permit for it. Never returns.
    async fn accept(&self, listener: &TcpListener) {
        loop {
            // A connection leaves the backlog only if there is a permit, and then gets the best
            // one.
            drop(self.acquire().await);
            match listener.accept().await {
                Ok((stream, peer)) => self.spawn(stream, peer, self.acquire().await),
                Err(error) => {
                    // Most likely the process has no file descriptor left, and will have one soon.
                    warn!(error = &error as &dyn std::error::Error, "cannot accept a connection");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Accepts the connections in the backlog. Closing the listener would reset them, although
    /// their first requests may have been sent.
    fn accept_backlog(&self, listener: TcpListener) -> io::Result<()> {
        let listener = listener.into_std()?;
        while let Some(permit) = self.try_acquire() {
            match listener.accept() {
                Ok((stream, peer)) => {
                    stream.set_nonblocking(true)?;
                    self.spawn(TcpStream::from_std(stream)?, peer, permit);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The client has already disconnected.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Serves one connection in a task of its own.
    fn spawn(&self, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        // Responses are written in one piece: waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        // The kernel closes the connection of a client that does not read its responses.
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(self.limits.read_timeout));
        let client = ClientAddr(peer.ip());
        let over_capacity = Arc::ptr_eq(permit.semaphore(), &self.over_capacity);
        let head_timeout =
            if over_capacity { OVER_CAPACITY_HEAD_TIMEOUT } else { self.limits.head_timeout };
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(head_timeout).max_buf_size(HEAD_LIMIT);
        http.max_headers(HEADERS_READ);
        // A client may close its sending side after its last request.
        http.half_close(true);
        let (router, draining) = (self.router.clone(), self.draining.clone());
        let service = service_fn(move |request| {
            call_router(router.clone(), request, client, over_capacity, draining.clone())
        });
        let tls = self.tls.as_ref().map(|tls| tls.borrow().clone());
        let (draining, watcher) = (self.draining.clone(), self.connections.watcher());
        let connection = async move {
            let stream = match tls {
                Some(tls) => Either::Left(handshake(&tls, stream, draining).await?),
                None => Either::Right(stream),
            };
            let connection = http.serve_connection(TokioIo::new(stream), service);
            let served = watcher.watch(connection).await;
            if let Err(error) = &served
                && let Some(kind) = malformed::kind_of(error)
            {
                malformed::report(peer.ip(), kind, error);
            }
            served.map_err(io::Error::other)
        };
        let open_connections = self.open_connections.clone();
        open_connections.increment(1);
        let connection = tokio::spawn(connection);
        tokio::spawn(async move {
            if let Ok(Err(error)) = connection.await {
                debug!(error = &error as &dyn std::error::Error, "a connection failed");
            }
            open_connections.decrement(1);
            drop(permit);
        });
    }
}

/// Responds to one request. While the server drains, or on a connection over capacity, the response
/// closes its connection.
async fn call_router(
    router: Router, mut request: Request<Incoming>, client: ClientAddr, over_capacity: bool,
    draining: watch::Receiver<bool>,
) -> Result<Response, Infallible> {
    if let Some((kind, reason)) = malformed::defect(&request) {
        malformed::report(client.0, kind, reason);
        return Ok(malformed::bad_request());
    }
    request.extensions_mut().insert(client);
    if over_capacity {
        request.extensions_mut().insert(OverCapacity);
    }
    let mut response = TowerToHyperService::new(router).call(request).await?;
    if over_capacity || *draining.borrow() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Performs a TLS handshake. During a shutdown it must end as soon as a request must have begun.
async fn handshake(
    tls: &TlsAcceptor, stream: TcpStream, mut draining: watch::Receiver<bool>,
) -> io::Result<TlsStream<TcpStream>> {
    let end_of_grace = async {
        // An error means that the server has ended.
        let _ = draining.wait_for(|draining| *draining).await;
        sleep(SHUTDOWN_DELAY + BACKLOG_GRACE).await;
    };
    tokio::select! {
        accepted = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)) => accepted?,
        () = end_of_grace => Err(io::ErrorKind::TimedOut.into()),
    }
}
