//! A server on a socket of its own, in this process, and a client that can send any bytes.

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use cmdb_associations::server::{Limits, Socket, serve};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::app::PATH;

/// Limits that no test reaches unless it changes them.
pub(crate) const LIMITS: Limits = Limits::new(100);

/// Serves a router on a free port until the test ends. Returns its address.
pub(crate) async fn open(router: Router, limits: Limits) -> SocketAddr {
    open_tls(router, limits, None).await
}

/// Like [`open`], with TLS if there is an acceptor.
pub(crate) async fn open_tls(
    router: Router, limits: Limits, tls: Option<watch::Receiver<TlsAcceptor>>,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (draining, _) = watch::channel(false);
    let never = std::future::pending();
    let socket = Socket { listener, tls };
    tokio::spawn(serve(socket, router, limits, TaskTracker::new(), draining, never));
    address
}

/// A client connection.
pub(crate) struct Client<S = TcpStream>(pub(crate) S);

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Whether the server closes the connection after it.
    pub(crate) closes: bool,
    /// The header `Keep-Alive`.
    pub(crate) keep_alive: Option<String>,
    pub(crate) body: String,
}

impl Response {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self(TcpStream::connect(address).await?))
    }

    /// Connects from another address of this machine, such as 127.0.0.2.
    pub(crate) async fn connect_from(source: IpAddr, address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        Ok(Self(socket.connect(address).await?))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes).await
    }

    /// Closes the sending side of the connection.
    pub(crate) async fn close_sending(&mut self) -> std::io::Result<()> {
        self.0.shutdown().await
    }

    /// Sends a batch with the credentials of `esb_test` and the user `admin`.
    pub(crate) async fn post(&mut self, mut body: Value) -> std::io::Result<()> {
        let credentials =
            json!({"bk_app_code": "esb_test", "bk_app_secret": "xxx", "bk_username": "admin"});
        body.as_object_mut().unwrap().extend(credentials.as_object().unwrap().clone());
        let body = body.to_string();
        let request = format!(
            "POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.send(request.as_bytes()).await
    }

    /// Sends a request without a body.
    pub(crate) async fn get(&mut self, path: &str) -> std::io::Result<()> {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await
    }

    /// Reads the next response; none if the connection is closed before it begins.
    pub(crate) async fn answer(&mut self) -> Option<Response> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if self.0.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                assert!(
                    bytes.is_empty(),
                    "incomplete response: {}",
                    String::from_utf8_lossy(&bytes)
                );
                return None;
            }
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        let header = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
        };
        let length: usize = header("content-length").unwrap().parse().unwrap();
        while bytes.len() < end + 4 + length {
            assert!(self.0.read_buf(&mut bytes).await.unwrap() > 0, "incomplete response: {head}");
        }
        Some(Response {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            closes: header("connection").is_some_and(|value| value == "close"),
            keep_alive: header("keep-alive"),
            body: String::from_utf8(bytes[end + 4..].to_vec()).unwrap(),
        })
    }
}
