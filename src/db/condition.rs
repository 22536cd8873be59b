//! Conditions in SQL.
//!
//! Every value is a parameter. Texts are compared by their bytes, whatever the collation of their
//! column.

use sqlx::postgres::PgHasArrayType;
use sqlx::{Encode, Postgres, QueryBuilder, Type};

use crate::domain::condition::{Comparison, Condition, Test};

/// Appends a condition as an expression. `column` gives the SQL of a field: a column, or an
/// expression in parentheses. Where the column is null, the expression may be null instead of
/// false, which `where` takes for false, too.
pub fn push<F: Copy>(
    builder: &mut QueryBuilder<Postgres>, condition: &Condition<F>,
    column: &impl Fn(F) -> &'static str,
) {
    match condition {
        Condition::Test(field, test) => push_test(builder, column(*field), test),
        parts => push_parts(builder, parts, &|builder, part| push(builder, part, column)),
    }
}

/// Appends a condition with the parts that `push_part` appends, as expressions that may be null for
/// false.
pub(super) fn push_parts<F>(
    builder: &mut QueryBuilder<Postgres>, condition: &Condition<F>,
    push_part: &impl Fn(&mut QueryBuilder<Postgres>, &Condition<F>),
) {
    match condition {
        Condition::All(parts) => push_list(builder, parts, push_part, " and ", "true"),
        Condition::Any(parts) => push_list(builder, parts, push_part, " or ", "false"),
        Condition::Not(part) => {
            // Null is false, so its negation is true.
            builder.push("((");
            push_part(builder, part);
            builder.push(") is not true)");
        }
        Condition::Test(..) => push_part(builder, condition),
    }
}

fn push_list<F>(
    builder: &mut QueryBuilder<Postgres>, parts: &[Condition<F>],
    push_part: &impl Fn(&mut QueryBuilder<Postgres>, &Condition<F>), operator: &'static str,
    if_empty: &'static str,
) {
    if parts.is_empty() {
        builder.push(if_empty);
        return;
    }
    for (index, part) in parts.iter().enumerate() {
        builder.push(if index == 0 { "(" } else { operator });
        push_part(builder, part);
    }
    builder.push(")");
}

fn push_test(builder: &mut QueryBuilder<Postgres>, column: &'static str, test: &Test) {
    match test {
        Test::IntegerIn(integers) => push_in(builder, column, integers, "bigint[]"),
        Test::TextIn(texts) => push_in(builder, column, texts, "text[]"),
        Test::BooleanIn(booleans) => push_in(builder, column, booleans, "boolean[]"),
        Test::IntegerRange { min, max } => push_range(builder, column, *min, *max),
        Test::TextCompare(comparison, bound) => {
            builder.push(column).push(" collate \"C\" ").push(operator(*comparison));
            builder.push(" ").push_bind(bound);
        }
        Test::TextMatches(pattern) => {
            builder.push(column).push(" collate \"C\" ~ ").push_bind(pattern.as_postgres());
        }
        Test::IsNull => {
            builder.push(column).push(" is null");
        }
        // Only fields of documents are tested so. See `document_condition`.
        Test::JsonIn(_) | Test::NumberCompare(..) | Test::Exists | Test::HasSize(_) => {
            builder.push("false");
        }
    }
}

/// The operator of SQL, which is the one of path expressions, too.
pub(super) fn operator(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
    }
}

/// The most values that each row is compared with one by one. From a subquery that cannot become a
/// join, because of IS TRUE, PostgreSQL makes a hash table; from an array parameter of a generic
/// plan it does not.
const SHORT_LIST: usize = 8;

fn push_in<T>(
    builder: &mut QueryBuilder<Postgres>, column: &'static str, values: &[T], array: &'static str,
) where
    T: Clone + Type<Postgres> + PgHasArrayType + for<'v> Encode<'v, Postgres>,
{
    match values {
        [only] => builder.push(column).push(" = ").push_bind(only.clone()),
        values if values.len() <= SHORT_LIST => {
            builder.push(column).push(" = any(").push_bind(values).push(")")
        }
        values => {
            builder.push("(").push(column).push(" in (select unnest(").push_bind(values);
            builder.push("::").push(array).push("))) is true")
        }
    };
}

fn push_range(builder: &mut QueryBuilder<Postgres>, column: &'static str, min: i64, max: i64) {
    builder.push(column);
    match (min, max) {
        (i64::MIN, i64::MAX) => builder.push(" is not null"),
        (i64::MIN, max) => builder.push(" <= ").push_bind(max),
        (min, i64::MAX) => builder.push(" >= ").push_bind(min),
        (min, max) => builder.push(" between ").push_bind(min).push(" and ").push_bind(max),
    };
}
