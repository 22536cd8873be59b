//! Conditions in the form of a query filter: groups of rules, such as
//! `{"condition": "AND", "rules": [{"field": "id", "operator": "greater", "value": 5}]}`.
//!
//! The whole text is parsed before any part of it is checked, as the original does: what is no
//! group or rule is a wrong type; then each rule is checked in order, and the first that is invalid
//! is named; then the depth; then what its database refuses.

use serde_json::value::RawValue;

use crate::domain::condition::compare::{compare, equal, exists, is_null, matches, one_of};
use crate::domain::condition::json::{Json, Members};
use crate::domain::condition::pattern::Pattern;
use crate::domain::condition::{Comparison, Condition, Field};
use crate::domain::error::RequestError;

/// The most levels, of which the rules are the last one.
pub const DEPTH_LIMIT: usize = 3;

/// The most rules and groups in a group of alternatives.
pub const OR_LIMIT: usize = 20;

/// The most values in a list.
pub const VALUE_LIMIT: usize = 500;

/// The most rules and groups in a filter. The original has no limit.
pub const RULE_LIMIT: usize = 500;

/// The levels that are parsed. Deeper ones are refused for their depth, whatever they hold.
const PARSE_LIMIT: usize = 32;

/// Parses the filter that a body has under `name`. `json` is JSON text; null is every row.
pub fn parse<F: Field>(name: &str, json: &str) -> Result<Condition<F>, RequestError> {
    let invalid = |key: &str| RequestError::InvalidField(format!("{name}.{key}").into());
    let mut count = 0;
    let filter = match read(name, json, 1, &mut count)? {
        None => return Ok(Condition::always()),
        Some(filter @ Filter::Group { .. }) => filter,
        Some(Filter::Rule(_)) => return Err(invalid("")),
        Some(Filter::TooLarge) => return Err(invalid("rules")),
    };
    match filter.check() {
        Err(Problem::Invalid(key)) => Err(invalid(&key)),
        _ if filter.depth() > DEPTH_LIMIT => Err(invalid("rules")),
        Err(Problem::WithoutCode(key, text)) => {
            Err(RequestError::WithoutCode(format!("{name}.{key}: {text}").into()))
        }
        Ok(condition) => Ok(condition),
    }
}

/// A filter, or a part of one, that has the form of one.
enum Filter<'a> {
    /// Rules that are combined.
    Group { condition: String, rules: Vec<Self> },
    /// A test of a field.
    Rule(Rule<'a>),
    /// A part that is too deep or of too many rules to be parsed.
    TooLarge,
}

struct Rule<'a> {
    field: String,
    operator: String,
    value: Option<&'a RawValue>,
}

/// Why a part of a filter is refused, with the key of the part.
enum Problem {
    /// It is invalid.
    Invalid(String),
    /// The original's database refuses it, so after everything that is invalid; and why.
    WithoutCode(String, String),
}

impl Problem {
    fn invalid(key: &str) -> Self {
        Self::Invalid(key.to_owned())
    }

    /// The problem of the rule with this index in a group.
    fn in_rule(self, index: usize) -> Self {
        let outer = |key| format!("rules[{index}].{key}");
        match self {
            Self::Invalid(key) => Self::Invalid(outer(key)),
            Self::WithoutCode(key, text) => Self::WithoutCode(outer(key), text),
        }
    }
}

/// Reads a group or a rule; null is none.
fn read<'a>(
    place: &str, json: &'a str, depth: usize, count: &mut usize,
) -> Result<Option<Filter<'a>>, RequestError> {
    let wrong = |problem: String| RequestError::WrongType { path: place.to_owned(), problem };
    let members = match Json::read(place, json)? {
        Json::Null => return Ok(None),
        Json::Object(members) => members,
        other => return Err(wrong(format!("expected an object, got {}", other.description()))),
    };
    *count += 1;
    // The filter itself is not counted.
    if depth > PARSE_LIMIT || *count > RULE_LIMIT + 1 || members.len() > RULE_LIMIT {
        return Ok(Some(Filter::TooLarge));
    }
    let text = |key: &str, json: Option<&'a RawValue>| {
        let place = format!("{place}.{key}");
        match json.map(|json| Json::read(&place, json.get())).transpose()? {
            None | Some(Json::Null) => Ok(String::new()),
            Some(Json::Text(text)) => Ok(text),
            Some(other) => Err(RequestError::WrongType {
                path: place,
                problem: format!("expected a string, got {}", other.description()),
            }),
        }
    };
    let condition = member(place, &members, "condition")?;
    if condition.is_some() {
        let condition = text("condition", condition)?;
        let outer = place;
        let place = format!("{place}.rules");
        let elements = match member(outer, &members, "rules")? {
            None => Vec::new(),
            Some(json) => match Json::read(&place, json.get())? {
                Json::Null => Vec::new(),
                Json::List(elements) => elements,
                other => {
                    let problem = format!("expected an array, got {}", other.description());
                    return Err(RequestError::WrongType { path: place, problem });
                }
            },
        };
        // Null rules do not count, but the end of a longer list was not read.
        if elements.len() > RULE_LIMIT {
            return Ok(Some(Filter::TooLarge));
        }
        let mut rules = Vec::new();
        for (index, json) in elements.into_iter().enumerate() {
            match read(&format!("{place}[{index}]"), json.get(), depth + 1, count)? {
                None => {}
                Some(Filter::TooLarge) => return Ok(Some(Filter::TooLarge)),
                Some(rule) => rules.push(rule),
            }
        }
        return Ok(Some(Filter::Group { condition, rules }));
    }
    let operator = member(place, &members, "operator")?;
    if operator.is_none() {
        return Err(wrong("expected a group or a rule".to_owned()));
    }
    let operator = text("operator", operator)?;
    let field = text("field", member(place, &members, "field")?)?;
    let value = member(place, &members, "value")?;
    Ok(Some(Filter::Rule(Rule { field, operator, value })))
}

/// The member with this key.
fn member<'a>(
    place: &str, members: &Members<'a>, key: &str,
) -> Result<Option<&'a RawValue>, RequestError> {
    let mut found = members.iter().filter(|(name, _)| name == key).map(|(_, json)| *json);
    let first = found.next();
    if found.next().is_some() {
        let path = format!("{place}.{key}");
        return Err(RequestError::WrongType { path, problem: "given twice".to_owned() });
    }
    Ok(first)
}

impl Filter<'_> {
    /// How many levels it has.
    fn depth(&self) -> usize {
        match self {
            Self::Group { rules, .. } => 1 + rules.iter().map(Self::depth).max().unwrap_or(0),
            Self::Rule(_) | Self::TooLarge => 1,
        }
    }

    /// Checks it, in the order of the original, and translates it.
    fn check<F: Field>(&self) -> Result<Condition<F>, Problem> {
        let (condition, rules) = match self {
            Self::Rule(rule) => return rule.check(),
            Self::TooLarge => return Err(Problem::invalid("rules")),
            Self::Group { condition, rules } => (condition, rules),
        };
        let is_or = match condition.as_str() {
            "AND" => false,
            "OR" => true,
            _ => return Err(Problem::invalid("condition")),
        };
        if rules.is_empty() || is_or && rules.len() > OR_LIMIT {
            return Err(Problem::invalid("rules"));
        }
        let (mut conditions, mut unrecognized) = (Vec::new(), None);
        for (index, rule) in rules.iter().enumerate() {
            match rule.check() {
                Ok(condition) => conditions.push(condition),
                Err(problem @ Problem::Invalid(_)) => return Err(problem.in_rule(index)),
                Err(problem) => unrecognized = unrecognized.or(Some(problem.in_rule(index))),
            }
        }
        if let Some(problem) = unrecognized {
            return Err(problem);
        }
        Ok(if is_or { Condition::any(conditions) } else { Condition::all(conditions) })
    }
}

/// What an operator does, apart from whether it is negated.
#[derive(Clone, Copy)]
enum Operator {
    Equal,
    In,
    Compare(Comparison),
    CompareTime(Comparison),
    BeginsWith,
    Contains { is_case_insensitive: bool },
    EndsWith,
    IsEmpty,
    IsNull,
    Exists,
}

impl Operator {
    /// The operator of this name, and whether it is negated.
    fn by_name(name: &str) -> Option<(Self, bool)> {
        use Comparison::{Greater, GreaterOrEqual, Less, LessOrEqual};
        Some(match name {
            "equal" => (Self::Equal, false),
            "not_equal" => (Self::Equal, true),
            "in" => (Self::In, false),
            "not_in" => (Self::In, true),
            "less" => (Self::Compare(Less), false),
            "less_or_equal" => (Self::Compare(LessOrEqual), false),
            "greater" => (Self::Compare(Greater), false),
            "greater_or_equal" => (Self::Compare(GreaterOrEqual), false),
            "datetime_less" => (Self::CompareTime(Less), false),
            "datetime_less_or_equal" => (Self::CompareTime(LessOrEqual), false),
            "datetime_greater" => (Self::CompareTime(Greater), false),
            "datetime_greater_or_equal" => (Self::CompareTime(GreaterOrEqual), false),
            "begins_with" => (Self::BeginsWith, false),
            "not_begins_with" => (Self::BeginsWith, true),
            // Only the positive one ignores case, as in the original.
            "contains" => (Self::Contains { is_case_insensitive: true }, false),
            "not_contains" => (Self::Contains { is_case_insensitive: false }, true),
            "ends_with" => (Self::EndsWith, false),
            "not_ends_with" => (Self::EndsWith, true),
            "is_empty" => (Self::IsEmpty, false),
            "is_not_empty" => (Self::IsEmpty, true),
            "is_null" => (Self::IsNull, false),
            "is_not_null" => (Self::IsNull, true),
            "exist" => (Self::Exists, false),
            "not_exist" => (Self::Exists, true),
            _ => return None,
        })
    }
}

impl Rule<'_> {
    /// Checks it, in the order of the original, and translates it.
    fn check<F: Field>(&self) -> Result<Condition<F>, Problem> {
        let (operator, is_negated) =
            Operator::by_name(&self.operator).ok_or_else(|| Problem::invalid("operator"))?;
        if !is_field_name(&self.field) {
            return Err(Problem::invalid("field"));
        }
        let condition = self.condition(F::by_name(&self.field), operator)?;
        Ok(if is_negated { Condition::not(condition) } else { condition })
    }

    fn condition<F: Field>(
        &self, field: Option<F>, operator: Operator,
    ) -> Result<Condition<F>, Problem> {
        let invalid = || Problem::invalid("value");
        let value = match self.value {
            None => Json::Null,
            Some(json) => Json::read("", json.get()).map_err(|_error| invalid())?,
        };
        let match_text = |value: Json<'_>, start: &str, end: &str, is_case_insensitive: bool| {
            let text = text(value).filter(|text| !text.is_empty()).ok_or_else(invalid)?;
            let pattern = Pattern::parse(&format!("{start}{text}{end}"), is_case_insensitive);
            match pattern {
                Ok(pattern) => Ok(matches(field, pattern)),
                Err(error) => Err(Problem::WithoutCode("value".to_owned(), error.to_string())),
            }
        };
        match operator {
            Operator::Equal if value.is_compound() || matches!(value, Json::Null) => Err(invalid()),
            Operator::Equal => Ok(equal(field, value)),
            Operator::In => Ok(one_of(field, list(value)?)),
            Operator::Compare(_) if !matches!(value, Json::Number(_)) => Err(invalid()),
            Operator::Compare(comparison) => Ok(compare(field, comparison, value)),
            Operator::CompareTime(comparison) => {
                let text = text(value).filter(|text| is_time(text)).ok_or_else(invalid)?;
                // A date without a time is compared as a text. No field is a time.
                let is_date = text.len() == "2020-01-01".len();
                let compared = is_date.then(|| compare(field, comparison, Json::Text(text)));
                Ok(compared.unwrap_or_else(Condition::never))
            }
            Operator::BeginsWith => match_text(value, "^", "", false),
            Operator::Contains { is_case_insensitive } => {
                match_text(value, "", "", is_case_insensitive)
            }
            Operator::EndsWith => match_text(value, "", "$", false),
            // Only an empty array is empty, and no field is an array.
            Operator::IsEmpty => Ok(Condition::never()),
            Operator::IsNull => Ok(is_null(field)),
            Operator::Exists => Ok(exists(field)),
        }
    }
}

fn text(value: Json<'_>) -> Option<String> {
    match value {
        Json::Text(text) => Some(text),
        _ => None,
    }
}

/// The values of `in` or `not_in`: all numbers, all texts or all booleans.
fn list(value: Json<'_>) -> Result<Vec<Json<'_>>, Problem> {
    let elements = match value {
        Json::List(elements) => elements,
        // The original accepts it, and its database then refuses it.
        Json::Null => {
            let why = "expected an array, got null".to_owned();
            return Err(Problem::WithoutCode("value".to_owned(), why));
        }
        _ => return Err(Problem::invalid("value")),
    };
    if elements.len() > VALUE_LIMIT {
        return Err(Problem::invalid("value"));
    }
    let values = elements.into_iter().map(|json| Json::read("", json.get()));
    let values: Result<Vec<_>, _> = values.collect();
    let values = values.map_err(|_error| Problem::invalid("value"))?;
    let is_basic = |value: &Json<'_>| !value.is_compound() && !matches!(value, Json::Null);
    let kinds = values.iter().map(std::mem::discriminant);
    let first = values.first().map(std::mem::discriminant);
    if !values.iter().all(is_basic) || !kinds.into_iter().all(|kind| Some(kind) == first) {
        return Err(Problem::invalid("value"));
    }
    Ok(values)
}

/// Whether it is a letter or digit, then letters, digits, `-`, `_` or `.`; all of them ASCII.
fn is_field_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Whether it has the form of a date, of a date with a time, or of RFC 3339.
fn is_time(text: &str) -> bool {
    let form: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let Some(rest) = form.strip_prefix("0000-00-00") else { return false };
    if rest.is_empty() || rest == " 00:00:00" {
        return true;
    }
    let Some(rest) = rest.strip_prefix("T00:00:00") else { return false };
    let zone = match rest.strip_prefix('.') {
        Some(fraction) if fraction.starts_with('0') => fraction.trim_start_matches('0'),
        Some(_) => return false,
        None => rest,
    };
    ["Z", "+00:00", "-00:00"].contains(&zone)
}

#[cfg(test)]
mod tests;
