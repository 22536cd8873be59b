//! Conditions on documents in SQL.
//!
//! Tests are path expressions of SQL/JSON, in the lax mode: a test of an array passes if one of its
//! elements passes, as in MongoDB. The GIN index of documents serves tests of equality.

use std::iter;

use sqlx::{Postgres, QueryBuilder};

use super::condition::{self, operator};
use crate::domain::condition::{Comparison, Condition, DocumentField, Test};

/// Appends a condition on the rows of a table with the columns `instance_id` and `document`, as an
/// expression that may be null for false. `id_field` is the key that has the id in the documents.
pub(super) fn push(
    builder: &mut QueryBuilder<Postgres>, condition: &Condition<DocumentField>, id_field: &str,
) {
    let id_test = match condition {
        Condition::Test(field, test) => id_test(field, test, id_field),
        _ => None,
    };
    match (id_test, path_expression(condition, id_field)) {
        (Some(IdTest::OneOf(ids)), _) => {
            builder.push("instance_id = any(").push_bind(ids).push(")");
        }
        (Some(IdTest::Compare(comparison, id)), _) => {
            builder.push("instance_id ").push(operator(comparison)).push(" ").push_bind(id);
        }
        (None, Some(path)) => {
            builder.push("(document @@ ").push_bind(path).push("::text::jsonpath)");
        }
        (None, None) => condition::push_parts(builder, condition, &|builder, part| {
            push(builder, part, id_field);
        }),
    }
}

/// Whether a condition needs the ids only, not the documents.
pub(super) fn needs_only_ids(condition: &Condition<DocumentField>, id_field: &str) -> bool {
    condition.all_tests(&|field, test| id_test(field, test, id_field).is_some())
}

/// How the rows of a model that satisfy a condition are found, the best way first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Access {
    /// By their ids.
    Ids,
    /// By values in their documents, with the GIN index.
    Values,
    /// All rows of the model are read.
    Model,
}

/// How the rows that satisfy a condition are found.
pub(super) fn access(condition: &Condition<DocumentField>, id_field: &str) -> Access {
    let access_of_part = |part| access(part, id_field);
    let access = match condition {
        Condition::All(parts) => parts.iter().map(access_of_part).min(),
        Condition::Any(parts) => parts.iter().map(access_of_part).max(),
        Condition::Not(_) => None,
        Condition::Test(field, test) => match (id_test(field, test, id_field), test) {
            (Some(IdTest::OneOf(_)), _) => Some(Access::Ids),
            (None, Test::JsonIn(_) | Test::BooleanIn(_) | Test::IntegerIn(_) | Test::TextIn(_)) => {
                Some(Access::Values)
            }
            _ => None,
        },
    };
    access.unwrap_or(Access::Model)
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

/// One path expression for all tests of a condition, so that one scan of the index serves them;
/// `None` if they need several. Columns need expressions of their own. So do negations: in a path
/// expression, that of a test which does not apply to a value is not true.
fn path_expression(condition: &Condition<DocumentField>, id_field: &str) -> Option<String> {
    let paths = |parts: &[Condition<DocumentField>]| {
        parts.iter().map(|part| path_expression(part, id_field)).collect::<Option<Vec<_>>>()
    };
    match condition {
        Condition::All(parts) if !parts.is_empty() => Some(join(&paths(parts)?, "&&")),
        Condition::Any(parts) if !parts.is_empty() => Some(join(&paths(parts)?, "||")),
        Condition::All(_) | Condition::Any(_) | Condition::Not(_) => None,
        Condition::Test(field, test) => {
            id_test(field, test, id_field).is_none().then(|| predicate(field, test))
        }
    }
}

/// The predicate of a test.
fn predicate(DocumentField(keys): &DocumentField, test: &Test) -> String {
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

/// The predicate that the path leads to one of the values.
fn any_equal(path: &str, values: &[String]) -> String {
    let predicates: Vec<_> = values.iter().map(|value| format!("{path} == {value}")).collect();
    join(&predicates, "||")
}

/// Joins predicates; none are false. They are nested like a balanced tree, because PostgreSQL's
/// stack is limited.
fn join(predicates: &[String], operator: &str) -> String {
    match predicates {
        [] => "1 == 0".to_owned(),
        [predicate] => format!("({predicate})"),
        _ => {
            let (left, right) = predicates.split_at(predicates.len() / 2);
            format!("({} {operator} {})", join(left, operator), join(right, operator))
        }
    }
}

/// A string of JSON, which has the same escapes as one of a path expression.
pub(super) fn literal(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
