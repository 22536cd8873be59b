//! Sockets: accepts connections, limits their number, and drains them at shutdown.

mod admission;
mod connection;
mod malformed;
pub mod tls;

use std::convert::Infallible;
use std::io;
use std::mem::take;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::{CONNECTION, HeaderName};
use axum::http::{HeaderValue, Method, Request, Version};
use axum::response::Response;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use metrics::{Gauge, gauge};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use self::admission::{Admission, Class, Permit};
use self::connection::{Activity, ObservedStream, Timeouts, drive};
use crate::config::{DRAIN_TIMEOUT, HEAD_TIMEOUT, IDLE_TIMEOUT, READ_TIMEOUT};
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

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// The limits of a server.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How many connections are served at once. The same number of connections beyond it are
    /// accepted, and their requests refused. More wait in the backlog of the listening socket.
    pub connections: usize,
    /// How many of these may come from one peer: an IPv4 address or an IPv6 network of 64 bits.
    /// The same number of its connections beyond it have their requests refused. More are closed.
    pub connections_per_peer: usize,
    /// Peers without a limit of their own.
    pub proxies: Vec<IpNet>,
    /// How long a new connection may be silent, and how long the head of a request may take to
    /// arrive.
    pub head_timeout: Duration,
    /// How long a connection is kept open after a response.
    pub idle_timeout: Duration,
    /// How long a client may leave a response unread.
    pub read_timeout: Duration,
}

impl Limits {
    /// This many connections, half of them for one peer, with the timeouts of
    /// [`config`](crate::config).
    pub const fn new(connections: usize) -> Self {
        Self {
            connections,
            connections_per_peer: connections.div_ceil(2),
            proxies: Vec::new(),
            head_timeout: HEAD_TIMEOUT,
            idle_timeout: IDLE_TIMEOUT,
            read_timeout: READ_TIMEOUT,
        }
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
    let open = gauge!("cmdb_client_connections");
    let server = Server::new(router, limits, draining.subscribe(), open, tls);
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
        server.closing.send_replace(());
        server.closing.closed().await;
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
    let limits = Limits::new(OPERATIONS_CONNECTIONS);
    // These connections are not counted.
    Server::new(router, limits, draining, Gauge::noop(), None).accept(&listener).await;
}

struct Server {
    router: Router,
    limits: Limits,
    admission: Arc<Admission>,
    /// The value of the header `Keep-Alive`.
    keep_alive: HeaderValue,
    draining: watch::Receiver<bool>,
    /// Closes the connections after their requests in flight. Each connection has a receiver.
    closing: watch::Sender<()>,
    tls: Option<watch::Receiver<TlsAcceptor>>,
}

impl Server {
    fn new(
        router: Router, mut limits: Limits, draining: watch::Receiver<bool>, open: Gauge,
        tls: Option<watch::Receiver<TlsAcceptor>>,
    ) -> Self {
        let (per_peer, proxies) = (limits.connections_per_peer, take(&mut limits.proxies));
        let admission = Arc::new(Admission::new(limits.connections, per_peer, proxies, open));
        let keep_alive =
            HeaderValue::from_str(&format!("timeout={}", limits.idle_timeout.as_secs()))
                .expect("digits are valid in a header");
        let closing = watch::Sender::new(());
        Self { router, limits, admission, keep_alive, draining, closing, tls }
    }

    /// Accepts connections, each as soon as there is a permit for it. Never returns.
    async fn accept(&self, listener: &TcpListener) {
        loop {
            // A connection leaves the backlog only if there is a permit, and then gets the best
            // one.
            self.admission.wait_for_permit().await;
            match listener.accept().await {
                Ok((stream, peer)) => {
                    if let Some(permit) = self.admission.admit(peer.ip()).await {
                        self.spawn(stream, peer, permit);
                    }
                }
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
        // More can arrive while these are accepted.
        for _ in 0..2 * self.limits.connections {
            if !self.admission.has_permit() {
                break;
            }
            match listener.accept() {
                Ok((stream, peer)) => {
                    if let Ok(permit) = self.admission.try_admit(peer.ip()) {
                        stream.set_nonblocking(true)?;
                        self.spawn(TcpStream::from_std(stream)?, peer, permit);
                    }
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
    fn spawn(&self, stream: TcpStream, peer: SocketAddr, permit: Permit) {
        // Responses are written in one piece: waiting to fill a packet would only delay them.
        let _ = stream.set_nodelay(true);
        // The kernel closes the connection of a client that does not read its responses.
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(self.limits.read_timeout));
        let is_over_capacity = permit.class() == Class::OverCapacity;
        let head =
            if is_over_capacity { OVER_CAPACITY_HEAD_TIMEOUT } else { self.limits.head_timeout };
        let timeouts = Timeouts { head, idle: self.limits.idle_timeout };
        let mut http = http1::Builder::new();
        http.max_buf_size(HEAD_LIMIT).max_header_size(HEAD_LIMIT).max_headers(HEADERS_READ);
        // The connection has timeouts of its own.
        http.header_read_timeout(None);
        // A client may close its sending side after its last request.
        http.half_close(true);
        let activity = Arc::new(Activity::default());
        let requests = Arc::new(Requests {
            router: self.router.clone(),
            client: ClientAddr(peer.ip()),
            is_over_capacity,
            keep_alive: self.keep_alive.clone(),
            draining: self.draining.clone(),
            activity: Arc::clone(&activity),
        });
        let service = service_fn(move |request| respond(Arc::clone(&requests), request));
        let tls = self.tls.as_ref().map(|tls| tls.borrow().clone());
        let (draining, closing) = (self.draining.clone(), self.closing.subscribe());
        tokio::spawn(async move {
            let stream = match tls {
                Some(tls) => match handshake(&tls, stream, draining).await {
                    Ok(stream) => Either::Left(stream),
                    Err(error) => {
                        debug!(error = &error as &dyn std::error::Error, "a handshake failed");
                        return;
                    }
                },
                None => Either::Right(stream),
            };
            let stream = ObservedStream { stream, activity: Arc::clone(&activity) };
            let connection = http.serve_connection(TokioIo::new(stream), service);
            let driven = drive(connection, &activity, permit, timeouts, closing).await;
            let Err(error) = driven else { return };
            if let Some(kind) = malformed::kind_of(&error) {
                malformed::report(peer.ip(), kind, error);
            } else {
                debug!(error = &error as &dyn std::error::Error, "a connection failed");
            }
        });
    }
}

/// What the requests of one connection have in common.
struct Requests {
    router: Router,
    client: ClientAddr,
    is_over_capacity: bool,
    keep_alive: HeaderValue,
    draining: watch::Receiver<bool>,
    activity: Arc<Activity>,
}

/// Responds to one request. While the server drains, or on a connection over capacity, the response
/// closes its connection.
async fn respond(
    requests: Arc<Requests>, mut request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let Requests { router, client, is_over_capacity, keep_alive, draining, activity } = &*requests;
    let defect = malformed::defect(&request, activity.start_request());
    let response = if let Some((kind, reason)) = defect {
        malformed::report(client.0, kind, reason);
        malformed::bad_request()
    } else {
        // The endpoints read the bodies of their requests. hyper may take a body that nobody reads
        // for the next request.
        let ignores_body = matches!(*request.method(), Method::GET | Method::HEAD)
            && !request.body().is_end_stream();
        let keeps_open = keeps_open(&request);
        request.extensions_mut().insert(*client);
        if *is_over_capacity {
            request.extensions_mut().insert(OverCapacity);
        }
        let mut response = TowerToHyperService::new(router.clone()).call(request).await?;
        if *is_over_capacity || *draining.borrow() || ignores_body {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        } else if keeps_open {
            response.headers_mut().insert(KEEP_ALIVE, keep_alive.clone());
        }
        response
    };
    activity.start_response();
    Ok(response)
}

/// Whether the client keeps the connection open after this request (RFC 9112, section 9.3).
fn keeps_open(request: &Request<Incoming>) -> bool {
    let has = |option: &str| {
        let values = request.headers().get_all(CONNECTION).iter();
        let mut options = values.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(','));
        options.any(|found| found.trim().eq_ignore_ascii_case(option))
    };
    !has("close") && (request.version() >= Version::HTTP_11 || has("keep-alive"))
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
