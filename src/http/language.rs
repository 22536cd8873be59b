//! Which language a caller reads, at the gateway door.

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT_LANGUAGE, COOKIE};

use crate::domain::language::Language;

/// `Blueking-Language`, else `Accept-Language`, else the cookie `blueking_language`, else English.
pub(super) fn of(headers: &HeaderMap) -> Language {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    header("blueking-language")
        .or_else(|| header(ACCEPT_LANGUAGE.as_str()))
        .or_else(|| cookie(headers, "blueking_language"))
        .map(Language::parse)
        .unwrap_or_default()
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_made_for_it_comes_first_and_the_cookie_last() {
        let language = |pairs: &[(&'static str, &str)]| {
            of(&pairs.iter().map(|(k, v)| (k.parse().unwrap(), v.parse().unwrap())).collect())
        };
        assert_eq!(language(&[]), Language::English);
        assert_eq!(language(&[("cookie", "a=b; blueking_language=zh-cn")]), Language::Chinese);
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
