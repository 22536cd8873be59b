//! What searches for instances have in common.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::filter::require_few_patterns;
use super::instance::InstanceData;
use super::json::RawJson;
use super::page::Page;
use super::stream;
use super::success::{Counts, Success};
use crate::domain::condition::time::{self, Second};
use crate::domain::condition::{Comparison, Condition, DocumentField, Field, mongo};
use crate::domain::error::RequestError;
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance_search::InstancePages;

/// Instances that were found.
#[derive(Serialize, ToSchema)]
pub(super) struct InstancesData {
    /// How many there are, whatever the page is.
    count: i64,
    /// Those on the page.
    #[schema(required)]
    info: Option<Vec<InstanceData>>,
}

/// Answers with the instances that were found; `None`: with none and `info` null.
pub(super) async fn stream_instances(
    cx: &RequestContext<'_>, found: Option<(i64, InstancePages)>,
) -> Result<Success<InstancesData>, Error> {
    let Some((count, pages)) = found else {
        return Ok(Success::new(InstancesData { count: 0, info: None }, Counts::default()));
    };
    let to_rows = |page: Vec<_>| page.into_iter().map(InstanceData::new).collect();
    let to_data = |info| InstancesData { count, info: Some(info) };
    stream::list(cx, pages, to_rows, to_data).await
}

/// The most rows to return; `None`: all.
pub(super) fn limit_or_all(page: &Page) -> Result<Option<i64>, RequestError> {
    Ok(Some(page.limit()?).filter(|limit| *limit > 0))
}

/// The most keys that a caller can list.
const KEY_LIMIT: usize = 1_000;

/// The keys of documents that a caller wants; `None`: all. No document has a key with a NUL.
pub(super) fn parse_keys(
    field: &str, keys: Option<Vec<String>>,
) -> Result<Option<Vec<String>>, RequestError> {
    let Some(mut keys) = keys.filter(|keys| !keys.is_empty()) else { return Ok(None) };
    keys.sort_unstable();
    keys.dedup();
    keys.retain(|key| !key.contains('\0'));
    if keys.len() > KEY_LIMIT {
        let why = format!("{field}: more than {KEY_LIMIT} keys");
        return Err(RequestError::WithoutCode(why.into()));
    }
    Ok(Some(keys))
}

/// The most rules in a condition.
const RULE_LIMIT: usize = 500;

/// A test of a key of instances.
#[derive(Default, Deserialize, ToSchema)]
pub(super) struct InstanceRule {
    /// The key.
    #[serde(default)]
    field: String,
    /// An operator of MongoDB, such as `$eq`, `$in`, `$gte` or `$regex`. For instances of the model
    /// that is searched, the value of `$regex` is a text that stands anywhere, not a pattern.
    #[serde(default)]
    operator: String,
    /// The value.
    #[schema(value_type = serde_json::Value)]
    value: Option<RawJson>,
}

/// The conditions of rules by models. A model without rules has none.
pub(super) fn parse_rules(
    own_model: &str, rules: BTreeMap<String, Option<Vec<Option<InstanceRule>>>>,
) -> Result<BTreeMap<String, Condition<DocumentField>>, RequestError> {
    let mut count = 0;
    let mut conditions = BTreeMap::new();
    for (model, rules) in rules {
        let rules = rules.unwrap_or_default();
        count += rules.len();
        if count > RULE_LIMIT {
            let why = format!("condition: more than {RULE_LIMIT} rules");
            return Err(RequestError::WithoutCode(why.into()));
        }
        let is_own = model == own_model;
        let rules: Vec<_> = rules
            .into_iter()
            .flatten()
            // The tenant is the caller's.
            .filter(|rule| rule.field != "bk_supplier_account")
            .map(|rule| parse_rule(is_own, &rule))
            .collect::<Result<_, _>>()?;
        if !rules.is_empty() {
            conditions.insert(model, Condition::all(rules));
        }
    }
    require_few_patterns(conditions.values().map(Condition::patterns).sum())?;
    Ok(conditions)
}

fn parse_rule(is_own: bool, rule: &InstanceRule) -> Result<Condition<DocumentField>, RequestError> {
    let InstanceRule { field, operator, value } = rule;
    let value = value.as_ref().map_or("null", |RawJson(json)| json);
    let text = serde_json::from_str::<String>(value).ok();
    let value = match text.filter(|_| is_own && operator == "$regex") {
        Some(text) => RawValue::from_string(json!(regex_syntax::escape(&text)).to_string()),
        None => RawValue::from_string(value.to_owned()),
    };
    let value = value.or(Err(RequestError::Internal))?;
    let condition = BTreeMap::from([(field, BTreeMap::from([(operator, value)]))]);
    let json = serde_json::to_string(&condition).or(Err(RequestError::Internal))?;
    mongo::parse("condition", &json)
}

/// A condition on times.
#[derive(Deserialize, ToSchema)]
pub(super) struct InstanceTimeCondition {
    /// `and`.
    #[schema(required, nullable = false)]
    oper: Option<String>,
    /// The conditions, all of which must be true. Of two with the same field, the later one counts.
    #[schema(required, nullable = false, min_items = 1)]
    rules: Option<Vec<TimeRule>>,
}

/// A condition on a time. At least one of its bounds is required.
#[derive(Deserialize, ToSchema)]
struct TimeRule {
    /// The field, such as `create_time`.
    #[schema(required, nullable = false)]
    field: Option<String>,
    /// The first second, as in `2026-01-31 18:00:00` (UTC).
    start: Option<String>,
    /// The last second.
    end: Option<String>,
}

impl InstanceTimeCondition {
    /// The condition on documents.
    pub(super) fn parse(self) -> Result<Condition<DocumentField>, RequestError> {
        if self.oper.as_deref() != Some("and") {
            return Err(RequestError::InvalidField("time_condition.oper".into()));
        }
        let rules = self.rules.unwrap_or_default();
        if rules.is_empty() {
            return Err(RequestError::UnassignedField("time_condition.rules"));
        }
        let mut conditions = Vec::<(String, Condition<DocumentField>)>::new();
        for TimeRule { field, start, end } in rules {
            let field = field.filter(|field| !field.is_empty());
            let field = field.ok_or(RequestError::UnassignedField("time_condition.rules.field"))?;
            if start.is_none() && end.is_none() {
                let problem = "time_condition.rules: neither start nor end";
                return Err(RequestError::InvalidField(problem.into()));
            }
            let field = match field.as_str() {
                "bk_created_at" => "create_time".to_owned(),
                "bk_updated_at" => "last_time".to_owned(),
                _ => field,
            };
            let part = |bound: &str, comparison, text: Option<String>| {
                let second = text.map(|text| parse_time(bound, &text)).transpose()?;
                let field = DocumentField::by_name(&field);
                let compare = |second| time::compare(field.as_ref(), comparison, &second);
                Ok::<_, RequestError>(second.map(compare))
            };
            let from = part("start", Comparison::GreaterOrEqual, start)?;
            let until = part("end", Comparison::LessOrEqual, end)?;
            conditions.retain(|(earlier, _)| *earlier != field);
            conditions.push((field, Condition::all(from.into_iter().chain(until))));
        }
        Ok(Condition::all(conditions.into_iter().map(|(_, condition)| condition)))
    }
}

fn parse_time(bound: &str, text: &str) -> Result<Second, RequestError> {
    Second::parse(text).ok_or_else(|| RequestError::WrongType {
        path: format!("time_condition.rules.{bound}"),
        problem: "expected a time such as 2026-01-31 18:00:00".to_owned(),
    })
}
