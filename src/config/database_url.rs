//! The URL of the database. sqlx ignores parameters that it does not know, and could so connect
//! without encryption or to other tables than the operator wanted. They are refused here. A URL
//! may name several hosts, as libpq's.

use std::borrow::Cow;
use std::fs::File;
use std::net::IpAddr;
use std::num::NonZeroU16;

use reqwest::Url;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use strum::VariantNames;

use crate::db::hosts::Target;
use crate::db::session::is_set_by_program;

/// Why a URL cannot be used. The messages repeat nothing that may be a part of a password.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the message of each variant says what it means")]
pub enum UrlError {
    #[error(
        "is not a PostgreSQL URL: it should look like postgresql://user:password@host/name, with \
         special characters of the password percent-encoded"
    )]
    Form,
    #[error("has the unknown parameter {0}; known are {known}", known = known_parameters())]
    UnknownParameter(String),
    #[error("has the parameter {name}={value}, which is not supported; supported is {supported}")]
    UnsupportedValue { name: String, value: String, supported: String },
    #[error("names {hosts} hosts, but {count} values of {name}: give one, or one for each host")]
    HostCount { name: String, count: usize, hosts: usize },
    #[error("names several hosts: name one, because it is measured how far it is behind")]
    SeveralReplicas,
    #[error("sets {0} in options, or PGOPTIONS does, but the program sets it for each connection")]
    SetByProgram(String),
}

/// What is done with a parameter of the URL.
enum Parameter {
    /// It has an effect.
    Used,
    /// It has an effect, and can have these values only.
    UsedIfOneOf(&'static [&'static str]),
    /// It has no effect, and none is needed with these values.
    IgnoredIfOneOf(&'static [&'static str]),
    /// It has no effect, and none is needed.
    Ignored,
}

use Parameter::{Ignored, IgnoredIfOneOf, Used, UsedIfOneOf};

/// The parameters of libpq that have the same meaning here, and those without which a connection
/// is as good.
const PARAMETERS: [(&str, Parameter); 30] = [
    (
        "sslmode",
        UsedIfOneOf(&["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]),
    ),
    ("sslrootcert", Used),
    ("sslcert", Used),
    ("sslkey", Used),
    ("host", Used),
    ("hostaddr", Used),
    ("port", Used),
    ("dbname", Used),
    ("user", Used),
    ("password", Used),
    ("application_name", Used),
    ("options", Used),
    ("statement-cache-capacity", Used),
    ("connect_timeout", Ignored),
    ("keepalives", Ignored),
    ("keepalives_idle", Ignored),
    ("keepalives_interval", Ignored),
    ("keepalives_count", Ignored),
    ("tcp_user_timeout", Ignored),
    ("fallback_application_name", Ignored),
    ("sslcompression", Ignored),
    ("sslsni", IgnoredIfOneOf(&["1"])),
    ("sslnegotiation", IgnoredIfOneOf(&["postgres"])),
    ("ssl_min_protocol_version", IgnoredIfOneOf(&["TLSv1", "TLSv1.1", "TLSv1.2"])),
    ("channel_binding", IgnoredIfOneOf(&["disable", "prefer"])),
    ("gssencmode", IgnoredIfOneOf(&["disable", "prefer"])),
    ("client_encoding", IgnoredIfOneOf(&["UTF8", "utf8", "UTF-8", "utf-8", "auto"])),
    ("target_session_attrs", IgnoredIfOneOf(Target::VARIANTS)),
    ("load_balance_hosts", IgnoredIfOneOf(&["disable"])),
    ("replication", IgnoredIfOneOf(&["false", "off", "no", "0"])),
];

fn known_parameters() -> String {
    PARAMETERS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// Connection options for each host of the database at a URL, and which servers to connect to. Of
/// several hosts, those are by default the ones in `default`.
pub(super) fn parse(
    url: &str, default: Target,
) -> Result<(Vec<PgConnectOptions>, Target), UrlError> {
    let urls = one_for_each_host(url)?;
    let parameters = parameters(urls.first().ok_or(UrlError::Form)?)?;
    let lists = parameters.iter().filter(|(name, _)| ["host", "hostaddr"].contains(&&**name));
    let counts = lists.map(|(_, value)| value.split(',').count());
    let count = counts.fold(urls.len(), usize::max);
    let options = (urls.iter().cycle().take(count).enumerate())
        .map(|(index, url)| parse_host(url.clone(), &parameters, index, count))
        .collect::<Result<_, _>>()?;
    let target = parameters.iter().rfind(|(name, _)| name == "target_session_attrs");
    let default = if count > 1 { default } else { Target::Any };
    Ok((options, target.and_then(|(_, value)| value.parse().ok()).unwrap_or(default)))
}

/// A URL for each host that this one names before its path.
fn one_for_each_host(url: &str) -> Result<Vec<Url>, UrlError> {
    let (scheme, rest) = url.split_once("://").ok_or(UrlError::Form)?;
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), authority),
    };
    if hosts.contains(',') && hosts.split(',').any(str::is_empty) {
        return Err(UrlError::Form);
    }
    let parse = |host| Url::parse(&format!("{scheme}://{user}{host}{path}"));
    hosts.split(',').map(parse).collect::<Result<_, _>>().or(Err(UrlError::Form))
}

/// The parameters of a URL with one host. Refuses a URL that is not of the right form.
fn parameters(url: &Url) -> Result<Vec<(String, String)>, UrlError> {
    // A password with `#`, `?` or `&` that are not percent-encoded ends up in other parts.
    if !["postgres", "postgresql"].contains(&url.scheme()) || url.fragment().is_some() {
        return Err(UrlError::Form);
    }
    let parameters: Vec<_> =
        url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let is_name = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-[]".contains(&byte))
    };
    let has_at = parameters.iter().any(|(name, value)| name.contains('@') || value.contains('@'));
    let is_cut = url.username().is_empty() && has_at || url.path().contains('@');
    if is_cut || !parameters.iter().all(|(name, _)| is_name(name)) {
        return Err(UrlError::Form);
    }
    Ok(parameters)
}

/// Connection options for one of several hosts.
fn parse_host(
    mut url: Url, parameters: &[(String, String)], index: usize, count: usize,
) -> Result<PgConnectOptions, UrlError> {
    let mut used = Vec::new();
    for (name, value) in parameters {
        let value = match &**name {
            "host" | "hostaddr" | "port" => value_of_host(name, value, index, count)?,
            _ => value,
        };
        if is_used(name, value)? {
            used.push((name, value));
        }
    }
    // `query_pairs_mut` leaves an empty query behind, which is no error.
    url.query_pairs_mut().clear().extend_pairs(used);
    let mut options = PgConnectOptions::from_url(&url).or(Err(UrlError::Form))?;
    let host = options.get_host();
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address = address.to_owned();
        options = options.host(&address);
    }
    if let Some(name) = options.get_options().and_then(is_set_by_program) {
        return Err(UrlError::SetByProgram(name.to_owned()));
    }
    Ok(options)
}

/// The value for one of several hosts in a parameter that has one value, or one for each host.
fn value_of_host<'a>(
    name: &str, value: &'a str, index: usize, hosts: usize,
) -> Result<&'a str, UrlError> {
    let count = value.split(',').count();
    if count != 1 && count != hosts {
        return Err(UrlError::HostCount { name: name.to_owned(), count, hosts });
    }
    Ok(value.split(',').nth(index).unwrap_or(value))
}

/// Refuses a value that `sslmode` cannot have.
pub(super) fn require_ssl_mode(value: &str) -> Result<(), UrlError> {
    is_used("sslmode", value).map(drop)
}

/// Whether a parameter is passed on to sqlx. Refuses one whose meaning would be lost.
fn is_used(name: &str, value: &str) -> Result<bool, UrlError> {
    // sqlx's form of one option.
    if name.starts_with("options[") && name.ends_with(']') {
        return Ok(true);
    }
    let known = PARAMETERS.iter().find(|(known, _)| *known == name);
    let (_, parameter) = known.ok_or_else(|| UrlError::UnknownParameter(name.to_owned()))?;
    let unsupported = |supported: Cow<'_, str>| UrlError::UnsupportedValue {
        name: name.to_owned(),
        value: printable(value).to_owned(),
        supported: supported.into_owned(),
    };
    match (name, parameter) {
        ("port", _) if value.parse::<NonZeroU16>().is_err() => {
            Err(unsupported("1 to 65535".into()))
        }
        ("hostaddr", _) if value.parse::<IpAddr>().is_err() => {
            Err(unsupported("an IP address".into()))
        }
        ("statement-cache-capacity", _) if value.parse::<u16>().is_err() => {
            Err(unsupported("a number".into()))
        }
        (_, UsedIfOneOf(values) | IgnoredIfOneOf(values)) if !values.contains(&value) => {
            Err(unsupported(values.join(", ").into()))
        }
        ("sslrootcert" | "sslcert" | "sslkey", _) if !is_readable(value) => {
            Err(unsupported("a file that can be read".into()))
        }
        (_, Used | UsedIfOneOf(_)) => Ok(true),
        (_, Ignored | IgnoredIfOneOf(_)) => Ok(false),
    }
}

/// Whether a value is PEM, which sqlx accepts as well, or names a file that can be read.
fn is_readable(value: &str) -> bool {
    value.trim_start().starts_with("-----BEGIN ") || File::open(value).is_ok()
}

/// A value for a message: a word without any character of a URL's other parts, or nothing.
fn printable(value: &str) -> &str {
    let is_word = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if is_word && value.len() <= 20 { value } else { "…" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_query(query: &str) -> Result<PgConnectOptions, UrlError> {
        let url = format!("postgresql://user:hunter2@host/name?{query}");
        let (mut hosts, _) = parse(&url, Target::Any)?;
        Ok(hosts.remove(0))
    }

    #[test]
    fn parameters_of_libpq_without_which_a_connection_is_as_good_are_accepted() {
        for query in [
            "",
            "connect_timeout=10&keepalives=1&keepalives_idle=30&application_name=x",
            "channel_binding=prefer&gssencmode=disable&target_session_attrs=read-write",
            "options=-c%20work_mem%3D64MB",
            "options[work_mem]=64MB",
        ] {
            assert!(parse_query(query).is_ok(), "{query}");
        }
        let options = parse_query("sslmode=require&connect_timeout=10").unwrap();
        assert!(matches!(options.get_ssl_mode(), sqlx::postgres::PgSslMode::Require));
    }

    #[test]
    fn a_parameter_whose_meaning_would_be_lost_is_refused_by_name() {
        for (query, message) in [
            ("ssl_mode=require", "the unknown parameter ssl_mode; known are sslmode, sslrootcert,"),
            ("ssl=true", "the unknown parameter ssl;"),
            ("schema=other", "the unknown parameter schema;"),
            ("search_path=other", "the unknown parameter search_path;"),
            ("sslpassword=hunter2", "the unknown parameter sslpassword;"),
            (
                "sslmode=verify_full",
                "sslmode=verify_full, which is not supported; supported is disable, allow, prefer, \
                 require, verify-ca, verify-full",
            ),
            ("channel_binding=require", "supported is disable, prefer"),
            ("gssencmode=require", "supported is disable, prefer"),
            ("target_session_attrs=standby", "supported is any, read-write, primary"),
            (
                "hostaddr=localhost",
                "hostaddr=localhost, which is not supported; supported is an IP",
            ),
            ("port=0", "port=0, which is not supported; supported is 1 to 65535"),
            ("sslrootcert=none.pem", "none.pem, which is not supported; supported is a file that"),
            ("options=-c%20Lock_Timeout%3D2s", "sets lock_timeout in options"),
            ("port=x", "port=x, which is not supported; supported is 1 to 65535"),
            ("port=1,2", "names 1 hosts, but 2 values of port: give one, or one for each host"),
            ("host=a,b,c&port=1,2", "names 3 hosts, but 2 values of port"),
            ("target_session_attrs=prefer-standby", "supported is any, read-write, primary"),
            ("options=-c%20lock_timeout%3D2s", "sets lock_timeout in options"),
            ("options=-cstatement_timeout%3D2s", "sets statement_timeout in options"),
            ("options=--search-path%3Dother", "sets search_path in options"),
            ("options[jit]=on", "sets jit in options"),
        ] {
            let error = parse_query(query).unwrap_err().to_string();
            assert!(error.contains(message), "{query}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_password_that_is_not_percent_encoded_is_not_repeated() {
        for url in [
            "postgresql://user:hun#ter2@host/name",
            "postgresql://user:1#hunter2@host/name",
            "postgresql://user:1?hunter2@host/name",
            "postgresql://user:1?x&hunter2@host/name",
            "postgresql://user:1?sslmode=hunter2@host/name",
            "postgresql://user:1?hunter2=x@host/name",
            "postgresql://user:1,hunter2/x@host/name",
            "postgresql://user:,hunter2/x@host/name",
            "mysql://user:hunter2@host/name",
            "hunter2",
        ] {
            let error = parse(url, Target::Any).unwrap_err().to_string();
            assert!(!error.contains("hunter2") && !error.contains("ter2"), "{url}: {error}");
        }
    }

    /// The hosts and ports of a URL, and which servers are connected to.
    fn hosts(url: &str) -> (Vec<(String, u16)>, Target) {
        let (hosts, target) = parse(url, Target::ReadWrite).unwrap();
        let address = |host: &PgConnectOptions| (host.get_host().to_owned(), host.get_port());
        (hosts.iter().map(address).collect(), target)
    }

    #[test]
    fn an_ipv6_address_is_in_brackets() {
        let (hosts, target) = hosts("postgresql://user@[::1]:5433/name");
        assert_eq!((hosts, target), (vec![("::1".to_owned(), 5433)], Target::Any));
    }

    #[test]
    fn several_hosts_are_in_the_forms_of_libpq_and_the_writable_one_is_the_default() {
        let expected = [("a", 5433), ("::1", 5432), ("c", 5434)].map(|(h, p)| (h.to_owned(), p));
        for (url, target) in [
            ("postgresql://u:p@a:5433,[::1],c:5434/name", Target::ReadWrite),
            ("postgresql://u:p@x/name?host=a,::1,c&port=5433,5432,5434", Target::ReadWrite),
            ("postgresql://a:5433,[::1],c:5434/name?target_session_attrs=primary", Target::Primary),
            ("postgresql://a:5433,[::1],c:5434/name?target_session_attrs=any", Target::Any),
        ] {
            assert_eq!(hosts(url), (expected.to_vec(), target), "{url}");
        }
        let (hosts, _) = hosts("postgresql:///name?host=a,b&port=5433");
        assert_eq!(hosts, [("a", 5433), ("b", 5433)].map(|(h, p)| (h.to_owned(), p)));
        assert_eq!(parse("postgresql://a,,b/name", Target::Any).unwrap_err(), UrlError::Form);
    }
}
