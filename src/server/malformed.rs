//! Requests that are not valid HTTP: those that hyper refuses, and what it does not check.

use std::fmt::Display;
use std::net::IpAddr;

use axum::http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use axum::http::{HeaderValue, Request, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use metrics::counter;
use tracing::info;

use crate::telemetry::metrics::Malformed;

/// What is wrong with the head of a request that hyper accepts (RFC 9112, sections 3.2 and 6.1).
///
/// `has_content_length` is of the head as it arrived, because hyper removes `Content-Length` if
/// there is also `Transfer-Encoding`. It is not known for a pipelined request: for that, hyper
/// ignores `Content-Length` and closes the connection after the response.
pub(super) fn defect<B>(
    request: &Request<B>, has_content_length: bool,
) -> Option<(Malformed, &'static str)> {
    match (request.headers().get_all(HOST).iter().count(), request.version()) {
        (1, _) | (0, Version::HTTP_10) => {}
        (0, _) => return Some((Malformed::Host, "no Host header")),
        _ => return Some((Malformed::Host, "several Host headers")),
    }
    let mut codings = request.headers().get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    match (codings.next(), codings.next()) {
        (None, _) => None,
        (Some(_), _) if has_content_length => {
            Some((Malformed::Framing, "both Content-Length and Transfer-Encoding"))
        }
        (Some(coding), None) if is_chunked(coding) => None,
        _ => Some((Malformed::Framing, "a transfer coding other than chunked")),
    }
}

/// What hyper refused, if a request was malformed. Its error type has few public kinds, but fixed
/// texts.
pub(super) fn kind_of(error: &hyper::Error) -> Option<Malformed> {
    let kinds = [
        ("method", Malformed::Method),
        ("URI", Malformed::Uri),
        ("version", Malformed::Version),
        ("too large", Malformed::HeadTooLarge),
        ("content-length", Malformed::Framing),
        ("transfer-encoding", Malformed::Framing),
        ("header", Malformed::Header),
    ];
    let text = error.to_string();
    let kind = kinds.into_iter().find(|(word, _)| text.contains(word));
    error.is_parse().then(|| kind.map_or(Malformed::Other, |(_, kind)| kind))
}

/// Counts and logs a malformed request.
pub(super) fn report(peer: IpAddr, kind: Malformed, reason: impl Display) {
    let peer = peer.to_canonical();
    counter!("cmdb_malformed_requests_total", "kind" => kind.name()).increment(1);
    info!(%peer, kind = kind.name(), %reason, "malformed request");
}

/// A response without a body that closes the connection, like hyper's own.
pub(super) fn bad_request() -> Response {
    (StatusCode::BAD_REQUEST, [(CONNECTION, "close")]).into_response()
}
