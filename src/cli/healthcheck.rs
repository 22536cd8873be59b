//! `healthcheck`: asks the running server whether it is ready.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use reqwest::{Client, Error};

use super::Outcome;
use crate::config::Listen;
use crate::telemetry::error_chain;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Requests `/readyz` from the server on this machine that listens at these addresses.
pub(super) async fn healthcheck(listen: &Listen) -> anyhow::Result<Outcome> {
    let has_tls = listen.ops_listen.is_none() && listen.tls_certificate.is_some();
    let scheme = if has_tls { "https" } else { "http" };
    let mut address = listen.ops_listen.unwrap_or(listen.listen);
    // A server that listens on all addresses is asked at the loopback address.
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
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
