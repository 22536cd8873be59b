//! An independent, slow implementation of the checks of a body, after RFC 8259 and the API guide.

use std::collections::BTreeSet;

use serde_json::Value;

const DETAIL_LIMIT: usize = 200;

/// The keys that may not be repeated.
const KEYS: [&str; 14] = [
    "idempotency_key",
    "bk_obj_id",
    "bk_asst_obj_id",
    "bk_obj_asst_id",
    "details",
    "bk_app_code",
    "bk_app_secret",
    "bk_token",
    "bk_username",
    "app_code",
    "app_secret",
    "username",
    "bk_access_token",
    "access_token",
];

/// The code and the English text that the body is refused with, or `None` if it is valid.
pub(crate) fn refusal(body: &[u8], limit: usize) -> Option<(u64, String)> {
    if body.len() > limit {
        let text = format!("Parameters error, the request body is larger than {limit} bytes");
        return Some((1_306_406, text));
    }
    let tokens = std::str::from_utf8(body).ok().and_then(tokens);
    let tokens = tokens.filter(|tokens| is_value(tokens) && tokens[0] == "{");
    // serde_json is a second opinion, except where its limits on numbers and depth apply.
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        assert_eq!(tokens.is_some(), value.is_object(), "the oracle itself is wrong");
    }
    let Some(tokens) = tokens else {
        let text = "Request JSON string is wrong in format, which cannot be analyzed.";
        return Some((1_306_000, text.to_owned()));
    };
    match decode(&Object::of(&tokens)) {
        Err(problem) => Some((1_199_000, format!("Deserializing JSON data failed: {problem}"))),
        Ok(request) => request.refusal(),
    }
}

/// The code and the English text that a valid body is refused with after the rate limit, without
/// the database: its model association has a key that cannot be stored.
pub(crate) fn refusal_after_rate_limit(body: &[u8]) -> Option<(u64, String)> {
    let tokens = std::str::from_utf8(body).ok().and_then(tokens)?;
    let Decoded { models: [source, target], model_association: key, .. } =
        decode(&Object::of(&tokens)).ok()?;
    if key.chars().count() <= 512 && !key.contains('\0') {
        return None;
    }
    let mismatch = |field| format!("'{field}' data parameter verification does not pass");
    Some(if !key.starts_with(&source) {
        (1_199_006, mismatch("bk_obj_id"))
    } else if !key.ends_with(&target) {
        (1_199_006, mismatch("bk_asst_obj_id"))
    } else {
        (1_101_046, "object association does not exist.".to_owned())
    })
}

/// The parts of the body that are checked.
struct Decoded {
    models: [String; 2],
    model_association: String,
    details: usize,
    idempotency_key: Option<String>,
}

fn decode(body: &Object<'_>) -> Result<Decoded, String> {
    body.refuse_duplicates(&KEYS)?;
    let text = |key| Ok::<_, String>(body.get(key, "a string", text)?.unwrap_or_default());
    let models = [text("bk_obj_id")?, text("bk_asst_obj_id")?];
    let model_association = text("bk_obj_asst_id")?;
    let details =
        body.get("details", "an array", |value| (value[0] == "[").then(|| parts(value)))?;
    let details = details.unwrap_or_default();
    for (index, detail) in details.iter().enumerate() {
        check_detail(detail).map_err(|problem| format!("details[{index}]{problem}"))?;
    }
    let idempotency_key = body.get("idempotency_key", "a string", self::text)?;
    Ok(Decoded { models, model_association, details: details.len(), idempotency_key })
}

fn check_detail(detail: &[&str]) -> Result<(), String> {
    match detail[0] {
        "null" => Ok(()),
        "{" => {
            let ids = ["bk_inst_id", "bk_asst_inst_id"];
            let detail = Object::of(detail);
            let in_detail = |problem| format!(".{problem}");
            detail.refuse_duplicates(&ids).map_err(in_detail)?;
            ids.iter()
                .try_for_each(|id| detail.get(id, "an integer", integer).map(drop))
                .map_err(in_detail)
        }
        _ => Err(format!(": expected an object, got {}", kind(detail))),
    }
}

impl Decoded {
    fn refusal(&self) -> Option<(u64, String)> {
        let Self { models: [source, target], model_association, details, idempotency_key } = self;
        let is_visible = |key: &String| {
            (1..=255).contains(&key.len()) && key.bytes().all(|byte| (b'!'..=b'~').contains(&byte))
        };
        if idempotency_key.as_ref().is_some_and(|key| !is_visible(key)) {
            let text =
                "Parameters error, Idempotency-Key must be 1 to 255 visible ASCII characters";
            return Some((1_306_406, text.to_owned()));
        }
        let ids = [
            ("bk_obj_asst_id", model_association),
            ("bk_obj_id", source),
            ("bk_asst_obj_id", target),
        ];
        if let Some((key, _)) = ids.iter().find(|(_, id)| id.is_empty()) {
            return Some((
                1_199_011,
                format!("'{key}' the parameter is invalid or does not exist"),
            ));
        }
        if *details == 0 {
            return Some((1_199_038, "details must not be empty".to_owned()));
        }
        if *details > DETAIL_LIMIT {
            return Some((1_199_035, format!("details exceed the limit {DETAIL_LIMIT}")));
        }
        None
    }
}

/// The members of an object, in order.
struct Object<'a>(Vec<(String, &'a [&'a str])>);

impl<'a> Object<'a> {
    fn of(tokens: &'a [&'a str]) -> Self {
        let member = |part: &'a [&'a str]| (text(&part[..1]).unwrap(), &part[2..]);
        Self(parts(tokens).into_iter().map(member).collect())
    }

    fn refuse_duplicates(&self, known: &[&str]) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        let mut keys = self.0.iter().map(|(key, _)| key.as_str());
        match keys.find(|key| known.contains(key) && !seen.insert(*key)) {
            Some(key) => Err(format!("{key}: given twice")),
            None => Ok(()),
        }
    }

    fn get<T>(
        &self, wanted: &str, expected: &str, decode: impl Fn(&'a [&'a str]) -> Option<T>,
    ) -> Result<Option<T>, String> {
        match self.0.iter().find(|(key, _)| key == wanted) {
            None | Some((_, ["null"])) => Ok(None),
            Some((_, value)) => match decode(value) {
                None => Err(format!("{wanted}: expected {expected}, got {}", kind(value))),
                decoded => Ok(decoded),
            },
        }
    }
}

fn kind(value: &[&str]) -> &'static str {
    match value[0] {
        "{" => "an object",
        "[" => "an array",
        "true" | "false" => "a boolean",
        token if token.starts_with('"') => "a string",
        token if token.contains(['.', 'e', 'E']) => "a number with a fraction or an exponent",
        _ if integer(value).is_some() => "an integer",
        _ => "a number beyond 64 bits",
    }
}

fn text(value: &[&str]) -> Option<String> {
    serde_json::from_str(value[0]).ok()
}

fn integer(value: &[&str]) -> Option<i64> {
    let wide: i128 = value[0].parse().ok()?;
    wide.try_into().ok()
}

/// The elements of an array, or the members of an object.
fn parts<'a>(tokens: &'a [&'a str]) -> Vec<&'a [&'a str]> {
    let inside = &tokens[1..tokens.len() - 1];
    let mut depth = 0;
    let is_comma = |token: &&str| {
        match *token {
            "{" | "[" => depth += 1,
            "}" | "]" => depth -= 1,
            _ => {}
        }
        depth == 0 && *token == ","
    };
    let parts = inside.split(is_comma);
    parts.filter(|part| !part.is_empty()).collect()
}

/// The tokens of a JSON text, or `None` if a part of it is not a token.
fn tokens(text: &str) -> Option<Vec<&str>> {
    let space = [' ', '\t', '\r', '\n'];
    let mut tokens = Vec::new();
    let mut rest = text.trim_start_matches(space);
    while let Some(first) = rest.chars().next() {
        let (length, is_token): (_, fn(&str) -> bool) = match first {
            '{' | '}' | '[' | ']' | ',' | ':' => (1, |_| true),
            '"' => (string_length(rest)?, |token| serde_json::from_str::<String>(token).is_ok()),
            _ => {
                let is_part = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
                (rest.find(|c| !is_part(c)).unwrap_or(rest.len()), is_scalar)
            }
        };
        let (token, after) = rest.split_at(length);
        if !is_token(token) {
            return None;
        }
        tokens.push(token);
        rest = after.trim_start_matches(space);
    }
    Some(tokens)
}

fn string_length(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return Some(index + 1),
            _ => {}
        }
    }
    None
}

fn is_scalar(token: &str) -> bool {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = token.strip_prefix('-').unwrap_or(token);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let is_number = [whole, fraction, exponent].into_iter().all(is_digits)
        && (whole == "0" || !whole.starts_with('0'));
    is_number || ["null", "true", "false"].contains(&token)
}

/// What the grammar allows next.
enum Next {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
}

/// Whether the tokens are exactly one value.
fn is_value(tokens: &[&str]) -> bool {
    use Next::{Colon, CommaOrEnd, Key, KeyOrEnd, Value, ValueOrEnd};
    let mut open = Vec::new();
    let mut next = Value;
    for token in tokens {
        next = match (next, *token, open.last()) {
            (Value | ValueOrEnd, "{", _) => {
                open.push("}");
                KeyOrEnd
            }
            (Value | ValueOrEnd, "[", _) => {
                open.push("]");
                ValueOrEnd
            }
            (ValueOrEnd | KeyOrEnd | CommaOrEnd, end, Some(close)) if *close == end => {
                open.pop();
                CommaOrEnd
            }
            (Value | ValueOrEnd, scalar, _) if !"}],:".contains(scalar) => CommaOrEnd,
            (Key | KeyOrEnd, key, _) if key.starts_with('"') => Colon,
            (CommaOrEnd, ",", Some(&"}")) => Key,
            (Colon, ":", _) | (CommaOrEnd, ",", Some(&"]")) => Value,
            _ => return false,
        };
    }
    matches!(next, CommaOrEnd) && open.is_empty()
}
