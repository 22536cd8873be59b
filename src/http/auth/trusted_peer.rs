//! The identity headers that a gateway sends to the CMDB, from the networks that are trusted.

use axum::http::request::Parts;
use ipnet::IpNet;

use super::{Credentials, Proof};
use crate::domain::error::RequestError;
use crate::http::api::{ClientAddr, first_key};

/// Reads the application and the user from the headers of a trusted peer.
pub(super) fn find(trusted: &[IpNet], head: &Parts) -> Result<Credentials, RequestError> {
    // A socket for IPv4 and IPv6 reports IPv4 peers as mapped IPv6 addresses.
    let peer = head.extensions.get().map(|ClientAddr(address)| address.to_canonical());
    if !peer.is_some_and(|address| trusted.iter().any(|network| network.contains(&address))) {
        return Err(RequestError::InvalidJwt("[X-Bkapi-JWT] is missing"));
    }
    let app_code = first_key(&head.headers, &["x-bkcmdb-app-code", "bk-app-code"]);
    let user = first_key(&head.headers, &["x-bkcmdb-user", "bk-username", "bk_user"]);
    let proof = Proof::TrustedPeer { user };
    Ok(Credentials { app_code: app_code.unwrap_or_default(), proof })
}
