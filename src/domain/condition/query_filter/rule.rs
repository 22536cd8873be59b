//! The rules of a query filter: an operator, a field and a value.

use std::net::Ipv6Addr;

use serde_json::value::RawValue;

use super::{Dialect, Filter, Problem, read};
use crate::domain::condition::compare::{
    compare, equal, exists, has_size, is_null, matches, one_of,
};
use crate::domain::condition::json::{Json, Number};
use crate::domain::condition::pattern::Pattern;
use crate::domain::condition::time::{self, Second};
use crate::domain::condition::{Comparison, Condition, Field};

/// A test of a field.
pub(super) struct Rule<'a> {
    pub(super) field: String,
    pub(super) operator: String,
    pub(super) value: Option<&'a RawValue>,
    /// The level on which it is, from 1.
    pub(super) depth: usize,
}

/// What an operator does, apart from whether it is negated.
#[derive(Clone, Copy)]
enum Operator {
    Equal,
    In,
    Compare(Comparison),
    CompareTime(Comparison),
    BeginsWith {
        is_case_insensitive: bool,
    },
    Contains {
        is_case_insensitive: bool,
    },
    EndsWith {
        is_case_insensitive: bool,
    },
    IsEmpty,
    HasSize,
    IsNull,
    Exists,
    /// A filter of the object that is the value.
    InObject,
    /// A filter of the elements of the array that is the value.
    InArray,
}

impl Operator {
    /// The operator of this name, and whether it is negated.
    fn by_name(dialect: Dialect, name: &str) -> Option<(Self, bool)> {
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
            "begins_with" => (Self::BeginsWith { is_case_insensitive: false }, false),
            "not_begins_with" => (Self::BeginsWith { is_case_insensitive: false }, true),
            // Only the positive one ignores case, as in the original.
            "contains" => (Self::Contains { is_case_insensitive: true }, false),
            "not_contains" => (Self::Contains { is_case_insensitive: false }, true),
            "ends_with" => (Self::EndsWith { is_case_insensitive: false }, false),
            "not_ends_with" => (Self::EndsWith { is_case_insensitive: false }, true),
            "is_empty" => (Self::IsEmpty, false),
            "is_not_empty" => (Self::IsEmpty, true),
            "is_null" => (Self::IsNull, false),
            "is_not_null" => (Self::IsNull, true),
            "exist" => (Self::Exists, false),
            "not_exist" => (Self::Exists, true),
            other if dialect.is_newer() => return Self::only_of_instances(other),
            _ => return None,
        })
    }

    fn only_of_instances(name: &str) -> Option<(Self, bool)> {
        Some(match name {
            "begins_with_i" => (Self::BeginsWith { is_case_insensitive: true }, false),
            "not_begins_with_i" => (Self::BeginsWith { is_case_insensitive: true }, true),
            "contains_s" => (Self::Contains { is_case_insensitive: false }, false),
            "not_contains_i" => (Self::Contains { is_case_insensitive: true }, true),
            "ends_with_i" => (Self::EndsWith { is_case_insensitive: true }, false),
            "not_ends_with_i" => (Self::EndsWith { is_case_insensitive: true }, true),
            "size" => (Self::HasSize, false),
            "filter_object" => (Self::InObject, false),
            "filter_array" => (Self::InArray, false),
            _ => return None,
        })
    }
}

impl Rule<'_> {
    /// Checks it, in the order of the original, and translates it.
    pub(super) fn check<F: Field>(&self, dialect: Dialect) -> Result<Condition<F>, Problem> {
        let operator = Operator::by_name(dialect, &self.operator);
        let (operator, is_negated) = operator.ok_or_else(|| Problem::invalid("operator"))?;
        if dialect.is_newer() && self.field.starts_with('$') {
            return Err(Problem::without_code("field", "no field begins with $"));
        }
        if !is_field_name(dialect, &self.field) {
            return Err(Problem::invalid("field"));
        }
        if dialect.is_newer() && matches!(operator, Operator::IsEmpty) && is_negated {
            let problem = "is_not_empty is not supported";
            return Err(Problem::without_code("operator", problem));
        }
        let condition = self.condition(dialect, F::by_name(&self.field).as_ref(), operator)?;
        Ok(if is_negated { Condition::not(condition) } else { condition })
    }

    fn condition<F: Field>(
        &self, dialect: Dialect, field: Option<&F>, operator: Operator,
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
            Operator::Equal => Ok(equal(field, self.normalize(dialect, value)?)),
            Operator::In => {
                let values = list(dialect, value)?.into_iter();
                let values = values.map(|value| self.normalize(dialect, value));
                Ok(one_of(field, values.collect::<Result<Vec<_>, _>>()?))
            }
            Operator::Compare(_) if !matches!(value, Json::Number(_)) => Err(invalid()),
            Operator::Compare(comparison) => Ok(compare(field, comparison, value)),
            // No value of a document is a time.
            Operator::CompareTime(_) if dialect.is_newer() => {
                let is_valid = match value {
                    Json::Number(_) => true,
                    value => text(value).is_some_and(|text| is_time(&text)),
                };
                if is_valid { Ok(Condition::never()) } else { Err(invalid()) }
            }
            Operator::CompareTime(comparison) => {
                let text = text(value).filter(|text| is_time(text)).ok_or_else(invalid)?;
                // A date without a time is compared as a text.
                if text.len() == "2020-01-01".len() {
                    return Ok(compare(field, comparison, Json::Text(text)));
                }
                let second = Second::parse(&text).ok_or_else(invalid)?;
                Ok(time::compare(field, comparison, &second))
            }
            Operator::BeginsWith { is_case_insensitive } => {
                match_text(value, "^", "", is_case_insensitive)
            }
            Operator::Contains { is_case_insensitive } => {
                match_text(value, "", "", is_case_insensitive)
            }
            Operator::EndsWith { is_case_insensitive } => {
                match_text(value, "", "$", is_case_insensitive)
            }
            // Only an empty array is empty.
            Operator::IsEmpty => Ok(has_size(field, 0)),
            Operator::HasSize => match value {
                Json::Number(Number::Integer(size @ 0..)) => Ok(has_size(field, size)),
                _ => Err(invalid()),
            },
            Operator::IsNull => Ok(is_null(field)),
            Operator::Exists => Ok(exists(field)),
            Operator::InObject => {
                let inner = self.inner_filter()?.check::<F>(dialect)?;
                Ok(inner.map(
                    &mut |inner, test| match field.and_then(|field| field.inner(&inner)) {
                        Some(field) => Condition::Test(field, test),
                        None => Condition::never(),
                    },
                ))
            }
            Operator::InArray => {
                let inner = self.inner_filter()?;
                if !inner.tests_only("element") {
                    return Err(invalid());
                }
                Ok(inner.check::<F>(dialect)?.map(&mut |_, test| match field {
                    Some(field) => Condition::Test(field.clone(), test),
                    None => Condition::never(),
                }))
            }
        }
    }

    /// The value as it is stored, which an IPv6 address is in one form.
    fn normalize<'v>(&self, dialect: Dialect, value: Json<'v>) -> Result<Json<'v>, Problem> {
        let is_address = ["bk_host_innerip_v6", "bk_host_outerip_v6"].contains(&&*self.field);
        match value {
            Json::Text(text) if is_address && !dialect.is_newer() => {
                let address = text.parse::<Ipv6Addr>();
                let address = address.map_err(|_error| Problem::invalid("value"))?;
                Ok(Json::Text(address.to_string()))
            }
            value => Ok(value),
        }
    }

    /// The filter that the value is.
    fn inner_filter(&self) -> Result<Filter<'_>, Problem> {
        let json = self.value.ok_or_else(|| Problem::invalid("value"))?;
        let filter = read(Dialect::Instances, "value", json.get(), self.depth + 1, &mut 0);
        filter.ok().flatten().ok_or_else(|| Problem::invalid("value"))
    }

    /// How many levels the filter has that the value is.
    pub(super) fn inner_depth(&self) -> usize {
        match self.operator.as_str() {
            "filter_object" | "filter_array" => {
                self.inner_filter().map_or(0, |filter| filter.depth())
            }
            _ => 0,
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
fn list(dialect: Dialect, value: Json<'_>) -> Result<Vec<Json<'_>>, Problem> {
    let elements = match value {
        Json::List(elements) => elements,
        // The original accepts it, and its database then refuses it.
        Json::Null if !dialect.is_newer() => {
            let why = "expected an array, got null".to_owned();
            return Err(Problem::WithoutCode("value".to_owned(), why));
        }
        _ => return Err(Problem::invalid("value")),
    };
    if elements.len() > dialect.value_limit() || dialect.is_newer() && elements.is_empty() {
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

/// Whether it is a letter or digit, then letters, digits, `-`, `_` or `.`; all of them ASCII. In
/// the newer form it need only not be empty.
fn is_field_name(dialect: Dialect, name: &str) -> bool {
    if dialect.is_newer() {
        return !name.is_empty();
    }
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
