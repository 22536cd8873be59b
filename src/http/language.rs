//! The language of a caller's answers, from the headers of each API.

use std::borrow::Cow;

use axum::http::header::{ACCEPT_LANGUAGE, COOKIE};
use axum::http::{HeaderMap, HeaderValue};

use crate::domain::language::Language;

/// At the CMDB API: `HTTP_BLUEKING_LANGUAGE` or `X-Bkcmdb-Language`, else Chinese.
pub(super) fn at_cmdb(headers: &HeaderMap) -> Language {
    let tags = ["x-bkcmdb-language", "http_blueking_language"];
    let tag = tags.iter().filter_map(|name| headers.get(*name)).find(|tag| !tag.is_empty());
    tag.map_or(Language::Chinese, |tag| Language::parse(&text(tag)))
}

/// At the gateway API: `Blueking-Language`, else `Accept-Language`, else the cookie
/// `blueking_language`, else English. An empty header counts as absent.
pub(super) fn at_gateway(headers: &HeaderMap) -> Language {
    let header = |name: &str| headers.get(name).map(|value| text(value).into_owned());
    header("blueking-language")
        .filter(|tag| !tag.is_empty())
        .or_else(|| header(ACCEPT_LANGUAGE.as_str()).filter(|tag| !tag.is_empty()))
        .or_else(|| cookie(headers, "blueking_language"))
        .map(|tag| Language::parse(&tag))
        .unwrap_or_default()
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get_all(COOKIE).iter().find_map(|value| {
        text(value)
            .split(';')
            .filter_map(|pair| pair.trim().split_once('='))
            .find_map(|(key, value)| (key == name).then(|| value.trim_matches('"').to_owned()))
    })
}

/// Header values are bytes. Invalid UTF-8 in one cookie does not affect the others.
fn text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blueking_language_precedes_accept_language_and_the_cookie() {
        let language = |pairs: &[(&'static str, &str)]| {
            at_gateway(
                &pairs.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect(),
            )
        };
        assert_eq!(language(&[]), Language::English);
        assert_eq!(language(&[("cookie", "a=b; blueking_language=zh-cn")]), Language::Chinese);
        assert_eq!(language(&[("cookie", "é=é; blueking_language=\"zh-cn\"")]), Language::Chinese);
        assert_eq!(
            language(&[("blueking-language", ""), ("accept-language", "zh")]),
            Language::Chinese
        );
        assert_eq!(
            language(&[("accept-language", "en"), ("cookie", "blueking_language=zh-cn")]),
            Language::English
        );
        assert_eq!(
            language(&[("blueking-language", "zh-hans"), ("accept-language", "en")]),
            Language::Chinese
        );
    }
}
