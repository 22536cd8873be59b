//! The life of a client connection.

use std::sync::Arc;

use cmdb_associations::server::tls::Tls;
use sqlx::PgPool;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::app::{TestApp, batch};
use crate::operations::generate_certificate;
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
