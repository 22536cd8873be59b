//! TLS for clients, with a certificate that is renewed while it serves.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{info, warn};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How often it is looked for a renewed certificate.
pub const RENEWAL: Duration = Duration::from_secs(10);

/// Where certificate and key are.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate and those between it and its root, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// Why there can be no TLS with these files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    /// The first holds no certificate.
    #[error("{0} holds no certificate: it should begin with -----BEGIN CERTIFICATE-----")]
    NoCertificate(PathBuf),
    /// The second holds no key.
    #[error("{0} holds no private key: it should begin with -----BEGIN PRIVATE KEY-----")]
    NoKey(PathBuf),
    /// They do not belong together, or are of a kind that is not supported.
    #[error("certificate and key are of no use")]
    Unusable(#[from] rustls::Error),
}

/// TLS with the certificate of the moment.
pub struct Tls {
    files: Files,
    read: Read,
    current: watch::Sender<Arc<CertifiedKey>>,
    acceptor: TlsAcceptor,
}

/// What the files hold.
type Read = (Vec<u8>, Vec<u8>);

#[derive(Debug)]
struct Current(watch::Receiver<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.borrow()))
    }
}

impl Tls {
    /// TLS with what these files hold.
    pub fn new(files: Files) -> Result<Self, Error> {
        let read = read(&files)?;
        let (current, watched) = watch::channel(Arc::new(parse(&files, &read)?));
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(Current(watched)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { files, read, current, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// What turns connections into encrypted ones, with the certificate of the moment.
    pub fn acceptor(&self) -> Acceptor {
        Acceptor(self.acceptor.clone())
    }

    /// Looks for a renewed certificate now and then, for ever. Until there is one that is of use, the last one stays.
    pub async fn renew(mut self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            if let Err(error) = self.look() {
                let error = &error as &dyn std::error::Error;
                warn!(error, "the TLS certificate was not renewed");
            }
        }
    }

    fn look(&mut self) -> Result<(), Error> {
        let read = read(&self.files)?;
        if read != self.read {
            self.current.send_replace(Arc::new(parse(&self.files, &read)?));
            self.read = read;
            info!("the TLS certificate was renewed");
        }
        Ok(())
    }
}

/// Encrypts connections.
#[derive(Clone)]
pub struct Acceptor(TlsAcceptor);

impl Acceptor {
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

fn read(Files { certificate, key }: &Files) -> Result<Read, Error> {
    let read =
        |path: &Path| std::fs::read(path).map_err(|error| Error::Read(path.to_owned(), error));
    Ok((read(certificate)?, read(key)?))
}

fn parse(files: &Files, (certificate, key): &Read) -> Result<CertifiedKey, Error> {
    let no_certificate = || Error::NoCertificate(files.certificate.clone());
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .or(Err(no_certificate()))?;
    let first = chain.first().ok_or_else(no_certificate)?;
    let (_, own) = X509Certificate::from_der(first).or(Err(no_certificate()))?;
    let expiry = own.validity().not_after.timestamp();
    let key = PrivateKeyDer::from_pem_slice(key).or(Err(Error::NoKey(files.key.clone())))?;
    let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())?;
    #[expect(clippy::cast_precision_loss, reason = "a date")]
    gauge!("cmdb_tls_certificate_expiry_seconds").set(expiry as f64);
    Ok(certified)
}
