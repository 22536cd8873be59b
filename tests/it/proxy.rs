//! A TCP proxy between the program and PostgreSQL that can lose messages and stall.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use cmdb_associations::config::database_at;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

use crate::app::pooled;

/// What the proxy does with the statement that contains a given text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InjectedFailure {
    /// Forwards the statement, and disconnects when PostgreSQL has responded.
    ResponseLost,
    /// Disconnects without forwarding the statement.
    StatementLost,
}

/// A proxy to the database of a test.
pub(crate) struct Proxy {
    /// Connection options through the proxy.
    pub(crate) options: PgConnectOptions,
    /// When this is set, the open connections stop forwarding in both directions.
    stalled: watch::Sender<bool>,
    lost: Arc<AtomicBool>,
    statements: Arc<AtomicUsize>,
}

/// The protocol message `Execute` for the unnamed portal, without a limit of rows.
const EXECUTE: &[u8] = b"E\0\0\0\x09\0\0\0\0\0";

impl Proxy {
    /// A proxy that forwards everything.
    pub(crate) async fn to(database: &PgConnectOptions) -> Self {
        Self::losing(database, b"no statement contains this", InjectedFailure::StatementLost).await
    }

    /// A proxy that forwards everything but the first statement that contains `text`.
    pub(crate) async fn losing(
        database: &PgConnectOptions, text: &'static [u8], failure: InjectedFailure,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut url = database.to_url_lossy();
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(port)).unwrap();
        url.set_query(Some("sslmode=disable"));
        let (stalled, _) = watch::channel(false);
        let lost = Arc::new(AtomicBool::new(false));
        let options = database_at(url.as_str()).unwrap().options()[0].clone();
        let proxy = Self { options, stalled, lost, statements: Arc::default() };
        let (database, stalled, lost) =
            (pooled(database.clone()), proxy.stalled.clone(), Arc::clone(&proxy.lost));
        let statements = Arc::clone(&proxy.statements);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A connection that is opened after a stall is forwarded.
                let mut stall = stalled.subscribe();
                let (lost, database) = (Arc::clone(&lost), database.clone());
                let client = CountingStream {
                    client,
                    tail: Vec::new(),
                    statements: Arc::clone(&statements),
                };
                tokio::spawn(async move {
                    let forwarding = async {
                        if let Some(directory) = database.get_socket() {
                            let socket =
                                directory.join(format!(".s.PGSQL.{}", database.get_port()));
                            let server = UnixStream::connect(socket).await.unwrap();
                            forward(client, server, text, failure, lost).await;
                        } else {
                            let address = (database.get_host(), database.get_port());
                            let server = TcpStream::connect(address).await.unwrap();
                            forward(client, server, text, failure, lost).await;
                        }
                    };
                    tokio::pin!(forwarding);
                    tokio::select! {
                        () = &mut forwarding => {}
                        _ = stall.changed() => std::future::pending().await,
                    }
                });
            }
        });
        proxy
    }

    /// Stops forwarding on the connections that are open now.
    pub(crate) fn stall(&self) {
        self.stalled.send_replace(true);
    }

    /// The number of statements that were executed so far.
    pub(crate) fn statements(&self) -> usize {
        self.statements.load(Ordering::SeqCst)
    }

    /// Whether the failure was injected.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }
}

/// A client connection that counts executed statements.
struct CountingStream {
    client: TcpStream,
    /// The last bytes received, because a message may arrive in parts.
    tail: Vec<u8>,
    statements: Arc<AtomicUsize>,
}

impl AsyncRead for CountingStream {
    fn poll_read(
        mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.client).poll_read(context, buffer);
        self.tail.extend_from_slice(&buffer.filled()[before..]);
        let executed = self.tail.windows(EXECUTE.len()).filter(|window| *window == EXECUTE).count();
        self.statements.fetch_add(executed, Ordering::SeqCst);
        let rest = self.tail.len().saturating_sub(EXECUTE.len() - 1);
        self.tail.drain(..rest);
        polled
    }
}

impl AsyncWrite for CountingStream {
    fn poll_write(
        mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.client).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.client).poll_shutdown(context)
    }
}

async fn forward(
    mut client: CountingStream, mut server: impl AsyncRead + AsyncWrite + Unpin, text: &[u8],
    failure: InjectedFailure, lost: Arc<AtomicBool>,
) {
    let mut bytes = vec![0; 1 << 16];
    let mut response = vec![0; 1 << 16];
    loop {
        tokio::select! {
            read = client.read(&mut bytes) => {
                let Ok(length @ 1..) = read else { return };
                let matches = bytes[..length].windows(text.len()).any(|window| window == text);
                if matches && !lost.swap(true, Ordering::SeqCst) {
                    if failure == InjectedFailure::ResponseLost {
                        server.write_all(&bytes[..length]).await.unwrap();
                        // PostgreSQL responds after it has executed the statement.
                        assert!(server.read(&mut response).await.unwrap() > 0);
                    }
                    return;
                }
                if lost.load(Ordering::SeqCst) {
                    // The failure was injected: forward everything.
                    server.write_all(&bytes[..length]).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
                server.write_all(&bytes[..length]).await.unwrap();
            }
            read = server.read(&mut response) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&response[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
