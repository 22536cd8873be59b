//! What an answer says of each row of its batch.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

use super::response::RefusedRequest;
use super::{BatchResult, Mode, ResolvedBatch, RowError};

/// What became of details, by their indexes.
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
pub fn batch_result(
    batch: &ResolvedBatch, data: Value, mode: Mode, accepts_existing: bool,
) -> Result<BatchResult, serde_json::Error> {
    let is_explained = is_explained(&data);
    let data: Data = serde_json::from_value(data)?;
    let created = data.success_created.unwrap_or_default();
    let texts = data.error_msg.unwrap_or_default();
    let explanations = data.error_detail.unwrap_or_default();
    let mut result = BatchResult {
        batch: batch.batch,
        refused: batch.refused.clone(),
        ..BatchResult::default()
    };
    let mut pairs = HashSet::new();
    for (index, (&row, pair)) in batch.pairs.iter().enumerate() {
        let is_repeated = !pairs.insert(pair);
        match (created.get(&index), texts.get(&index)) {
            // A repeated pair would not be created again.
            (Some(&id), _) if mode == Mode::DryRun && (id != 0 || is_repeated) => {
                result.existing.insert(row, id);
            }
            (Some(&id), _) => {
                result.created.insert(row, id);
            }
            (None, text) => {
                let text = text.map_or("the answer does not mention it", String::as_str);
                let error = row_error(text, explanations.get(&index), &created);
                if accepts_existing && !is_explained && error.reason == "already_exists" {
                    result.existing.insert(row, 0);
                } else {
                    result.refused.insert(row, error);
                }
            }
        }
    }
    Ok(result)
}

fn row_error(
    text: &str, explanation: Option<&Explanation>, created: &HashMap<usize, i64>,
) -> RowError {
    let known =
        TEXTS.iter().find(|(end, ..)| text == *end || end.starts_with(' ') && text.ends_with(end));
    let (code, reason) = known.map_or((None, "other"), |(_, code, reason)| (Some(*code), *reason));
    let Some(explanation) = explanation.cloned() else {
        return RowError { code, ..RowError::unsent(reason, text) };
    };
    let of_batch = explanation.blocking_index.and_then(|index| created.get(&index).copied());
    RowError {
        code: explanation.code.or(code),
        reason: explanation.reason.unwrap_or_else(|| reason.to_owned()),
        message: text.to_owned(),
        blocking_id: explanation.blocking_id.or(of_batch).filter(|id| *id != 0),
    }
}

/// What became of each row of a batch of which nothing was created, because of some rows.
pub fn refused_batch(batch: &ResolvedBatch, refused: BTreeMap<usize, RowError>) -> BatchResult {
    let others = "not created, because other rows of its batch were refused";
    let mut refused = refused;
    for row in batch.pairs.keys() {
        refused.entry(*row).or_insert_with(|| RowError::unsent("batch_refused", others));
    }
    refused.extend(batch.refused.clone());
    BatchResult { batch: batch.batch, refused, ..BatchResult::default() }
}

/// What became of each row of a batch that was refused as a whole because of its rows; nothing, if
/// it was refused for another reason.
pub fn refused_rows(batch: &ResolvedBatch, refused: &RefusedRequest) -> Option<BatchResult> {
    if refused.is_missing_permission() {
        let ids = refused.forbidden_instances();
        let named = ids.iter().take(20).cloned().collect::<Vec<_>>().join(", ");
        let more = if ids.len() > 20 { ", …" } else { "" };
        let message = match ids.len() {
            0 => refused.message.clone(),
            _ => format!("{} Instances: {named}{more}", refused.message),
        };
        let error = RowError { code: refused.code, ..RowError::unsent("permission", message) };
        let rows = batch.pairs.keys().map(|row| (*row, error.clone())).collect();
        return Some(refused_batch(batch, rows));
    }
    let data: Data = serde_json::from_value(refused.data.clone()).ok()?;
    let (texts, explanations) = (data.error_msg?, data.error_detail.unwrap_or_default());
    if texts.is_empty() {
        return None;
    }
    let rows: Vec<_> = batch.pairs.keys().collect();
    let rows = texts.iter().filter_map(|(index, text)| {
        let error = row_error(text, explanations.get(index), &HashMap::new());
        Some((**rows.get(*index)?, error))
    });
    Some(refused_batch(batch, rows.collect()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A batch of four rows, the second of which is not sent.
    fn batch() -> ResolvedBatch {
        let pairs = BTreeMap::from([(0, [1, 2]), (2, [3, 4]), (3, [5, 6])]);
        let refused = BTreeMap::from([(1, RowError::unsent("not_an_id", "x"))]);
        ResolvedBatch { batch: 7, pairs, refused }
    }

    #[test]
    fn an_explained_answer_names_code_reason_and_link_in_the_way() {
        let data = json!({
            "success_created": {"0": 73}, "error_msg": {"1": "taken text", "2": "other text"},
            "error_detail": {
                "1": {"code": 1_101_061, "reason": "target_taken", "blocking_id": 9},
                "2": {"code": 1_101_061, "reason": "target_taken", "blocking_index": 0},
            },
        });
        let result = batch_result(&batch(), data, Mode::Create, true).unwrap();
        assert_eq!(result.created, BTreeMap::from([(0, 73)]));
        let refused = |row: usize| {
            let RowError { code, reason, blocking_id, .. } = &result.refused[&row];
            (*code, reason.as_str(), *blocking_id)
        };
        assert_eq!(refused(1), (None, "not_an_id", None));
        assert_eq!(refused(2), (Some(1_101_061), "target_taken", Some(9)));
        assert_eq!(refused(3), (Some(1_101_061), "target_taken", Some(73)));
    }

    #[test]
    fn the_texts_of_the_original_are_understood_in_both_languages() {
        let data = json!({"success_created": {}, "error_msg": {
            "0": "the associations bk_switch->host already exist",
            "1": "被关联实例不存在",
            "2": "new",
        }});
        assert!(!is_explained(&data));
        let found = batch_result(&batch(), data.clone(), Mode::Create, false).unwrap();
        let refused = |row: usize| (found.refused[&row].code, found.refused[&row].reason.as_str());
        assert_eq!(refused(0), (Some(1_101_038), "already_exists"));
        assert_eq!(refused(2), (Some(1_101_074), "target_missing"));
        assert_eq!(refused(3), (None, "other"));
        let found = batch_result(&batch(), data, Mode::Create, true).unwrap();
        assert_eq!(found.existing, BTreeMap::from([(0, 0)]));
        assert_eq!(found.refused.len(), 3);
    }

    #[test]
    fn a_dry_run_tells_links_that_exist_from_new_ones() {
        let data = json!({"success_created": {"0": 0, "1": 73, "2": 0}, "error_msg": {}});
        let result = batch_result(&batch(), data, Mode::DryRun, true).unwrap();
        assert_eq!(result.created, BTreeMap::from([(0, 0), (3, 0)]));
        assert_eq!(result.existing, BTreeMap::from([(2, 73)]));
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
            "error_detail": {"1": {"code": 1_101_074, "reason": "target_missing"}},
        });
        let result = refused_rows(&batch(), &refused(1_101_074, data, Value::Null)).unwrap();
        let reasons: Vec<_> = result.refused.values().map(|one| one.reason.as_str()).collect();
        assert_eq!(reasons, ["batch_refused", "not_an_id", "target_missing", "batch_refused"]);

        let permission = json!({"actions": [{"related_resource_types": [
            {"instances": [[{"type": "sys_host", "id": "3"}], [{"type": "sys_host", "id": "5"}]]},
        ]}]});
        let result = refused_rows(&batch(), &refused(9_900_403, Value::Null, permission)).unwrap();
        assert_eq!(result.refused[&0].message, "No. Instances: 3, 5");
        assert_eq!(result.refused[&1].reason, "not_an_id");

        assert_eq!(refused_rows(&batch(), &refused(1_199_006, Value::Null, Value::Null)), None);
    }
}
