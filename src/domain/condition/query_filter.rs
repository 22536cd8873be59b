//! Conditions in the form of a query filter: groups of rules, such as
//! `{"condition": "AND", "rules": [{"field": "id", "operator": "greater", "value": 5}]}`.
//!
//! The whole text is parsed before any part of it is checked, as the original does: what is no
//! group or rule is a wrong type; then each rule is checked in order, and the first that is invalid
//! is named; then the depth.

use serde_json::value::RawValue;

use super::compare::{compare, equal, exists, is_null, matches, one_of};
use super::json::{Json, Members};
use super::pattern::Pattern;
use super::{Condition, Field, Order};
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
    let condition = filter.check::<F>().map_err(|problem| match problem {
        Problem::Invalid(key) => invalid(&key),
        Problem::Unrecognized(key, text) => {
            RequestError::Unrecognized(format!("{name}.{key}: {text}").into())
        }
    })?;
    if filter.depth() > DEPTH_LIMIT {
        return Err(invalid("rules"));
    }
    Ok(condition)
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
    Invalid(String),
    Unrecognized(String, String),
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
            Self::Unrecognized(key, text) => Self::Unrecognized(outer(key), text),
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
    if depth > PARSE_LIMIT || *count > RULE_LIMIT + 1 {
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
        let conditions = rules
            .iter()
            .enumerate()
            .map(|(index, rule)| rule.check().map_err(|problem| problem.in_rule(index)));
        let conditions = conditions.collect::<Result<Vec<_>, _>>()?;
        Ok(if is_or { Condition::any(conditions) } else { Condition::all(conditions) })
    }
}

/// What an operator does, apart from whether it is negated.
#[derive(Clone, Copy)]
enum Operator {
    Equal,
    In,
    Compare(Order),
    CompareTime(Order),
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
        use Order::{Greater, GreaterOrEqual, Less, LessOrEqual};
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
                Err(error) => Err(Problem::Unrecognized("value".to_owned(), error.to_string())),
            }
        };
        match operator {
            Operator::Equal if value.is_compound() || matches!(value, Json::Null) => Err(invalid()),
            Operator::Equal => Ok(equal(field, value)),
            Operator::In => Ok(one_of(field, list(value)?)),
            Operator::Compare(_) if !matches!(value, Json::Number(_)) => Err(invalid()),
            Operator::Compare(order) => Ok(compare(field, order, value)),
            Operator::CompareTime(order) => {
                let text = text(value).filter(|text| is_time(text)).ok_or_else(invalid)?;
                // Only a date without a time is compared as the text that it is. No field is a time.
                let is_date = text.len() == "2020-01-01".len();
                let compared = is_date.then(|| compare(field, order, Json::Text(text)));
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
            return Err(Problem::Unrecognized("value".to_owned(), why));
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
mod tests {
    use super::*;
    use crate::domain::condition::{LinkField as F, Test};

    type Outcome = Result<Condition<F>, String>;

    /// The condition, or the key of the part that is invalid, or the reason of another refusal.
    fn parsed(json: &str) -> Outcome {
        parse("conditions", json).map_err(|error| match error {
            RequestError::InvalidField(key) => key.into_owned(),
            RequestError::Unrecognized(why) => format!("1199998 {why}"),
            RequestError::WrongType { .. } => format!("1199000 {error}"),
            other => panic!("{other}"),
        })
    }

    fn group(condition: &str, rules: &[String]) -> String {
        format!(r#"{{"condition":"{condition}","rules":[{}]}}"#, rules.join(","))
    }

    fn rule(field: &str, operator: &str, value: &str) -> String {
        format!(r#"{{"field":"{field}","operator":"{operator}","value":{value}}}"#)
    }

    /// A filter of one rule.
    fn one(field: &str, operator: &str, value: &str) -> Outcome {
        parsed(&group("AND", &[rule(field, operator, value)]))
    }

    fn invalid(key: &str) -> Outcome {
        Err(format!("conditions.{key}"))
    }

    fn nested(groups: usize) -> String {
        let (start, end) = (r#"{"condition":"AND","rules":["#, "]}");
        format!("{}{}{}", start.repeat(groups), rule("id", "equal", "5"), end.repeat(groups))
    }

    #[test]
    fn what_is_no_group_or_rule_is_a_wrong_type() {
        for (json, problem) in [
            ("{}", "conditions: expected a group or a rule"),
            ("[]", "conditions: expected an object, got an array"),
            (r#""x""#, "conditions: expected an object, got a string"),
            (r#"{"rules":[]}"#, "conditions: expected a group or a rule"),
            (r#"{"Condition":"AND","rules":[]}"#, "conditions: expected a group or a rule"),
            (
                r#"{"condition":1,"rules":[]}"#,
                "conditions.condition: expected a string, got an integer",
            ),
            (
                r#"{"condition":"AND","rules":{}}"#,
                "conditions.rules: expected an array, got an object",
            ),
            (
                r#"{"condition":"AND","rules":[{}]}"#,
                "conditions.rules[0]: expected a group or a rule",
            ),
            (
                r#"{"condition":"AND","rules":[null,5]}"#,
                "conditions.rules[1]: expected an object, got an integer",
            ),
            (
                r#"{"condition":"AND","rules":[{"field":5,"operator":"equal"}]}"#,
                "conditions.rules[0].field: expected a string, got an integer",
            ),
            (
                r#"{"condition":"AND","condition":"OR","rules":[]}"#,
                "conditions.condition: given twice",
            ),
            // The whole text is parsed before the first rule is checked.
            (
                r#"{"condition":"AND","rules":[{"operator":"x"},{}]}"#,
                "conditions.rules[1]: expected a group or a rule",
            ),
        ] {
            assert_eq!(parsed(json), Err(format!("1199000 {problem}")), "{json}");
        }
        assert_eq!(parsed("null"), Ok(Condition::always()));
    }

    #[test]
    fn groups_are_checked_before_their_rules_and_the_depth_last() {
        let bad = || rule("id", "x", "5");
        assert_eq!(parsed(&rule("id", "equal", "5")), invalid(""));
        assert_eq!(parsed(&group("and", &[bad()])), invalid("condition"));
        assert_eq!(parsed(r#"{"condition":null}"#), invalid("condition"));
        assert_eq!(parsed(r#"{"condition":"AND","rules":null}"#), invalid("rules"));
        assert_eq!(parsed(&group("AND", &["null".to_owned()])), invalid("rules"));
        assert_eq!(parsed(&group("OR", &vec![bad(); 21])), invalid("rules"));
        assert_eq!(parsed(&group("OR", &vec![bad(); 20])), invalid("rules[0].operator"));
        let inner = group("AND", &[rule("id", "equal", "5"), bad()]);
        assert_eq!(parsed(&group("OR", &[inner])), invalid("rules[0].rules[1].operator"));
        assert!(parsed(&nested(2)).is_ok());
        assert_eq!(parsed(&nested(3)), invalid("rules"));
        let deep = nested(3).replace("equal", "x");
        assert_eq!(parsed(&deep), invalid("rules[0].rules[0].rules[0].operator"));
        assert_eq!(parsed(&nested(20_000)), Err("conditions.rules".to_owned()));
    }

    #[test]
    fn a_filter_has_at_most_500_rules() {
        let rules = |count| group("AND", &vec![rule("id", "less", "5"); count]);
        assert!(parsed(&rules(RULE_LIMIT)).is_ok());
        assert_eq!(parsed(&rules(RULE_LIMIT + 1)), invalid("rules"));
        assert_eq!(parsed(&rules(20_000)), invalid("rules"));
    }

    #[test]
    fn a_rule_is_checked_in_the_order_operator_field_value() {
        assert_eq!(one("$x", "between", "null"), invalid("rules[0].operator"));
        assert_eq!(one("id", "EQUAL", "1"), invalid("rules[0].operator"));
        for field in ["", "$x", "a b", "_id", "-a", "é"] {
            assert_eq!(one(field, "equal", "null"), invalid("rules[0].field"), "{field}");
        }
        assert_eq!(one("a-b_c.d0", "equal", "null"), invalid("rules[0].value"));
    }

    #[test]
    fn each_operator_accepts_values_of_its_types() {
        const ALL: [&str; 9] = ["null", "1", "0.5", r#""a""#, r#""""#, "true", "[]", "[[1]]", "{}"];
        for (operators, accepted) in [
            ("equal not_equal", &["1", "0.5", r#""a""#, r#""""#, "true"][..]),
            ("less less_or_equal greater greater_or_equal", &["1", "0.5"]),
            ("begins_with not_begins_with contains", &[r#""a""#]),
            ("not_contains ends_with not_ends_with", &[r#""a""#]),
            ("is_empty is_not_empty is_null is_not_null exist not_exist", &ALL),
        ] {
            for operator in operators.split(' ') {
                for value in ALL {
                    let outcome = one("id", operator, value);
                    let is_accepted = accepted.contains(&value);
                    assert_eq!(outcome.is_ok(), is_accepted, "{operator} {value}");
                    if !is_accepted {
                        assert_eq!(outcome, invalid("rules[0].value"), "{operator} {value}");
                    }
                }
            }
        }
        for operator in ["in", "not_in"] {
            for value in [r#"["a","b"]"#, "[1,2.5]", "[true]", "[]"] {
                assert!(one("id", operator, value).is_ok(), "{operator} {value}");
            }
            for value in ["1", r#""a""#, "{}", "[null]", "[[1]]", r#"[1,"a"]"#, "[1,true]"] {
                let outcome = one("id", operator, value);
                assert_eq!(outcome, invalid("rules[0].value"), "{operator} {value}");
            }
        }
        assert!(one("id", "in", &format!("[{}]", vec!["1"; 500].join(","))).is_ok());
        let many = format!("[{}]", vec!["1"; 501].join(","));
        assert_eq!(one("id", "in", &many), invalid("rules[0].value"));
    }

    #[test]
    fn a_list_that_is_null_and_a_bad_pattern_are_other_refusals() {
        let why = |text: &str| Err(format!("1199998 conditions.rules[0].value: {text}"));
        assert_eq!(one("id", "in", "null"), why("expected an array, got null"));
        let bad = one("bk_obj_id", "contains", r#""(""#);
        assert_eq!(bad, why("the pattern is invalid: unclosed group"));
    }

    #[test]
    fn texts_are_patterns_and_only_contains_ignores_case() {
        for (operator, value, pattern, is_case_insensitive, is_negated) in [
            ("begins_with", "gd_.*host$", "^gd_.*host$", false, false),
            ("not_begins_with", "a", "^a", false, true),
            ("contains", "run|host", "run|host", true, false),
            ("not_contains", "a", "a", false, true),
            ("ends_with", "host", "host$", false, false),
            ("not_ends_with", "host", "host$", false, true),
        ] {
            let pattern = Pattern::parse(pattern, is_case_insensitive).unwrap();
            let condition = Condition::Test(F::SourceModel, Test::TextMatches(pattern));
            let expected = if is_negated { Condition::not(condition) } else { condition };
            assert_eq!(one("bk_obj_id", operator, &format!(r#""{value}""#)), Ok(expected));
        }
    }

    #[test]
    fn an_unknown_field_is_missing() {
        for (operator, value, is_always) in [
            ("equal", "1", false),
            ("not_equal", "1", true),
            ("in", "[1]", false),
            ("not_in", "[1]", true),
            ("greater", "1", false),
            ("contains", r#""a""#, false),
            ("not_contains", r#""a""#, true),
            ("is_empty", "null", false),
            ("is_not_empty", "null", true),
            ("is_null", "null", true),
            ("is_not_null", "null", false),
            ("exist", "null", false),
            ("not_exist", "null", true),
        ] {
            let expected = Condition::constant(is_always);
            assert_eq!(one("create_time", operator, value), Ok(expected), "{operator}");
        }
        assert_eq!(one("id", "in", "[]"), Ok(Condition::never()));
        assert_eq!(one("id", "not_in", "[]"), Ok(Condition::always()));
    }

    #[test]
    fn times_match_nothing_and_a_date_is_a_text() {
        let operators = [
            "datetime_less",
            "datetime_less_or_equal",
            "datetime_greater",
            "datetime_greater_or_equal",
        ];
        for operator in operators {
            for time in [
                "2020-01-01 00:00:00",
                "2020-01-01T00:00:00+08:00",
                "2020-01-01T00:00:00Z",
                "2020-01-01T00:00:00.123-08:00",
            ] {
                let outcome = one("bk_obj_id", operator, &format!("\"{time}\""));
                assert_eq!(outcome, Ok(Condition::never()), "{time}");
            }
            for other in [
                r#""x""#,
                "5",
                "null",
                r#""""#,
                r#""2020-1-1""#,
                r#""2020-01-01T00:00:00""#,
                r#""2020-01-01T00:00:00.Z""#,
                r#""2020-01-01 00:00""#,
            ] {
                assert_eq!(one("x", operator, other), invalid("rules[0].value"), "{other}");
            }
            assert_eq!(one("id", operator, r#""2020-01-01""#), Ok(Condition::never()));
        }
        let expected = Test::TextOrder(Order::Less, "2020-01-01".to_owned());
        let outcome = one("bk_obj_id", "datetime_less", r#""2020-01-01""#);
        assert_eq!(outcome, Ok(Condition::Test(F::SourceModel, expected)));
    }
}
