//! TLS for clients. The certificate is reloaded when its files change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tracing::{info, warn};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How often the files are checked for a renewed certificate.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum Error {
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] io::Error),
    #[error("{0} contains no certificate: it should begin with -----BEGIN CERTIFICATE-----")]
    NoCertificate(PathBuf),
    #[error("{0} contains no private key: it should begin with -----BEGIN PRIVATE KEY-----")]
    NoKey(PathBuf),
    #[error("the certificate and the private key do not match, or their kind is not supported")]
    Unusable(#[from] rustls::Error),
}

/// TLS with a certificate that can be reloaded.
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    acceptor: watch::Sender<TlsAcceptor>,
}

impl Tls {
    /// Loads a certificate, followed by its intermediate certificates, and its private key from
    /// files in PEM.
    pub fn new(certificate: PathBuf, key: PathBuf) -> Result<Self, Error> {
        let (chain, acceptor) = load(&certificate, &key)?;
        Ok(Self { certificate, key, chain, acceptor: watch::Sender::new(acceptor) })
    }

    /// Receives acceptors, each with the certificate that is current.
    pub fn acceptor(&self) -> watch::Receiver<TlsAcceptor> {
        self.acceptor.subscribe()
    }

    /// Reloads the certificate at this interval, and never returns. While the files cannot be used,
    /// the current certificate stays.
    pub async fn reload_every(mut self, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            match load(&self.certificate, &self.key) {
                Ok((chain, acceptor)) if chain != self.chain => {
                    self.chain = chain;
                    self.acceptor.send_replace(acceptor);
                    info!("reloaded the TLS certificate");
                }
                Ok(_) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    warn!(error, "cannot reload the TLS certificate; the current one stays in use");
                }
            }
        }
    }
}

/// Reads and checks the files, and sets the gauge of the certificate's expiry.
fn load(
    certificate: &Path, key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, TlsAcceptor), Error> {
    let read =
        |path: &Path| std::fs::read(path).map_err(|error| Error::Read(path.to_owned(), error));
    let no_certificate = || Error::NoCertificate(certificate.to_owned());
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<_, _>>()
        .or(Err(no_certificate()))?;
    let first = chain.first().ok_or_else(no_certificate)?;
    let (_, parsed) = X509Certificate::from_der(first).or(Err(no_certificate()))?;
    let expiry = parsed.validity().not_after.timestamp();
    let key = PrivateKeyDer::from_pem_slice(&read(key)?).or(Err(Error::NoKey(key.to_owned())))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain.clone(), key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
    gauge!("cmdb_tls_certificate_expiry_seconds").set(expiry as f64);
    Ok((chain, TlsAcceptor::from(Arc::new(config))))
}
