//! The life of a client connection.

use std::sync::Arc;

use cmdb_associations::server::tls::Tls;
use serde_json::Value;
use sqlx::PgPool;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::app::{PATH, TestApp, batch};
use crate::binary::Program;
use crate::operations::{generate_certificate, value};
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

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_tls_client_that_closes_its_sending_side_gets_its_answer(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let dir = tempfile::tempdir().unwrap();
    let files = generate_certificate(dir.path());
    let tls = Tls::new(files.certificate.clone(), files.key).unwrap();
    let address = open_tls(app.router.clone(), LIMITS, Some(tls.acceptor())).await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&files.certificate).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let connecting = TlsConnector::from(Arc::new(config));
    let stream = connecting.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    let mut client = Client(stream);
    client.post(batch("bk_switch_default_host", &[(1, 1)])).await.unwrap();
    // Sends `close_notify`, then closes the sending side of the socket.
    client.close_sending().await.unwrap();
    assert_eq!(client.answer().await.unwrap().json()["code"], 0);
    assert!(client.answer().await.is_none(), "the server closes the connection");
}

/// Heads of requests that are not valid HTTP, with the status of the answer and the kind of defect.
/// Without a status, the connection is closed without an answer.
const MALFORMED: [(&str, Option<u16>, &str); 20] = [
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
    let metrics = reqwest::get(server.url("/metrics")).await.unwrap().text().await.unwrap();
    for (_, _, kind) in requests() {
        let count = value(&metrics, &format!(r#"cmdb_malformed_requests_total{{kind="{kind}"}}"#));
        let expected = requests().filter(|(_, _, other)| *other == kind).count();
        assert_eq!(count.to_string(), expected.to_string(), "{kind}");
    }
    server.signal("TERM");
    let (_, log) = tokio::task::spawn_blocking(|| server.wait()).await.unwrap();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines: Vec<_> = lines.filter(|line| line["message"] == "malformed request").collect();
    assert_eq!(lines.len(), requests().count(), "{log}");
    for (line, (_, _, kind)) in lines.iter().zip(requests()) {
        assert_eq!((&line["peer"], &line["kind"]), (&"127.0.0.1".into(), &kind.into()), "{line}");
    }
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
