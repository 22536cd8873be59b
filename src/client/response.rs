//! What an answer means for its request: whether to send it again, and when.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

/// How long the first pauses are, and for how long. Most failures of a database end within that
/// time. Then the pause doubles up to the longest one.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const FIRST_PAUSES: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What to do after an answer.
#[derive(Debug, PartialEq)]
pub enum Response {
    /// The request was carried out.
    Done(Value),
    /// The request is to be sent again.
    Again(Problem),
    /// Sending the request again has the same result.
    Refused(RefusedRequest),
}

/// Why a request is to be sent again.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// The reason in words.
    pub text: String,
    /// Whether it is a rate limit.
    pub is_rate_limit: bool,
    /// After which time, if the server says so.
    pub after: Option<Duration>,
}

/// The refusal of a whole request.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{text}", text = self.text())]
pub struct RefusedRequest {
    /// The HTTP status.
    pub status: u16,
    /// The code, if the answer has one.
    pub code: Option<i64>,
    /// The reason in words.
    pub message: String,
    /// What was refused, if the endpoint says so.
    pub data: Value,
    /// The permissions that are missing.
    pub permission: Value,
}

impl RefusedRequest {
    fn text(&self) -> String {
        match self.code {
            Some(code) => format!("the server refused with {code}: {}", self.message),
            None => format!("the server answered with status {}: {}", self.status, self.message),
        }
    }

    /// Whether there is no such endpoint, as the gateways of the original and the server say it.
    pub fn is_unknown_endpoint(&self) -> bool {
        matches!(self.code, Some(1_306_404 | 1_640_401)) || self.status == 404
    }

    /// Whether the user lacks a permission.
    pub fn is_missing_permission(&self) -> bool {
        self.code == Some(9_900_403)
    }

    /// The ids of the instances for which permissions are missing.
    pub fn forbidden_instances(&self) -> Vec<String> {
        let list = |value: &Value, key: &str| {
            value.get(key).and_then(Value::as_array).cloned().unwrap_or_default()
        };
        let actions = list(&self.permission, "actions");
        let types = actions.iter().flat_map(|action| list(action, "related_resource_types"));
        let paths = types.flat_map(|one| list(&one, "instances"));
        let instances = paths.filter_map(|path| path.as_array()?.last().cloned());
        let id = |one: Value| one.get("id").and_then(Value::as_str).map(str::to_owned);
        instances.filter_map(id).collect()
    }
}

/// The envelope of an answer.
#[derive(Deserialize)]
struct Envelope {
    code: Option<i64>,
    message: Option<String>,
    #[serde(default)]
    data: Value,
    #[serde(default)]
    permission: Value,
}

/// Judges an answer. ESB answers with status 200 whatever happened, and drops headers; the API
/// gateway may do so, too. An answer without a code is not from the server, or incomplete.
pub fn classify_response(status: u16, retry_after: Option<u64>, body: &[u8]) -> Response {
    let envelope = serde_json::from_slice::<Envelope>(body).ok();
    let code = envelope.as_ref().and_then(|envelope| envelope.code);
    let message = envelope.as_ref().and_then(|envelope| envelope.message.clone());
    let message = message.unwrap_or_else(|| match body {
        [] => "no body".to_owned(),
        _ => String::from_utf8_lossy(body).chars().take(200).collect(),
    });
    if let Some(Envelope { code: Some(0), data, .. }) = envelope {
        return Response::Done(data);
    }
    let is_rate_limit =
        status == 429 || matches!(code, Some(1_306_429 | 1_199_997 | 1_642_900..=1_642_999));
    let is_unavailable = matches!(status, 408 | 502..=504)
        || match code {
            // ESB's error for a third party, and what the API gateway says with a status from 500.
            Some(1_306_201 | 1_650_000..=1_659_999) => true,
            // ESB got no JSON, such as a proxy's page; the server failed.
            Some(1_306_000) => ["Request interface error", "Internal error"]
                .iter()
                .any(|start| message.starts_with(start)),
            Some(_) => false,
            None => status == 200 || status >= 500,
        };
    if is_rate_limit || is_unavailable {
        let code = code.map(|code| format!(", code {code}")).unwrap_or_default();
        let text = format!("status {status}{code}: {message}");
        let after = retry_after.map(Duration::from_secs);
        return Response::Again(Problem { text, is_rate_limit, after });
    }
    let (data, permission) =
        envelope.map(|envelope| (envelope.data, envelope.permission)).unwrap_or_default();
    Response::Refused(RefusedRequest { status, code, message, data, permission })
}

/// How long to wait before a request is sent again: `elapsed` after it was sent first, and after
/// the pause `previous`. A rate limit is waited for as long as the server says, without more.
pub fn pause(problem: &Problem, elapsed: Duration, previous: Duration) -> Duration {
    let pause = if elapsed < FIRST_PAUSES {
        FIRST_PAUSE
    } else {
        (previous * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE)
    };
    match problem.after {
        Some(after) if problem.is_rate_limit => after,
        Some(after) => pause.max(after),
        None => pause,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problem(response: Response) -> Option<(bool, Option<u64>)> {
        match response {
            Response::Again(problem) => {
                Some((problem.is_rate_limit, problem.after.map(|after| after.as_secs())))
            }
            Response::Done(_) | Response::Refused(_) => None,
        }
    }

    fn answer(code: i64, message: &str) -> Vec<u8> {
        json!({"result": code == 0, "code": code, "message": message, "data": null})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn what_may_pass_is_sent_again_whatever_gateway_says_it() {
        for (status, code, message, is_rate_limit) in [
            (503, 1_306_201, "Postgres is unavailable, please try again later", false),
            (200, 1_306_201, "Component request third-party system [CC] …", false),
            (200, 1_306_000, "Request interface error, the response content is not a json", false),
            (500, 1_306_000, "Internal error, please try again later or contact …", false),
            (200, 1_306_429, "Access frequency limit, …", true),
            (429, 1_306_429, "Access frequency limit, …", true),
            (200, 1_199_997, "too many requests", true),
            (429, 1_642_902, "", true),
            (200, 1_642_904, "", true),
            (504, 1_650_401, "", false),
            (200, 1_650_201, "", false),
        ] {
            let response = classify_response(status, Some(7), &answer(code, message));
            assert_eq!(problem(response), Some((is_rate_limit, Some(7))), "{status} {code}");
        }
        for (status, body) in [
            (200, r#"{"result": true, "code": 0, "data": {"#),
            (200, "<html>"),
            (500, r#"{"result":false,"data":null,"message":"Request is abnormal"}"#),
            (502, "<html>"),
            (503, ""),
            (504, ""),
            (408, "<html>"),
        ] {
            assert_eq!(
                problem(classify_response(status, None, body.as_bytes())),
                Some((false, None)),
                "{body}"
            );
        }
    }

    #[test]
    fn what_stays_refused_is_not_sent_again() {
        for (status, code, message) in [
            (200, 1_306_000, "APP Code [bk_app_code] cannot be empty"),
            (200, 1_101_046, "object association does not exist."),
            (200, 9_900_403, "Do not have access permission."),
            (404, 1_306_404, "The content does not exist"),
        ] {
            let Response::Refused(refused) =
                classify_response(status, None, &answer(code, message))
            else {
                panic!("{code} is not refused");
            };
            assert_eq!((refused.code, refused.message.as_str()), (Some(code), message));
            assert_eq!(refused.is_unknown_endpoint(), status == 404);
        }
        let of_esb = br#"{"result":false,"data":null,"message":"The content does not exist"}"#;
        let Response::Refused(refused) = classify_response(404, None, of_esb) else { panic!() };
        assert!(refused.is_unknown_endpoint());
    }

    #[test]
    fn pauses_are_two_seconds_first_and_the_server_can_make_them_longer() {
        let seconds = Duration::from_secs;
        let problem = |is_rate_limit, after: Option<u64>| Problem {
            text: String::new(),
            is_rate_limit,
            after: after.map(seconds),
        };
        let unavailable = problem(false, None);
        assert_eq!(pause(&unavailable, seconds(0), seconds(0)), seconds(2));
        assert_eq!(pause(&unavailable, seconds(29), seconds(2)), seconds(2));
        assert_eq!(pause(&unavailable, seconds(31), seconds(2)), seconds(4));
        assert_eq!(pause(&unavailable, seconds(60), seconds(15)), seconds(15));
        assert_eq!(pause(&problem(false, Some(1)), seconds(0), seconds(0)), seconds(2));
        assert_eq!(pause(&problem(false, Some(20)), seconds(0), seconds(0)), seconds(20));
        assert_eq!(pause(&problem(true, Some(1)), seconds(0), seconds(0)), seconds(1));
        assert_eq!(pause(&problem(true, None), seconds(0), seconds(0)), seconds(2));
    }
}
