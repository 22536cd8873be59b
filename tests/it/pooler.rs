//! A pooler in transaction mode, as pgbouncer is one: it assigns a connection to PostgreSQL for
//! each transaction, and so loses what a client sets for its session.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::either::Either;

/// A message of PostgreSQL's protocol: its type and its content.
type Message = (u8, Vec<u8>);

/// A connection to PostgreSQL, and the names of the prepared statements that it has.
struct Backend {
    stream: Either<UnixStream, TcpStream>,
    prepared: HashSet<Vec<u8>>,
}

type Backends = Arc<Mutex<Vec<Arc<Mutex<Backend>>>>>;

/// A pooler before a database.
pub(crate) struct Pooler {
    /// The URL of the database behind it.
    pub(crate) url: String,
    backends: Backends,
}

impl Pooler {
    /// Closes its connections. No client may be connected.
    pub(crate) async fn close(self) {
        self.backends.lock().await.clear();
    }
}

/// Starts a pooler before a database. `keeps_prepared`: a client's prepared statements follow it to
/// another connection, as since pgbouncer 1.21.
pub(crate) async fn start(database: &PgConnectOptions, keeps_prepared: bool) -> Pooler {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut url = database.to_url_lossy();
    url.set_host(Some("127.0.0.1")).unwrap();
    url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    url.set_query(Some("sslmode=disable"));
    let (database, backends) = (database.clone(), Backends::default());
    let pooler = Pooler { url: url.into(), backends: Arc::clone(&backends) };
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((client, _)) = listener.accept().await else { return };
            client.set_nodelay(true).unwrap();
            let (database, backends) = (database.clone(), Arc::clone(&backends));
            let prefix = keeps_prepared.then(|| format!("client_{number}_"));
            tokio::spawn(async move {
                let mut client = Client { stream: client, prefix, prepared: HashMap::new() };
                // An error means that the client has disconnected.
                let _ = client.serve(&database, backends).await;
            });
        }
    });
    pooler
}

struct Client {
    stream: TcpStream,
    /// What makes the names of its prepared statements unique, if they follow it.
    prefix: Option<String>,
    /// Its prepared statements: the messages that create them, by their unique names.
    prepared: HashMap<Vec<u8>, Vec<u8>>,
}

impl Client {
    async fn serve(&mut self, database: &PgConnectOptions, backends: Backends) -> io::Result<()> {
        let backend = self.authenticate(database).await?;
        backends.lock().await.push(Arc::new(Mutex::new(backend)));
        loop {
            let message = read(&mut self.stream).await?;
            let mut backend = first_free(&backends).await;
            if let Err(error) = self.run_transaction(message, &mut backend).await {
                // The client has disconnected, and its transaction is still open.
                let used = OwnedMutexGuard::mutex(&backend);
                backends.lock().await.retain(|backend| !Arc::ptr_eq(backend, used));
                return Err(error);
            }
        }
    }

    /// Connects to PostgreSQL with the credentials of the client.
    async fn authenticate(&mut self, database: &PgConnectOptions) -> io::Result<Backend> {
        let mut stream = if let Some(directory) = database.get_socket() {
            let socket = directory.join(format!(".s.PGSQL.{}", database.get_port()));
            Either::Left(UnixStream::connect(socket).await?)
        } else {
            let address = (database.get_host(), database.get_port());
            Either::Right(TcpStream::connect(address).await?)
        };
        let length = self.stream.read_u32().await?;
        let mut startup = vec![0; length as usize - 4];
        self.stream.read_exact(&mut startup).await?;
        stream.write_u32(length).await?;
        stream.write_all(&startup).await?;
        loop {
            let (kind, content) = read(&mut stream).await?;
            self.stream.write_all(&encode(kind, &content)).await?;
            match (kind, content.get(..4)) {
                (b'Z', _) => return Ok(Backend { stream, prepared: HashSet::new() }),
                // PostgreSQL asks for a password or for the next step of SASL.
                (b'R', Some([0, 0, 0, 3 | 5 | 10 | 11])) => {
                    let (kind, content) = read(&mut self.stream).await?;
                    stream.write_all(&encode(kind, &content)).await?;
                }
                _ => {}
            }
        }
    }

    /// Forwards messages until no transaction is open.
    async fn run_transaction(
        &mut self, mut message: Message, backend: &mut Backend,
    ) -> io::Result<()> {
        // For each statement that is being prepared, whether the client has asked for it.
        let mut preparing = VecDeque::new();
        loop {
            let (kind, content) = self.with_unique_name(message);
            let name = name_in(kind, &content).filter(|name| !name.is_empty());
            if let Some(name) = name.map(<[u8]>::to_vec).filter(|_| self.prefix.is_some()) {
                if kind == b'P' {
                    self.prepared.insert(name.clone(), content.clone());
                    backend.prepared.insert(name);
                    preparing.push_back(true);
                } else if backend.prepared.insert(name.clone()) {
                    let parse = self.prepared.get(&name).expect("a prepared statement");
                    backend.stream.write_all(&encode(b'P', parse)).await?;
                    preparing.push_back(false);
                }
            }
            backend.stream.write_all(&encode(kind, &content)).await?;
            // After Sync, Query, CopyDone and CopyFail, PostgreSQL is ready for the next query.
            if b"SQcf".contains(&kind) {
                loop {
                    let (kind, content) = read(&mut backend.stream).await?;
                    let is_hidden = kind == b'1' && preparing.pop_front() == Some(false);
                    if !is_hidden {
                        self.stream.write_all(&encode(kind, &content)).await?;
                    }
                    match (kind, content.first()) {
                        (b'Z', Some(b'I')) => return Ok(()),
                        (b'Z' | b'G', _) => break,
                        _ => {}
                    }
                }
            }
            message = read(&mut self.stream).await?;
        }
    }

    /// The message with a name of its prepared statement that no other client has.
    fn with_unique_name(&self, (kind, content): Message) -> Message {
        let Some(prefix) = &self.prefix else { return (kind, content) };
        let Some(name) = name_in(kind, &content).filter(|name| !name.is_empty()) else {
            return (kind, content);
        };
        let at = name.as_ptr() as usize - content.as_ptr() as usize;
        let (before, rest) = content.split_at(at);
        (kind, [before, prefix.as_bytes(), rest].concat())
    }
}

/// The name of the prepared statement in a Parse, Bind, Describe or Close message.
fn name_in(kind: u8, content: &[u8]) -> Option<&[u8]> {
    let mut texts = content.split(|byte| *byte == 0);
    match (kind, content.first()) {
        (b'P', _) => texts.next(),
        // The first text is the name of the portal.
        (b'B', _) => texts.nth(1),
        (b'D' | b'C', Some(b'S')) => texts.next().and_then(|text| text.get(1..)),
        _ => None,
    }
}

async fn first_free(backends: &Backends) -> OwnedMutexGuard<Backend> {
    loop {
        for backend in backends.lock().await.iter() {
            if let Ok(backend) = Arc::clone(backend).try_lock_owned() {
                return backend;
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Message> {
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await?;
    let mut content = vec![0; length as usize - 4];
    stream.read_exact(&mut content).await?;
    Ok((kind, content))
}

fn encode(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len() + 4).unwrap();
    [&[kind], &length.to_be_bytes()[..], content].concat()
}
