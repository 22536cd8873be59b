//! `healthcheck`: asks the running server whether it is ready.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use reqwest::{Client, Error};

use super::Outcome;
use crate::config::Listen;
use crate::telemetry::error_chain;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Requests `/readyz` from the server that has these settings on this machine.
pub(super) async fn healthcheck(listen: &Listen) -> anyhow::Result<Outcome> {
    let (scheme, address) = match (listen.ops_listen, &listen.tls_certificate) {
        (Some(address), _) => ("http", address),
        (None, Some(_)) => ("https", listen.listen),
        (None, None) => ("http", listen.listen),
    };
    // A server that listens on all addresses is asked at the loopback address.
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let address = SocketAddr::new(ip, address.port());
    // The certificate does not name the IP address. The request contains no secret.
    let client = Client::builder().tls_danger_accept_invalid_certs(true).no_proxy();
    let client = client.timeout(TIMEOUT).build()?;
    let ready = async {
        let response = client.get(format!("{scheme}://{address}/readyz")).send().await?;
        Ok::<_, Error>((response.status().is_success(), response.text().await?))
    };
    let problem = match ready.await {
        Ok((true, _)) => return Ok(Outcome::Success),
        Ok((false, reason)) => format!("is not ready: {}", reason.trim_end()),
        Err(error) => format!("does not answer: {}", error_chain(&error.without_url())),
    };
    writeln!(io::stderr(), "{address} {problem}")?;
    Ok(Outcome::Negative)
}
