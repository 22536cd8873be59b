//! Conditions in the form of a query filter: groups of rules, such as
//! `{"condition": "AND", "rules": [{"field": "id", "operator": "greater", "value": 5}]}`.
//!
//! The whole text is parsed before any part of it is checked, as the original does: what is no
//! group or rule is a wrong type; then each rule is checked in order, and the first that is invalid
//! is named; then the depth; then what its database refuses.

mod rule;

use serde_json::value::RawValue;

use self::rule::Rule;
use crate::domain::condition::json::{Json, Members};
use crate::domain::condition::{Condition, Field};
use crate::domain::error::RequestError;

/// Where the filter is. The original has two forms of query filters, with different limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// In searches for links.
    Links,
    /// In searches for links with their instances, which have wider limits.
    DetailedLinks,
    /// In searches for hosts.
    Hosts,
    /// The newer form, in searches for instances.
    Instances,
}

impl Dialect {
    /// Whether it is the newer form.
    fn is_newer(self) -> bool {
        self == Self::Instances
    }

    /// The most levels, of which the rules are the last one.
    fn depth_limit(self) -> usize {
        if self == Self::DetailedLinks { PARSE_LIMIT } else { 3 }
    }

    /// The most rules and groups in a group.
    fn group_limit(self, is_or: bool) -> usize {
        match self {
            Self::Links if is_or => 20,
            Self::Links | Self::DetailedLinks | Self::Hosts => RULE_LIMIT,
            Self::Instances => 50,
        }
    }

    /// The most values in a list.
    fn value_limit(self) -> usize {
        match self {
            Self::Links | Self::Instances => 500,
            Self::DetailedLinks | Self::Hosts => 10_000,
        }
    }
}

/// The most rules and groups in a filter. The original has no limit.
pub const RULE_LIMIT: usize = 500;

/// The levels that are parsed. Deeper ones are refused for their depth, whatever they hold.
const PARSE_LIMIT: usize = 32;

/// Parses the filter that a body has under `name`. `json` is JSON text; null is every row.
pub fn parse<F: Field>(
    dialect: Dialect, name: &str, json: &str,
) -> Result<Condition<F>, RequestError> {
    let invalid = |key: &str| RequestError::InvalidField(format!("{name}.{key}").into());
    let mut count = 0;
    let filter = match read(dialect, name, json, 1, &mut count)? {
        None => return Ok(Condition::always()),
        Some(Filter::Rule(_)) if !dialect.is_newer() => return Err(invalid("")),
        Some(filter @ (Filter::Group { .. } | Filter::Rule(_))) => filter,
        Some(Filter::TooLarge) => return Err(invalid("rules")),
    };
    match filter.check(dialect) {
        Err(Problem::Invalid(key)) => Err(invalid(&key)),
        _ if filter.depth() > dialect.depth_limit() => Err(invalid("rules")),
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

    fn without_code(key: &str, text: &str) -> Self {
        Self::WithoutCode(key.to_owned(), text.to_owned())
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
    dialect: Dialect, place: &str, json: &'a str, depth: usize, count: &mut usize,
) -> Result<Option<Filter<'a>>, RequestError> {
    let wrong = |problem: String| RequestError::WrongType { path: place.to_owned(), problem };
    let members = match Json::read(place, json)? {
        Json::Null if depth == 1 || !dialect.is_newer() => return Ok(None),
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
            match read(dialect, &format!("{place}[{index}]"), json.get(), depth + 1, count)? {
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
    Ok(Some(Filter::Rule(Rule { field, operator, value, depth })))
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
    /// Whether its rules test no other field than this one.
    fn tests_only(&self, field: &str) -> bool {
        match self {
            Self::Group { rules, .. } => rules.iter().all(|rule| rule.tests_only(field)),
            Self::Rule(rule) => rule.field == field,
            Self::TooLarge => true,
        }
    }

    /// How many levels it has.
    fn depth(&self) -> usize {
        match self {
            Self::Group { rules, .. } => 1 + rules.iter().map(Self::depth).max().unwrap_or(0),
            Self::Rule(rule) => 1 + rule.inner_depth(),
            Self::TooLarge => 1,
        }
    }

    /// Checks it, in the order of the original, and translates it.
    fn check<F: Field>(&self, dialect: Dialect) -> Result<Condition<F>, Problem> {
        let (condition, rules) = match self {
            Self::Rule(rule) => return rule.check(dialect),
            Self::TooLarge => return Err(Problem::invalid("rules")),
            Self::Group { condition, rules } => (condition, rules),
        };
        let is_or = match condition.as_str() {
            "AND" => false,
            "OR" => true,
            _ => return Err(Problem::invalid("condition")),
        };
        if rules.is_empty() || rules.len() > dialect.group_limit(is_or) {
            return Err(Problem::invalid("rules"));
        }
        let (mut conditions, mut unrecognized) = (Vec::new(), None);
        for (index, rule) in rules.iter().enumerate() {
            match rule.check(dialect) {
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

#[cfg(test)]
mod tests;
