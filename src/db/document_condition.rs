//! Conditions on documents in SQL.
//!
//! Each test is a path expression of SQL/JSON, in the lax mode: a test of an array passes if one of
//! its elements passes, as in MongoDB. The GIN index of documents serves tests of equality.

use std::iter;

use sqlx::{Postgres, QueryBuilder};

use super::condition::{self, operator};
use crate::domain::condition::{Comparison, Condition, DocumentField, Test};

/// Appends a condition on the rows of a table with the columns `instance_id` and `document`, as an
/// expression that may be null for false. `id_field` is the key that has the id in the documents.
pub(super) fn push(
    builder: &mut QueryBuilder<Postgres>, condition: &Condition<DocumentField>, id_field: &str,
) {
    condition::push_with(builder, condition, &|builder, field, test| match id_test(
        field, test, id_field,
    ) {
        Some(IdTest::OneOf(ids)) => {
            builder.push("instance_id = any(").push_bind(ids).push(")");
        }
        Some(IdTest::Compare(comparison, id)) => {
            builder.push("instance_id ").push(operator(comparison)).push(" ").push_bind(id);
        }
        None => {
            builder.push("(document @@ ").push_bind(path_expression(field, test));
            builder.push("::text::jsonpath)");
        }
    });
}

/// Whether a condition needs the ids only, not the documents.
pub(super) fn needs_only_ids(condition: &Condition<DocumentField>, id_field: &str) -> bool {
    condition.all_tests(&|field, test| id_test(field, test, id_field).is_some())
}

/// A test of the id, which is a column, too.
enum IdTest {
    OneOf(Vec<i64>),
    Compare(Comparison, i64),
}

fn id_test(DocumentField(keys): &DocumentField, test: &Test, id_field: &str) -> Option<IdTest> {
    if keys.as_slice() != [id_field] {
        return None;
    }
    match test {
        // No id equals another value than an integer.
        Test::JsonIn(values) => {
            Some(IdTest::OneOf(values.iter().filter_map(|value| value.parse().ok()).collect()))
        }
        Test::NumberCompare(comparison, number) => {
            Some(IdTest::Compare(*comparison, number.parse().ok()?))
        }
        _ => None,
    }
}

/// The predicate of a test.
fn path_expression(DocumentField(keys): &DocumentField, test: &Test) -> String {
    let path: Vec<_> =
        iter::once("$".to_owned()).chain(keys.iter().map(|key| literal(key))).collect();
    let path = path.join(".");
    let any_of = |values: Vec<String>| any_equal(&path, &values);
    match test {
        Test::JsonIn(values) => any_of(values.clone()),
        Test::BooleanIn(values) => any_of(values.iter().map(bool::to_string).collect()),
        Test::IntegerIn(values) => any_of(values.iter().map(i64::to_string).collect()),
        Test::TextIn(values) => any_of(values.iter().map(|text| literal(text)).collect()),
        Test::IntegerRange { min, max } => format!("{path} >= {min} && {path} <= {max}"),
        Test::NumberCompare(comparison, number) => {
            format!("{path} {} {number}", operator(*comparison))
        }
        Test::TextCompare(comparison, bound) => {
            format!("{path} {} {}", operator(*comparison), literal(bound))
        }
        Test::TextMatches(pattern) => {
            // With this flag, "." is any character, as in the operator ~.
            format!("{path} like_regex {} flag \"s\"", literal(pattern.as_postgres()))
        }
        Test::IsNull => format!("{path} == null"),
        Test::Exists => format!("exists({path})"),
        Test::HasSize(size) => {
            format!("{path}.type() == \"array\" && {path}.size() == {size}")
        }
    }
}

/// The predicate that the path leads to one of the values. It is nested like a balanced tree,
/// because PostgreSQL's stack is limited.
fn any_equal(path: &str, values: &[String]) -> String {
    match values {
        [] => "1 == 0".to_owned(),
        [value] => format!("{path} == {value}"),
        values => {
            let (left, right) = values.split_at(values.len() / 2);
            format!("({} || {})", any_equal(path, left), any_equal(path, right))
        }
    }
}

/// A string of a path expression. It has the escapes of JSON.
fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
