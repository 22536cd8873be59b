//! The identity headers that a gateway sends to the CMDB, from the networks that are trusted.

use std::net::IpAddr;

use axum::http::request::Parts;
use ipnet::IpNet;

use super::{Credentials, Proof, require_printable};
use crate::domain::error::RequestError;
use crate::http::api::{ClientAddr, first_key};

/// Reads the application and the user from the headers of a trusted peer.
pub(super) fn find(trusted: &[IpNet], head: &Parts) -> Result<Credentials, RequestError> {
    // A socket for IPv4 and IPv6 reports IPv4 peers as mapped IPv6 addresses.
    let peer = head.extensions.get().map(|ClientAddr(address)| address.to_canonical());
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let peer = peer.filter(is_trusted).ok_or(RequestError::UntrustedPeer(peer))?;
    // The newer ESB sends `Bk-Username` and `Bk-App-Code` beside `BK_USER`. If only that one is
    // missing, a proxy has dropped all headers with underscores, the tenant's among them.
    let has = |name| head.headers.contains_key(name);
    let has_hyphens_only = has("bk-username") || has("bk-app-code") || !has("x-bkcmdb-user");
    if !has("bk_user") && has_hyphens_only {
        return Err(RequestError::UserHeaderMissing);
    }
    let app_code = first_key(&head.headers, &["x-bkcmdb-app-code", "bk-app-code"])?;
    let user = first_key(&head.headers, &["x-bkcmdb-user", "bk-username", "bk_user"])?;
    app_code.iter().chain(&user).try_for_each(|name| require_printable(name))?;
    let proof = Proof::TrustedPeer { peer, user };
    Ok(Credentials { app_code: app_code.unwrap_or_default(), proof })
}
