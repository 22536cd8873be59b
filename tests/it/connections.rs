//! The life of a client connection.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use cmdb_associations::server::Limits;
use cmdb_associations::server::tls::Tls;
use serde_json::Value;
use sqlx::PgPool;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::app::{PATH, TestApp, batch};
use crate::binary::Program;
use crate::operations::{generate_certificate, record_metrics, value};
use crate::socket::{Client, LIMITS, open, open_tls};

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_client_that_closes_its_sending_side_gets_its_answers(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let address = open(app.router.clone(), LIMITS).await;
    for n in 1..4 {
        let mut client = Client::connect(address).await.unwrap();
        client.post(batch("bk_switch_default_host", &[(n, n)])).await.unwrap();
        client.close_sending().await.unwrap();
        assert_eq!(client.answer().await.unwrap().json()["code"], 0);
        assert!(client.answer().await.is_none(), "the server closes the connection");
    }
}

/// A TLS connection to a server of its own.
async fn tls_client(app: &TestApp, limits: Limits) -> Client<TlsStream<TcpStream>> {
    let dir = tempfile::tempdir().unwrap();
    let files = generate_certificate(dir.path());
    let tls = Tls::new(files.certificate.clone(), files.key).unwrap();
    let address = open_tls(app.router.clone(), limits, Some(tls.acceptor())).await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.certificate).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    Client(connector.connect("localhost".try_into().unwrap(), stream).await.unwrap())
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_tls_client_that_closes_its_sending_side_gets_its_answer(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut client = tls_client(&app, LIMITS).await;
    client.post(batch("bk_switch_default_host", &[(1, 1)])).await.unwrap();
    // Sends `close_notify`, then closes the sending side of the socket.
    client.close_sending().await.unwrap();
    assert_eq!(client.answer().await.unwrap().json()["code"], 0);
    assert!(client.answer().await.is_none(), "the server closes the connection");
}

/// Each byte that such a client reads would otherwise keep its connection open.
#[tokio::test]
async fn a_client_that_reads_an_answer_too_slowly_is_disconnected() {
    let router = Router::new().route("/", get(async || vec![b'x'; 64 << 20]));
    let limits = Limits { idle_timeout: Duration::from_millis(300), ..LIMITS };
    let mut client = Client::connect(open(router, limits).await).await.unwrap();
    client.get("/").await.unwrap();
    let (started, mut read) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(2) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        read += client.0.read(&mut [0; 64]).await.unwrap_or(0);
    }
    // What the sockets have buffered arrives. The rest does not.
    let mut rest = Vec::new();
    let _ = client.0.read_to_end(&mut rest).await;
    assert!(read + rest.len() < 64 << 20, "the whole answer was sent");
}

/// hyper may take a body that nobody reads for the next request.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_get_request_with_a_body_is_the_last_one_on_its_connection(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut client = Client::connect(open(app.router.clone(), LIMITS).await).await.unwrap();
    let request = "GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc";
    client.send(request.as_bytes()).await.unwrap();
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, answer.closes, answer.keep_alive), (200, true, None));
    assert!(client.answer().await.is_none(), "the server closes the connection");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_idle_tls_connection_is_closed_with_a_notice(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let limits = Limits { idle_timeout: Duration::from_millis(200), ..LIMITS };
    let mut client = tls_client(&app, limits).await;
    client.get("/healthz").await.unwrap();
    assert_eq!(client.answer().await.unwrap().status, 200);
    // Without `close_notify`, this would be an error.
    assert_eq!(client.0.read(&mut [0]).await.unwrap(), 0);
}

/// Heads of requests that are not valid HTTP, with the status of the answer and the kind of defect.
/// Without a status, the connection is closed without an answer.
const MALFORMED: [(&str, Option<u16>, &str); 22] = [
    ("\x16\x03\x01\x02\r\n\r\n", Some(400), "method"),
    ("GET /a\x01b HTTP/1.1\r\nhost: x\r\n\r\n", Some(400), "uri"),
    ("GET / HTTP/3.0\r\nhost: x\r\n\r\n", Some(400), "version"),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None, "version"),
    ("GET / HTTP/1.1\r\nhost: x\r\nno colon\r\n\r\n", Some(400), "header"),
    ("GET / HTTP/1.1\r\nhost: x\r\nname : space\r\n\r\n", Some(400), "header"),
    ("GET / HTTP/1.1\r\nhost: x\r\na: b\r\n folded\r\n\r\n", Some(400), "header"),
    ("GET / HTTP/1.1\r\n\r\n", Some(400), "host"),
    ("GET http://x/ HTTP/1.1\r\n\r\n", Some(400), "host"),
    ("GET / HTTP/1.1\r\nhost: x\r\nhost: x\r\n\r\n", Some(400), "host"),
    ("GET / HTTP/1.0\r\nhost: x\r\nhost: y\r\n\r\n", Some(400), "host"),
    ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n", Some(400), "framing"),
    ("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: +1\r\n\r\na", Some(400), "framing"),
    (
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na",
        Some(400),
        "framing",
    ),
    (
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n\
         0\r\n\r\n",
        Some(400),
        "framing",
    ),
    (
        "\r\nPOST / HTTP/1.1\nhost: x\ntransfer-encoding: chunked\nContent-Length: 5\n\n\
         0\r\n\r\n",
        Some(400),
        "framing",
    ),
    (
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        Some(400),
        "framing",
    ),
    (
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        Some(400),
        "framing",
    ),
    (
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\
         transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        Some(400),
        "framing",
    ),
    ("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: identity\r\n\r\n", Some(400), "framing"),
    ("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n", Some(400), "framing"),
    ("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Some(400), "framing"),
];

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_request_that_is_not_valid_http_is_answered_without_a_body_counted_and_logged(
    pool: PgPool,
) {
    let server = Program::on(&pool).serve(&["--log-format", "json"]);
    let address = server.address.parse().unwrap();
    let many_headers = format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "a:b\r\n".repeat(2_000));
    let too_many = (&*many_headers, Some(431), "head_too_large");
    let requests = || MALFORMED.into_iter().chain([too_many]);
    for (head, status, _) in requests() {
        let mut client = Client::connect(address).await.unwrap();
        client.send(head.as_bytes()).await.unwrap();
        let answer = client.answer().await;
        let found = answer.as_ref().map(|answer| (answer.status, answer.closes, &*answer.body));
        assert_eq!(found, status.map(|status| (status, true, "")), "{head:.100}");
        assert!(client.answer().await.is_none(), "{head:.100}");
    }
    // A connection is closed a little before its defect is counted.
    let is_counted = async |kind: &str| {
        let metrics = reqwest::get(server.url("/metrics")).await.unwrap().text().await.unwrap();
        let count = value(&metrics, &format!(r#"cmdb_malformed_requests_total{{kind="{kind}"}}"#));
        let expected = requests().filter(|(_, _, other)| *other == kind).count();
        count.to_string() == expected.to_string()
    };
    for (_, _, kind) in requests() {
        let started = Instant::now();
        while !is_counted(kind).await {
            assert!(started.elapsed() < Duration::from_secs(20), "{kind}");
        }
    }
    server.signal("TERM");
    let (_, log) = tokio::task::spawn_blocking(|| server.wait()).await.unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut logged: Vec<_> = lines
        .filter(|line| line["message"] == "malformed request" && line["peer"] == "127.0.0.1")
        .map(|line| line["kind"].as_str().unwrap().to_owned())
        .collect();
    let mut expected: Vec<_> = requests().map(|(_, _, kind)| kind).collect();
    logged.sort_unstable();
    expected.sort_unstable();
    assert_eq!(logged, expected, "{log}");
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn unusual_requests_that_are_valid_http_are_served(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let address = open(app.router.clone(), LIMITS).await;
    for head in [
        "GET /healthz HTTP/1.0\r\n\r\n",
        "GET http://x/healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost:\r\n\r\n",
        "\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: x\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
         12\r\n\ncontent-length: 1\n\r\n0\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\ncontent-length: 0\r\n\r\n",
    ] {
        let mut client = Client::connect(address).await.unwrap();
        client.send(head.as_bytes()).await.unwrap();
        assert_eq!(client.answer().await.unwrap().status, 200, "{head}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_with_too_many_headers_is_refused_with_an_error_code(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let address = open(app.router.clone(), LIMITS).await;
    let body = batch("bk_switch_default_host", &[(1, 1)]).to_string();
    let mut client = Client::connect(address).await.unwrap();
    for (others, status, message) in [
        (98, 200, "APP Code [bk_app_code] and APP Secret [bk_app_secret] cannot be empty"),
        (99, 431, "Parameters error, the request has more than 100 headers"),
        (990, 431, "Parameters error, the request has more than 100 headers"),
    ] {
        let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\n{}", "a: b\r\n".repeat(others));
        let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        client.send(request.as_bytes()).await.unwrap();
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.status, answer.closes), (status, false));
        assert_eq!(answer.json()["message"], message);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_idle_connection_stays_open_for_the_time_that_its_answers_announce(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let of = |head: Duration, idle: Duration| {
        let limits = Limits { head_timeout: head, idle_timeout: idle, ..LIMITS };
        open(app.router.clone(), limits)
    };
    let (short, long) = (Duration::from_millis(200), Duration::from_hours(1));
    let mut client = Client::connect(of(short, long).await).await.unwrap();
    client.get("/healthz").await.unwrap();
    assert_eq!(client.answer().await.unwrap().keep_alive.unwrap(), "timeout=3600");
    tokio::time::sleep(short * 2).await;
    client.get("/healthz").await.unwrap();
    assert_eq!(client.answer().await.unwrap().status, 200);
    // A head that has begun has less time.
    client.send(b"GET /hea").await.unwrap();
    assert!(client.answer().await.is_none());

    let mut client = Client::connect(of(long, short).await).await.unwrap();
    for _ in 0..2 {
        client.get("/healthz").await.unwrap();
        assert_eq!(client.answer().await.unwrap().status, 200);
    }
    assert!(client.answer().await.is_none());

    // The beginning of a head may arrive with the request before.
    let mut client = Client::connect(of(short, short).await).await.unwrap();
    let pipelined = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /hea";
    client.send(pipelined).await.unwrap();
    assert_eq!(client.answer().await.unwrap().status, 200);
    assert!(client.answer().await.is_none());
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn only_answers_that_keep_the_connection_open_announce_the_idle_time(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let address = open(app.router.clone(), LIMITS).await;
    for (head, keep_alive) in [
        ("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", Some("timeout=75")),
        ("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: a, Close\r\n\r\n", None),
        ("GET /healthz HTTP/1.0\r\n\r\n", None),
        ("GET /healthz HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", Some("timeout=75")),
    ] {
        let mut client = Client::connect(address).await.unwrap();
        client.send(head.as_bytes()).await.unwrap();
        assert_eq!(client.answer().await.unwrap().keep_alive.as_deref(), keep_alive, "{head}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_connection_that_has_been_idle_longest_is_closed_for_a_new_one(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let limits = Limits { connections: 2, connections_per_peer: 2, ..LIMITS };
    let address = open(app.router.clone(), limits).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(address).await.unwrap();
        client.get("/healthz").await.unwrap();
        client.answer().await.unwrap();
        clients.push(client);
    }
    clients[0].get("/healthz").await.unwrap();
    clients[0].answer().await.unwrap();
    let mut new = Client::connect(address).await.unwrap();
    // On a connection beyond the limit, this would be refused with 503.
    new.post(batch("bk_switch_default_host", &[(1, 1)])).await.unwrap();
    assert_eq!(new.answer().await.unwrap().status, 200);
    assert!(clients[1].answer().await.is_none());
    clients[0].get("/healthz").await.unwrap();
    assert_eq!(clients[0].answer().await.unwrap().status, 200);
}

/// The addresses of the peer with too many connections, and of another one.
const PEERS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3))];

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_peer_with_very_many_connections_takes_none_from_others(pool: PgPool) {
    let (_guard, metrics) = record_metrics();
    let app = TestApp::new(pool).await;
    let limits = Limits { connections: 4, connections_per_peer: 2, ..LIMITS };
    let address = open(app.router.clone(), limits).await;
    let mut flood = Vec::new();
    for _ in 0..20 {
        let mut client = Client::connect_from(PEERS[0], address).await.unwrap();
        let _ = client.send(b"GET /").await;
        flood.push(client);
    }
    for n in 1..4 {
        let mut other = Client::connect_from(PEERS[1], address).await.unwrap();
        other.post(batch("bk_switch_default_host", &[(n, n)])).await.unwrap();
        assert_eq!(other.answer().await.unwrap().json()["code"], 0);
    }
    // Two connections are served, two would be answered with 503, the others are closed.
    assert!(value(&metrics.render(), "cmdb_connections_refused_total") > 0.5);
    for client in &mut flood[4..] {
        assert!(client.0.read_u8().await.is_err());
    }
    drop(flood);
    assert_eq!(status_when_served(PEERS[0], address).await, 200);
}

/// Sends batches from an address until one is not refused with 503.
async fn status_when_served(source: IpAddr, address: SocketAddr) -> u16 {
    loop {
        let mut client = Client::connect_from(source, address).await.unwrap();
        let sent = client.post(batch("bk_switch_default_host", &[(9, 9)])).await;
        if sent.is_ok()
            && let Some(answer) = client.answer().await
            && answer.status != 503
        {
            return answer.status;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_limit_of_a_peer_the_proxies_and_the_idle_time_are_settings(pool: PgPool) {
    let [proxy, peer] = PEERS;
    let settings = [
        ("CMDB_CONNECTIONS_PER_PEER", "1"),
        ("CMDB_PROXIES", "192.0.2.0/24, ::ffff:127.0.0.2"),
        ("CMDB_IDLE_TIMEOUT", "90"),
    ];
    let server = Program::on(&pool).serve_in(&settings, &[]);
    let address = server.address.parse().unwrap();
    for (source, keep_alive) in [(proxy, Some("timeout=90")), (peer, None)] {
        let mut first = Client::connect_from(source, address).await.unwrap();
        first.send(b"GET /").await.unwrap();
        let mut second = Client::connect_from(source, address).await.unwrap();
        second.get("/healthz").await.unwrap();
        let answer = second.answer().await.unwrap();
        assert_eq!(answer.keep_alive.as_deref(), keep_alive, "{source}");
        assert_eq!(answer.closes, keep_alive.is_none());
    }
}
