//! The language of a caller's answers, from the headers of each API.

use std::borrow::Cow;

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};

use super::api::{Api, first_of};
use crate::domain::language::Language;

impl Api {
    /// The language of the answer. At the gateway API: `Blueking-Language`, else `Accept-Language`,
    /// else the cookie `blueking_language`, else English. At the CMDB API: `X-Bkcmdb-Language` or
    /// `HTTP_BLUEKING_LANGUAGE`, else Chinese.
    pub(super) fn language(self, headers: &HeaderMap) -> Language {
        let header = |names: &[&str]| Some(Language::parse(&text(first_of(headers, names)?)));
        match self {
            Self::Gateway => header(&["blueking-language", "accept-language"])
                .or_else(|| cookie(headers))
                .unwrap_or(Language::English),
            Self::Cmdb => header(&["x-bkcmdb-language", "http_blueking_language"])
                .unwrap_or(Language::Chinese),
        }
    }
}

fn cookie(headers: &HeaderMap) -> Option<Language> {
    headers.get_all(COOKIE).iter().find_map(|cookies| {
        let cookies = text(cookies);
        let mut pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
        let (_, tag) = pairs.find(|(key, _)| *key == "blueking_language")?;
        Some(Language::parse(tag.trim_matches('"')))
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
        use Language::{Chinese, English};
        let zh_cookie = ("cookie", "a=b; blueking_language=zh-cn");
        for (pairs, language) in [
            (&[][..], English),
            (&[zh_cookie], Chinese),
            (&[("cookie", "é=é; blueking_language=\"zh-cn\"")], Chinese),
            (&[("blueking-language", ""), ("accept-language", "zh")], Chinese),
            (&[("accept-language", "en"), zh_cookie], English),
            (&[("blueking-language", "zh-hans"), ("accept-language", "en")], Chinese),
        ] {
            let headers = pairs.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap()));
            assert_eq!(Api::Gateway.language(&headers.collect()), language, "{pairs:?}");
        }
    }
}
