//! The two doors: where requests of the gateway's clients come in, and where a gateway forwards them to.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, Uri};
use ipnet::IpNet;
use uuid::Uuid;

use super::body::Fields;
use super::{credentials, language};
use crate::domain::caller::Credentials;
use crate::domain::error::RequestError;
use crate::domain::language::Language;

/// Which door a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// The seed's.
    Gateway,
    /// The original CMDB's own.
    Cmdb,
}

/// The address that a request came from.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddr(pub IpAddr);

/// Whom the doors believe.
#[derive(Debug, Clone, Default)]
pub struct TrustedSources {
    /// Whether there is a gateway whose tokens can be verified.
    pub gateway: bool,
    /// Peers whose word for who is calling is taken at the CMDB door.
    pub peers: Vec<IpNet>,
}

impl TrustedSources {
    /// Whether the CMDB door is open: somebody can get in by it.
    pub(super) fn serves_cmdb_api(&self) -> bool {
        self.gateway || !self.peers.is_empty()
    }

    fn is_trusted(&self, peer: Option<ClientAddr>) -> bool {
        // An IPv4 peer of a socket for both comes as an IPv6 address.
        let address = peer.map(|ClientAddr(address)| address.to_canonical());
        address.is_some_and(|address| self.peers.iter().any(|net| net.contains(&address)))
    }
}

impl Api {
    /// The language that the caller reads.
    pub(super) fn language(self, headers: &HeaderMap) -> Language {
        match self {
            Self::Gateway => language::at_gateway(headers),
            Self::Cmdb => language::at_cmdb(headers),
        }
    }

    /// The request's id: a new one, or at the CMDB door the gateway's.
    pub(super) fn request_id(self, headers: &HeaderMap) -> Arc<str> {
        let given = ["x-request-id", "x-bkapi-request-id"].iter().find_map(|name| {
            let id = headers.get(*name)?.to_str().ok()?;
            let is_id = (1..=64).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
            is_id.then(|| Arc::from(id))
        });
        match (self, given) {
            (Self::Cmdb, Some(id)) => id,
            _ => Uuid::new_v4().simple().to_string().into(),
        }
    }

    /// Where the request says who sends it.
    pub(super) fn credentials(
        self,
        trust: &TrustedSources,
        peer: Option<ClientAddr>,
        headers: &HeaderMap,
        uri: &Uri,
        body: &Fields<'_>,
    ) -> Result<Credentials, RequestError> {
        let token = headers.get("x-bkapi-jwt").filter(|_| trust.gateway);
        if let Some(token) = token {
            return Ok(Credentials::Gateway(
                String::from_utf8_lossy(token.as_bytes()).into_owned(),
            ));
        }
        match self {
            Self::Gateway => credentials::own(headers, uri, body).map(Credentials::Own),
            Self::Cmdb if trust.is_trusted(peer) => {
                let app = first(headers, &["x-bkcmdb-app-code", "bk-app-code"]);
                let user = first(headers, &["x-bkcmdb-user", "bk-username", "bk_user"]);
                Ok(Credentials::ClientAddr(app, user))
            }
            Self::Cmdb => Ok(Credentials::Unsigned),
        }
    }

    /// The account that the headers name, which at the CMDB door counts more than the body's.
    pub(super) fn account(self, headers: &HeaderMap) -> Option<String> {
        let names = [
            "x-bkcmdb-supplier-account",
            "x-bkapi-supplier-account",
            "http_bk_supplier_account",
            "http_blueking_supplier_id",
        ];
        match self {
            Self::Gateway => None,
            Self::Cmdb => first(headers, &names),
        }
    }
}

/// The first of these headers that is there and not empty. One that is no text is as no name can be.
fn first(headers: &HeaderMap, names: &[&str]) -> Option<String> {
    let values = names.iter().filter_map(|name| headers.get(*name));
    let value = values.map(HeaderValue::as_bytes).find(|value| !value.is_empty())?;
    Some(String::from_utf8(value.to_vec()).unwrap_or_else(|_| "\0".to_owned()))
}
