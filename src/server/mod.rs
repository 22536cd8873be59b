//! The socket: accepting connections, and letting go of them in order.

mod tls;

use std::io;
use std::net::{SocketAddr, TcpListener as Backlog};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, Request, header};
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
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

pub use self::tls::{Acceptor, Error as TlsError, Files as TlsFiles, RENEWAL, Tls};
use crate::config::{DRAIN_TIMEOUT, HEAD_TIMEOUT, READ_TIMEOUT};
use crate::http::{ClientAddr, OverCapacity};

/// How long connections are still accepted after a stop, so that whoever watches `/readyz` looks elsewhere first.
/// Answers end their connections from then on.
pub const NOTICE: Duration = Duration::from_millis(500);

/// How long those who connected last have to say what they want.
pub const LAST_CALL: Duration = Duration::from_millis(300);

/// How long the head of a request may take that is only told that there are too many.
const SURPLUS_HEAD_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client may take to agree on encryption.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest head of a request, in bytes.
const HEAD_LIMIT: usize = 64 << 10;

/// How much the server takes on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most connections that are served. As many again are told that there are too many.
    pub connections: usize,
    /// How long the head of a request may take to arrive.
    pub head_timeout: Duration,
    /// How long a client may leave an answer unread.
    pub read_timeout: Duration,
}

/// Where connections come from.
pub struct Socket {
    /// The socket.
    pub listener: TcpListener,
    /// What encrypts them, if they are.
    pub tls: Option<Acceptor>,
}

/// How many connections operators may have.
const OPERATORS: Limits =
    Limits { connections: 64, head_timeout: HEAD_TIMEOUT, read_timeout: READ_TIMEOUT };

/// Serves until `stop`, then tells `draining`, answers what is under way and returns.
pub async fn serve(
    socket: Socket,
    router: Router,
    limits: Limits,
    in_flight: TaskTracker,
    draining: watch::Sender<bool>,
    stop: impl Future<Output = ()>,
) {
    let Socket { listener, tls } = socket;
    let server =
        Server::new(router, tls, limits, draining.subscribe(), gauge!("cmdb_client_connections"));
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
    let ended = async {
        server.connections.shutdown().await;
        // Requests whose caller has left have no connection any more.
        in_flight.close();
        in_flight.wait().await;
    };
    if timeout(DRAIN_TIMEOUT, ended).await.is_err() {
        warn!("some requests did not end in time");
    }
    info!("stopped");
}

/// Serves operators, who are few, for ever.
pub async fn serve_operations(
    listener: TcpListener,
    router: Router,
    draining: watch::Receiver<bool>,
) {
    Server::new(router, None, OPERATORS, draining, Gauge::noop()).accept(&listener).await;
}

/// A connection's place, taken until this is dropped.
enum Place {
    /// Of one that is served.
    Served(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit),
    /// Of one that is told that there are too many.
    OverCapacity(#[expect(dead_code, reason = "it is held")] OwnedSemaphorePermit),
}

/// Ends when nobody is taken on any more.
async fn last_call(mut stopping: watch::Receiver<bool>) {
    // Without a sender there is no stop.
    if stopping.wait_for(|stopping| *stopping).await.is_err() {
        return std::future::pending().await;
    }
    tokio::time::sleep(NOTICE + LAST_CALL).await;
}

/// An open connection, counted until this is dropped.
struct Open(Gauge);

impl Open {
    fn new(gauge: Gauge) -> Self {
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

struct Server {
    router: Router,
    tls: Option<Acceptor>,
    limits: Limits,
    /// The places of connections that are served.
    served: Arc<Semaphore>,
    /// The places of those that are told that there are too many.
    surplus: Arc<Semaphore>,
    draining: watch::Receiver<bool>,
    connections: GracefulShutdown,
    /// Counts them.
    open: Gauge,
}

impl Server {
    fn new(
        router: Router,
        tls: Option<Acceptor>,
        limits: Limits,
        draining: watch::Receiver<bool>,
        open: Gauge,
    ) -> Self {
        Self {
            router,
            tls,
            limits,
            served: Arc::new(Semaphore::new(limits.connections)),
            surplus: Arc::new(Semaphore::new(limits.connections)),
            draining,
            connections: GracefulShutdown::new(),
            open,
        }
    }

    /// Accepts for ever. Without any place left, whoever connects waits.
    async fn accept(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.spawn(stream, peer, self.place().await),
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
        while let Some(place) = self.free_place() {
            match backlog.accept() {
                Ok((stream, peer)) => {
                    stream.set_nonblocking(true)?;
                    self.spawn(TcpStream::from_std(stream)?, peer, place);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // It left before its turn came.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A place that is free: to be served if possible, else to be told that there are too many.
    fn free_place(&self) -> Option<Place> {
        let served = Arc::clone(&self.served).try_acquire_owned().map(Place::Served);
        let surplus = || Arc::clone(&self.surplus).try_acquire_owned().map(Place::OverCapacity);
        served.or_else(|_| surplus()).ok()
    }

    /// Waits for a place.
    async fn place(&self) -> Place {
        // Semaphores that are never closed give a place sooner or later.
        loop {
            if let Some(place) = self.free_place() {
                return place;
            }
            tokio::select! {
                _ = self.served.acquire() => {}
                _ = self.surplus.acquire() => {}
            }
        }
    }

    fn spawn(&self, stream: TcpStream, peer: SocketAddr, place: Place) {
        // Answers are small and complete: waiting to fill a packet only delays them.
        let _ = stream.set_nodelay(true);
        // Whoever does not read would keep his place for ever.
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(self.limits.read_timeout));
        let is_surplus = matches!(place, Place::OverCapacity(_));
        let head_timeout = if is_surplus { SURPLUS_HEAD_TIMEOUT } else { self.limits.head_timeout };
        let router = TowerToHyperService::new(self.router.clone());
        let draining = self.draining.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ClientAddr(peer.ip()));
            if is_surplus {
                request.extensions_mut().insert(OverCapacity);
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
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(head_timeout).max_buf_size(HEAD_LIMIT);
        let (tls, watcher) = (self.tls.clone(), self.connections.watcher());
        let (open, stopping) = (Open::new(self.open.clone()), self.draining.clone());
        tokio::spawn(async move {
            let served = async {
                let Some(tls) = tls else {
                    let connection = http.serve_connection(TokioIo::new(stream), service);
                    return watcher.watch(connection).await.map_err(io::Error::other);
                };
                let accepted = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream));
                let stream = tokio::select! {
                    accepted = accepted => accepted??,
                    () = last_call(stopping) => return Err(io::ErrorKind::TimedOut.into()),
                };
                let connection = http.serve_connection(TokioIo::new(stream), service);
                watcher.watch(connection).await.map_err(io::Error::other)
            };
            if let Err(error) = served.await {
                debug!(error = &error as &dyn std::error::Error, "a connection broke off");
            }
            drop((place, open));
        });
    }
}
