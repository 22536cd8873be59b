//! What an answer means: whether to send the request again, and what became of each row.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::{Mode, Outcome, Refusal, Resolved};

/// How long the first pauses are, and for how long. Most failures of a database end within that
/// time. Then the pause doubles up to the longest one.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const FIRST_PAUSES: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What to do after an answer.
#[derive(Debug, PartialEq)]
pub enum Verdict {
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
        let last = paths.filter_map(|path| path.as_array().and_then(|path| path.last()).cloned());
        let id = |one: Value| one.get("id").and_then(Value::as_str).map(str::to_owned);
        last.filter_map(id).collect()
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
pub fn judge(status: u16, retry_after: Option<u64>, body: &[u8]) -> Verdict {
    let envelope = serde_json::from_slice::<Envelope>(body).ok();
    let code = envelope.as_ref().and_then(|envelope| envelope.code);
    let message = envelope.as_ref().and_then(|envelope| envelope.message.clone());
    let message = message.unwrap_or_else(|| match body {
        [] => "no body".to_owned(),
        _ => String::from_utf8_lossy(body).chars().take(200).collect(),
    });
    if let Some(Envelope { code: Some(0), data, .. }) = envelope {
        return Verdict::Done(data);
    }
    let is_rate_limit =
        status == 429 || matches!(code, Some(1_306_429 | 1_199_997 | 1_642_900..=1_642_999));
    let is_unavailable = matches!(status, 502..=504)
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
        return Verdict::Again(Problem { text, is_rate_limit, after });
    }
    let (data, permission) =
        envelope.map(|envelope| (envelope.data, envelope.permission)).unwrap_or_default();
    Verdict::Refused(RefusedRequest { status, code, message, data, permission })
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

/// The outcomes of details, by their indexes.
#[derive(Deserialize, Default)]
struct Data {
    success_created: Option<HashMap<usize, i64>>,
    error_msg: Option<HashMap<usize, String>>,
    error_detail: Option<HashMap<usize, Explanation>>,
}

/// Why a detail was refused.
#[derive(Deserialize, Clone)]
struct Explanation {
    code: Option<i64>,
    reason: Option<String>,
    blocking_id: Option<i64>,
    blocking_index: Option<usize>,
}

/// The texts of the original, and what they mean. It has no codes for details.
const TEXTS: [(&str, i64, &str); 10] = [
    (" already exist", 1_101_038, "already_exists"),
    (" 重复", 1_101_038, "already_exists"),
    ("Association instance does not exist", 1_101_073, "source_missing"),
    ("关联实例不存在", 1_101_073, "source_missing"),
    ("Associated instance does not exist", 1_101_074, "target_missing"),
    ("被关联实例不存在", 1_101_074, "target_missing"),
    ("can not create multiple instance association for a 1:1 association.", 1_101_052, "taken"),
    ("关联关系为1:1的，不能同时关联多个实例", 1_101_052, "taken"),
    (
        "The relationship is 1:n, and multiple source model instances cannot be associated at the \
         same time.",
        1_101_061,
        "target_taken",
    ),
    ("关联关系为1:n的，不能同时关联多个源模型实例", 1_101_061, "target_taken"),
];

/// Whether the server explained refusals, as it was asked to. The original does not.
pub fn is_explained(data: &Value) -> bool {
    data.get("error_detail").is_some_and(|detail| !detail.is_null())
}

/// What became of each row of a batch that the server answered. `accepts_existing`: pairs that are
/// linked already are not refused. The server does not refuse them then; the original does.
pub fn outcome(
    batch: &Resolved, data: Value, mode: Mode, accepts_existing: bool,
) -> Result<Outcome, serde_json::Error> {
    let is_explained = is_explained(&data);
    let data: Data = serde_json::from_value(data)?;
    let created = data.success_created.unwrap_or_default();
    let texts = data.error_msg.unwrap_or_default();
    let explanations = data.error_detail.unwrap_or_default();
    let mut outcome =
        Outcome { batch: batch.batch, refused: batch.refused.clone(), ..Outcome::default() };
    for (index, (&row, _)) in batch.pairs.iter().enumerate() {
        match (created.get(&index), texts.get(&index)) {
            (Some(&id), _) if mode == Mode::DryRun && id != 0 => {
                outcome.existing.insert(row, id);
            }
            (Some(&id), _) => {
                outcome.created.insert(row, id);
            }
            (None, text) => {
                let text = text.map_or("the answer does not mention it", String::as_str);
                let refusal = refusal(text, explanations.get(&index), &created);
                if accepts_existing && !is_explained && refusal.reason == "already_exists" {
                    outcome.existing.insert(row, 0);
                } else {
                    outcome.refused.insert(row, refusal);
                }
            }
        }
    }
    Ok(outcome)
}

fn refusal(
    text: &str, explanation: Option<&Explanation>, created: &HashMap<usize, i64>,
) -> Refusal {
    let known =
        TEXTS.iter().find(|(end, ..)| text == *end || end.starts_with(' ') && text.ends_with(end));
    let (code, reason) = known.map_or((None, "other"), |(_, code, reason)| (Some(*code), *reason));
    let Some(explanation) = explanation.cloned() else {
        return Refusal { code, ..Refusal::unsent(reason, text) };
    };
    let of_batch = explanation.blocking_index.and_then(|index| created.get(&index).copied());
    Refusal {
        code: explanation.code.or(code),
        reason: explanation.reason.unwrap_or_else(|| reason.to_owned()),
        message: text.to_owned(),
        blocking_id: explanation.blocking_id.or(of_batch).filter(|id| *id != 0),
    }
}

/// What became of each row of a batch of which nothing was created, because of some rows.
pub fn refused_batch(batch: &Resolved, refused: BTreeMap<usize, Refusal>) -> Outcome {
    let others = "not created, because other rows of its batch were refused";
    let mut refused = refused;
    for row in batch.pairs.keys() {
        refused.entry(*row).or_insert_with(|| Refusal::unsent("batch_refused", others));
    }
    refused.extend(batch.refused.clone());
    Outcome { batch: batch.batch, refused, ..Outcome::default() }
}

/// What became of each row of a batch that was refused as a whole because of its rows; nothing, if
/// it was refused for another reason.
pub fn refused_rows(batch: &Resolved, refused: &RefusedRequest) -> Option<Outcome> {
    if refused.is_missing_permission() {
        let ids = refused.forbidden_instances();
        let named = ids.iter().take(20).cloned().collect::<Vec<_>>().join(", ");
        let more = if ids.len() > 20 { ", …" } else { "" };
        let message = match ids.len() {
            0 => refused.message.clone(),
            _ => format!("{} Instances: {named}{more}", refused.message),
        };
        let refusal = Refusal { code: refused.code, ..Refusal::unsent("permission", message) };
        let rows = batch.pairs.keys().map(|row| (*row, refusal.clone())).collect();
        return Some(refused_batch(batch, rows));
    }
    let data: Data = serde_json::from_value(refused.data.clone()).ok()?;
    let (texts, explanations) = (data.error_msg?, data.error_detail.unwrap_or_default());
    if texts.is_empty() {
        return None;
    }
    let rows: Vec<_> = batch.pairs.keys().collect();
    let rows = texts.iter().filter_map(|(index, text)| {
        let refusal = refusal(text, explanations.get(index), &HashMap::new());
        Some((**rows.get(*index)?, refusal))
    });
    Some(refused_batch(batch, rows.collect()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problem(verdict: Verdict) -> Option<(bool, Option<u64>)> {
        match verdict {
            Verdict::Again(problem) => {
                Some((problem.is_rate_limit, problem.after.map(|after| after.as_secs())))
            }
            Verdict::Done(_) | Verdict::Refused(_) => None,
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
            let verdict = judge(status, Some(7), &answer(code, message));
            assert_eq!(problem(verdict), Some((is_rate_limit, Some(7))), "{status} {code}");
        }
        for (status, body) in [
            (200, r#"{"result": true, "code": 0, "data": {"#),
            (200, "<html>"),
            (500, r#"{"result":false,"data":null,"message":"Request is abnormal"}"#),
            (502, "<html>"),
            (503, ""),
            (504, ""),
        ] {
            assert_eq!(
                problem(judge(status, None, body.as_bytes())),
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
            let Verdict::Refused(refused) = judge(status, None, &answer(code, message)) else {
                panic!("{code} is not refused");
            };
            assert_eq!((refused.code, refused.message.as_str()), (Some(code), message));
            assert_eq!(refused.is_unknown_endpoint(), status == 404);
        }
        let of_esb = br#"{"result":false,"data":null,"message":"The content does not exist"}"#;
        let Verdict::Refused(refused) = judge(404, None, of_esb) else { panic!() };
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

    /// A batch of four rows, the second of which is not sent.
    fn batch() -> Resolved {
        let pairs = BTreeMap::from([(0, [1, 2]), (2, [3, 4]), (3, [5, 6])]);
        let refused = BTreeMap::from([(1, Refusal::unsent("not_an_id", "x"))]);
        Resolved { batch: 7, pairs, refused }
    }

    #[test]
    fn an_explained_answer_names_code_reason_and_link_in_the_way() {
        let data = json!({
            "success_created": {"0": 73}, "error_msg": {"1": "taken text", "2": "other text"},
            "error_detail": {
                "1": {"code": 1101061, "reason": "target_taken", "blocking_id": 9},
                "2": {"code": 1101061, "reason": "target_taken", "blocking_index": 0},
            },
        });
        let outcome = outcome(&batch(), data, Mode::Create, true).unwrap();
        assert_eq!(outcome.created, BTreeMap::from([(0, 73)]));
        let refused = |row: usize| {
            let Refusal { code, reason, blocking_id, .. } = &outcome.refused[&row];
            (*code, reason.as_str(), *blocking_id)
        };
        assert_eq!(refused(1), (None, "not_an_id", None));
        assert_eq!(refused(2), (Some(1_101_061), "target_taken", Some(9)));
        assert_eq!(refused(3), (Some(1_101_061), "target_taken", Some(73)));
    }

    #[test]
    fn the_texts_of_the_original_are_understood_in_both_languages() {
        let data = json!({"success_created": {}, "error_msg": {
            "0": "the associations bk_switch->host already exist", "1": "被关联实例不存在", "2": "new",
        }});
        assert!(!is_explained(&data));
        let found = outcome(&batch(), data.clone(), Mode::Create, false).unwrap();
        let refused = |row: usize| (found.refused[&row].code, found.refused[&row].reason.as_str());
        assert_eq!(refused(0), (Some(1_101_038), "already_exists"));
        assert_eq!(refused(2), (Some(1_101_074), "target_missing"));
        assert_eq!(refused(3), (None, "other"));
        let found = outcome(&batch(), data, Mode::Create, true).unwrap();
        assert_eq!(found.existing, BTreeMap::from([(0, 0)]));
        assert_eq!(found.refused.len(), 3);
    }

    #[test]
    fn a_dry_run_tells_links_that_exist_from_new_ones() {
        let data = json!({"success_created": {"0": 0, "1": 73, "2": 0}, "error_msg": {}});
        let outcome = outcome(&batch(), data, Mode::DryRun, true).unwrap();
        assert_eq!(outcome.created, BTreeMap::from([(0, 0), (3, 0)]));
        assert_eq!(outcome.existing, BTreeMap::from([(2, 73)]));
    }

    #[test]
    fn of_a_batch_that_is_refused_as_a_whole_every_row_is_refused() {
        let refused = |code, data, permission| RefusedRequest {
            status: 200,
            code: Some(code),
            message: "No.".to_owned(),
            data,
            permission,
        };
        let data = json!({
            "success_created": {}, "error_msg": {"1": "Associated instance does not exist"},
            "error_detail": {"1": {"code": 1101074, "reason": "target_missing"}},
        });
        let outcome = refused_rows(&batch(), &refused(1_101_074, data, Value::Null)).unwrap();
        let reasons: Vec<_> = outcome.refused.values().map(|one| one.reason.as_str()).collect();
        assert_eq!(reasons, ["batch_refused", "not_an_id", "target_missing", "batch_refused"]);

        let permission = json!({"actions": [{"related_resource_types": [
            {"instances": [[{"type": "sys_host", "id": "3"}], [{"type": "sys_host", "id": "5"}]]},
        ]}]});
        let outcome = refused_rows(&batch(), &refused(9_900_403, Value::Null, permission)).unwrap();
        assert_eq!(outcome.refused[&0].message, "No. Instances: 3, 5");
        assert_eq!(outcome.refused[&1].reason, "not_an_id");

        assert_eq!(refused_rows(&batch(), &refused(1_199_006, Value::Null, Value::Null)), None);
    }
}
