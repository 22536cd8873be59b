//! Conditions in MongoDB's form, such as `{"bk_inst_id": {"$in": [11, 12]}}`.
//!
//! Supported are equality and the operators in `SUPPORTED`. Everything else is refused, even where
//! MongoDB would find nothing: an empty answer would hide the mistake. A refusal names known fields
//! and operators only, and repeats nothing else that the caller sent.

use serde_json::value::RawValue;

use crate::domain::condition::compare::{compare, equal, exists, matches, one_of};
use crate::domain::condition::json::{Json, Members, Number};
use crate::domain::condition::pattern::Pattern;
use crate::domain::condition::{Comparison, Condition, Field};
use crate::domain::error::RequestError;

/// The most levels of `$and`, `$or`, `$nor`, `$not` and of values in values.
pub const DEPTH_LIMIT: usize = 10;

/// The most tests in a condition.
pub const TEST_LIMIT: usize = 500;

/// The most values in all lists of a condition together.
pub const VALUE_LIMIT: usize = 10_000;

/// The operators that are supported.
const SUPPORTED: [&str; 15] = [
    "$and", "$eq", "$exists", "$gt", "$gte", "$in", "$lt", "$lte", "$ne", "$nin", "$nor", "$not",
    "$options", "$or", "$regex",
];

/// Operators of MongoDB that are not supported.
const UNSUPPORTED: [&str; 32] = [
    "$accumulator",
    "$all",
    "$bitsAllClear",
    "$bitsAllSet",
    "$bitsAnyClear",
    "$bitsAnySet",
    "$box",
    "$center",
    "$centerSphere",
    "$comment",
    "$elemMatch",
    "$expr",
    "$function",
    "$geoIntersects",
    "$geoWithin",
    "$geometry",
    "$jsonSchema",
    "$maxDistance",
    "$meta",
    "$minDistance",
    "$mod",
    "$natural",
    "$near",
    "$nearSphere",
    "$polygon",
    "$rand",
    "$sampleRate",
    "$size",
    "$slice",
    "$text",
    "$type",
    "$where",
];

/// Parses the condition that a body has under `name`. `json` is JSON text.
pub fn parse<F: Field>(name: &str, json: &str) -> Result<Condition<F>, RequestError> {
    parse_without(name, json, &[])
}

/// Parses a condition as if it did not have the top-level keys `ignored`.
pub fn parse_without<F: Field>(
    name: &str, json: &str, ignored: &[&str],
) -> Result<Condition<F>, RequestError> {
    Parser::default().document(name, json, 1, ignored)
}

/// Counts what has limits in a condition.
#[derive(Default)]
struct Parser {
    tests: usize,
    values: usize,
}

impl Parser {
    /// Parses an object of fields and logical operators, all of which must be true.
    fn document<F: Field>(
        &mut self, place: &str, json: &str, depth: usize, ignored: &[&str],
    ) -> Result<Condition<F>, RequestError> {
        check_depth(place, depth)?;
        let members = match Json::read(place, json)? {
            Json::Object(members) => members,
            other => {
                let problem = format!("expected an object, got {}", other.description());
                return Err(if depth == 1 {
                    RequestError::WrongType { path: place.to_owned(), problem }
                } else {
                    refused(place, problem)
                });
            }
        };
        check_members::<F>(place, &members)?;
        let mut conditions = Vec::new();
        for (key, json) in &members {
            let json = json.get();
            let inner = place_of::<F>(place, key);
            conditions.push(match key.as_str() {
                key if ignored.contains(&key) => continue,
                "$and" => Condition::all(self.documents(&inner, json, depth)?),
                "$or" => Condition::any(self.documents(&inner, json, depth)?),
                "$nor" => Condition::not(Condition::any(self.documents(&inner, json, depth)?)),
                key if key.starts_with('$') => return Err(unsupported(place, key)),
                key => self.field(&inner, F::by_name(key).as_ref(), json, depth)?,
            });
        }
        Ok(Condition::all(conditions))
    }

    fn documents<F: Field>(
        &mut self, place: &str, json: &str, depth: usize,
    ) -> Result<Vec<Condition<F>>, RequestError> {
        let documents = list(place, Json::read(place, json)?)?;
        if documents.is_empty() {
            return Err(refused(place, "expected an array that is not empty"));
        }
        let mut conditions = Vec::new();
        for (index, json) in documents.into_iter().enumerate() {
            self.count_test(place)?;
            let place = format!("{place}[{index}]");
            conditions.push(self.document(&place, json.get(), depth + 1, &[])?);
        }
        Ok(conditions)
    }

    /// Parses the value that a field equals, or the operators that it satisfies.
    fn field<F: Field>(
        &mut self, place: &str, field: Option<&F>, json: &str, depth: usize,
    ) -> Result<Condition<F>, RequestError> {
        match Json::read(place, json)? {
            Json::Object(members) if members.iter().any(|(key, _)| key.starts_with('$')) => {
                self.operators(place, field, &members, depth)
            }
            _ => {
                self.count_test(place)?;
                Ok(equal(field, self.value::<F>(place, json, depth)?))
            }
        }
    }

    /// Parses an object of operators, all of which the field satisfies.
    fn operators<F: Field>(
        &mut self, place: &str, field: Option<&F>, members: &Members<'_>, depth: usize,
    ) -> Result<Condition<F>, RequestError> {
        check_depth(place, depth)?;
        check_members::<F>(place, members)?;
        let mut conditions = Vec::new();
        for (key, json) in members {
            self.count_test(place)?;
            let json = json.get();
            let inner = place_of::<F>(place, key);
            let mut ordered = |comparison| {
                Ok::<_, RequestError>(compare(
                    field,
                    comparison,
                    self.value::<F>(&inner, json, depth)?,
                ))
            };
            conditions.push(match key.as_str() {
                "$gt" => ordered(Comparison::Greater)?,
                "$gte" => ordered(Comparison::GreaterOrEqual)?,
                "$lt" => ordered(Comparison::Less)?,
                "$lte" => ordered(Comparison::LessOrEqual)?,
                "$eq" => equal(field, self.value::<F>(&inner, json, depth)?),
                "$ne" => Condition::not(equal(field, self.value::<F>(&inner, json, depth)?)),
                "$in" => one_of(field, self.values::<F>(&inner, json, depth)?),
                "$nin" => Condition::not(one_of(field, self.values::<F>(&inner, json, depth)?)),
                "$exists" => {
                    let condition = exists(field);
                    let value = Json::read(&inner, json)?;
                    if is_true(&value) { condition } else { Condition::not(condition) }
                }
                "$regex" => {
                    let options = members.iter().find(|(key, _)| key == "$options");
                    let options = options.map(|(_, json)| json.get());
                    matches(field, pattern(place, json, options)?)
                }
                "$options" if members.iter().any(|(key, _)| key == "$regex") => continue,
                "$options" => return Err(refused(&inner, "$options without $regex")),
                "$not" => match Json::read(&inner, json)? {
                    Json::Object(members) if !members.is_empty() => {
                        Condition::not(self.operators(&inner, field, &members, depth + 1)?)
                    }
                    _ => return Err(refused(&inner, "expected an object of operators")),
                },
                key => return Err(unsupported(place, key)),
            });
        }
        Ok(Condition::all(conditions))
    }

    /// Reads a value that a field is compared with.
    fn value<'a, F: Field>(
        &mut self, place: &str, json: &'a str, depth: usize,
    ) -> Result<Json<'a>, RequestError> {
        let value = Json::read(place, json)?;
        if value.is_compound() {
            self.check_parts::<F>(place, &value, depth)?;
        }
        Ok(value)
    }

    /// Checks an array or object that is a value. No field equals it, but an operator in it is
    /// meant otherwise.
    fn check_parts<F: Field>(
        &mut self, place: &str, value: &Json<'_>, depth: usize,
    ) -> Result<(), RequestError> {
        check_depth(place, depth)?;
        let mut parts = Vec::new();
        match value {
            Json::List(elements) => parts.clone_from(elements),
            Json::Object(members) => {
                check_members::<F>(place, members)?;
                if let Some((key, _)) = members.iter().find(|(key, _)| key.starts_with('$')) {
                    return Err(unsupported(place, key));
                }
                parts.extend(members.iter().map(|(_, json)| *json));
            }
            _ => {}
        }
        for json in parts {
            self.count_value(place)?;
            if json.get().starts_with(['[', '{']) {
                self.check_parts::<F>(place, &Json::read(place, json.get())?, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Reads the values of `$in` or `$nin`.
    fn values<'a, F: Field>(
        &mut self, place: &str, json: &'a str, depth: usize,
    ) -> Result<Vec<Json<'a>>, RequestError> {
        let mut values = Vec::new();
        for json in list(place, Json::read(place, json)?)? {
            self.count_value(place)?;
            values.push(self.value::<F>(place, json.get(), depth + 1)?);
        }
        Ok(values)
    }

    fn count_test(&mut self, place: &str) -> Result<(), RequestError> {
        self.tests += 1;
        if self.tests > TEST_LIMIT { Err(too_many_tests(place)) } else { Ok(()) }
    }

    fn count_value(&mut self, place: &str) -> Result<(), RequestError> {
        self.values += 1;
        if self.values > VALUE_LIMIT {
            return Err(refused(place, format!("more than {VALUE_LIMIT} values in the condition")));
        }
        Ok(())
    }
}

/// Refuses a key that is given twice, and too many members.
fn check_members<F: Field>(place: &str, members: &Members<'_>) -> Result<(), RequestError> {
    if members.len() > TEST_LIMIT {
        return Err(too_many_tests(place));
    }
    let mut keys: Vec<_> = members.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    match keys.array_windows().find(|[key, next]| key == next) {
        Some([key, _]) => Err(RequestError::WrongType {
            path: place_of::<F>(place, key),
            problem: "given twice".to_owned(),
        }),
        None => Ok(()),
    }
}

fn place_of<F: Field>(place: &str, key: &str) -> String {
    let is_known = SUPPORTED.contains(&key) || F::is_known(key);
    format!("{place}.{}", if is_known { key } else { "<unknown>" })
}

fn refused(place: &str, problem: impl AsRef<str>) -> RequestError {
    RequestError::WithoutCode(format!("{place}: {}", problem.as_ref()).into())
}

fn unsupported(place: &str, operator: &str) -> RequestError {
    if SUPPORTED.contains(&operator) {
        return refused(place, format!("{operator} cannot stand here"));
    }
    match UNSUPPORTED.iter().find(|known| **known == operator) {
        Some(operator) => refused(place, format!("the operator {operator} is not supported")),
        None => refused(place, "unknown operator"),
    }
}

fn too_many_tests(place: &str) -> RequestError {
    refused(place, format!("more than {TEST_LIMIT} tests in the condition"))
}

fn check_depth(place: &str, depth: usize) -> Result<(), RequestError> {
    if depth > DEPTH_LIMIT {
        return Err(refused(place, format!("nested deeper than {DEPTH_LIMIT} levels")));
    }
    Ok(())
}

fn list<'a>(place: &str, value: Json<'a>) -> Result<Vec<&'a RawValue>, RequestError> {
    match value {
        Json::List(elements) => Ok(elements),
        other => Err(refused(place, format!("expected an array, got {}", other.description()))),
    }
}

/// Whether `$exists` takes the value for true.
fn is_true(value: &Json<'_>) -> bool {
    !matches!(value, Json::Null | Json::Boolean(false) | Json::Number(Number::Integer(0)))
}

/// Parses the pattern and the options of a field's operators.
fn pattern(place: &str, json: &str, options: Option<&str>) -> Result<Pattern, RequestError> {
    let text = |place: &str, json| match Json::read(place, json)? {
        Json::Text(text) => Ok(text),
        other => Err(refused(place, format!("expected a string, got {}", other.description()))),
    };
    let mut is_case_insensitive = false;
    if let Some(json) = options {
        let place = format!("{place}.$options");
        for option in text(&place, json)?.chars() {
            match option {
                'i' => is_case_insensitive = true,
                'm' | 's' | 'x' => {
                    return Err(refused(&place, format!("the option {option} is not supported")));
                }
                _ => return Err(refused(&place, "unknown option")),
            }
        }
    }
    let place = format!("{place}.$regex");
    Pattern::parse(&text(&place, json)?, is_case_insensitive)
        .map_err(|error| refused(&place, error.to_string()))
}

#[cfg(test)]
mod tests;
