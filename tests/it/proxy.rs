//! The way to the database, on which things get lost.

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

/// What becomes of a statement that says a certain word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives, and what the server says to it does not: the connection is cut.
    AnswerLost,
    /// It does not arrive: the connection is cut.
    StatementLost,
}

/// A way to the database of a test.
pub(crate) struct Proxy {
    /// How to connect by it.
    pub(crate) options: PgConnectOptions,
    /// On connections that are open when this is set, nothing moves any more, in either direction.
    stalled: watch::Sender<bool>,
    lost: Arc<AtomicBool>,
    statements: Arc<AtomicUsize>,
}

/// The message that carries out a statement: any number of rows of the portal without a name.
const EXECUTE: &[u8] = b"E\0\0\0\x09\0\0\0\0\0";

impl Proxy {
    /// Everything gets through.
    pub(crate) async fn to(database: &PgConnectOptions) -> Self {
        Self::losing(database, b"nobody says this", Fate::StatementLost).await
    }

    /// Everything gets through but the first statement that says `word`.
    pub(crate) async fn losing(
        database: &PgConnectOptions,
        word: &'static [u8],
        fate: Fate,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut by_proxy = database.to_url_lossy();
        by_proxy.set_host(Some("127.0.0.1")).unwrap();
        by_proxy.set_port(Some(port)).unwrap();
        by_proxy.set_query(Some("sslmode=disable"));
        let (stalled, _) = watch::channel(false);
        let lost = Arc::new(AtomicBool::new(false));
        let options = database_at(by_proxy.as_str()).unwrap();
        let proxy = Self { options, stalled, lost, statements: Arc::default() };
        let (database, stalled, lost) =
            (database.clone(), proxy.stalled.clone(), Arc::clone(&proxy.lost));
        let statements = Arc::clone(&proxy.statements);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A connection that is opened while others stall gets through.
                let mut stalls = stalled.subscribe();
                let (lost, database) = (Arc::clone(&lost), database.clone());
                let client =
                    Counted { client, tail: Vec::new(), statements: Arc::clone(&statements) };
                tokio::spawn(async move {
                    let carried = async {
                        if let Some(folder) = database.get_socket() {
                            let socket = folder.join(format!(".s.PGSQL.{}", database.get_port()));
                            let server = UnixStream::connect(socket).await.unwrap();
                            carry(client, server, word, fate, lost).await;
                        } else {
                            let address = (database.get_host(), database.get_port());
                            let server = TcpStream::connect(address).await.unwrap();
                            carry(client, server, word, fate, lost).await;
                        }
                    };
                    tokio::pin!(carried);
                    tokio::select! {
                        () = &mut carried => {}
                        _ = stalls.changed() => std::future::pending().await,
                    }
                });
            }
        });
        proxy
    }

    /// On the connections that are open now, nothing moves any more.
    pub(crate) fn stall(&self) {
        self.stalled.send_replace(true);
    }

    /// How many statements were carried out so far.
    pub(crate) fn statements(&self) -> usize {
        self.statements.load(Ordering::SeqCst)
    }

    /// Whether the word was said.
    pub(crate) fn has_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }
}

/// A client whose statements are counted.
struct Counted {
    client: TcpStream,
    /// The end of what it said last: a message may come in pieces.
    tail: Vec<u8>,
    statements: Arc<AtomicUsize>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.client).poll_read(context, buffer);
        self.tail.extend_from_slice(&buffer.filled()[before..]);
        let said = self.tail.windows(EXECUTE.len()).filter(|window| *window == EXECUTE).count();
        self.statements.fetch_add(said, Ordering::SeqCst);
        let rest = self.tail.len().saturating_sub(EXECUTE.len() - 1);
        self.tail.drain(..rest);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
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

async fn carry(
    mut client: Counted,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
    word: &[u8],
    fate: Fate,
    lost: Arc<AtomicBool>,
) {
    let mut bytes = vec![0; 1 << 16];
    let mut answer = vec![0; 1 << 16];
    loop {
        tokio::select! {
            read = client.read(&mut bytes) => {
                let Ok(length @ 1..) = read else { return };
                let says = bytes[..length].windows(word.len()).any(|window| window == word);
                if says && !lost.swap(true, Ordering::SeqCst) {
                    if fate == Fate::AnswerLost {
                        server.write_all(&bytes[..length]).await.unwrap();
                        // It has done what it was told when it answers.
                        assert!(server.read(&mut answer).await.unwrap() > 0);
                    }
                    return;
                }
                if lost.load(Ordering::SeqCst) {
                    // Nothing more is looked for.
                    server.write_all(&bytes[..length]).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
                server.write_all(&bytes[..length]).await.unwrap();
            }
            read = server.read(&mut answer) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&answer[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}
