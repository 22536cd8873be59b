//! The two forms of conditions in bodies: the query filter, and MongoDB's.

use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::api::TenantField;
use super::auth::CredentialFields;
use super::idempotency::IdempotencyField;
use super::json::{RawJson, field_names};
use super::read_from::ReadFromField;
pub(super) use crate::domain::condition::query_filter::Dialect;
use crate::domain::condition::{Condition, Field, mongo, query_filter};
use crate::domain::error::RequestError;

/// The condition of the query filter that a body has under `name`. Without one, every row satisfies
/// it.
pub(super) fn parse_query_filter<F: Field>(
    dialect: Dialect, name: &str, filter: Option<RawJson>,
) -> Result<Condition<F>, RequestError> {
    let Some(RawJson(json)) = filter else { return Ok(Condition::always()) };
    checked(query_filter::parse(dialect, name, &json)?)
}

/// The condition of a body in MongoDB's form. Without one, every row satisfies it. What it says at
/// its top level about the tenant is ignored: the tenant is the caller's.
pub(super) fn parse_mongo_condition<F: Field>(
    condition: Option<RawJson>,
) -> Result<Condition<F>, RequestError> {
    let Some(RawJson(json)) = condition else { return Ok(Condition::always()) };
    checked(mongo::parse_without("condition", &json, &["bk_supplier_account"])?)
}

/// The condition that a whole body is, in MongoDB's form, but for the fields with another meaning.
pub(super) fn parse_body_as_condition<F: Field>(
    body: Option<RawJson>,
) -> Result<Condition<F>, RequestError> {
    let Some(RawJson(json)) = body else { return Ok(Condition::always()) };
    let reserved = [&reserved_fields(), field_names::<ReadFromField>()].concat();
    checked(mongo::parse_without("body", &json, &reserved)?)
}

/// The fields that any body may have, which say nothing to the endpoint.
pub(super) fn reserved_fields() -> Vec<&'static str> {
    [
        field_names::<CredentialFields>(),
        field_names::<TenantField>(),
        field_names::<IdempotencyField>(),
    ]
    .concat()
}

/// The most regular expressions in a condition. PostgreSQL keeps 32 of them compiled.
const PATTERN_LIMIT: usize = 30;

/// The most tests in a condition. Few of them may be in each of the filters in a filter.
const TEST_LIMIT: usize = 1_000;

/// The most values in the lists of a condition.
const VALUE_LIMIT: usize = 20_000;

/// Refuses a condition with too many regular expressions.
pub(super) fn require_few_patterns(patterns: usize) -> Result<(), RequestError> {
    if patterns > PATTERN_LIMIT {
        let why = format!("a condition has at most {PATTERN_LIMIT} regular expressions");
        return Err(RequestError::WithoutCode(why.into()));
    }
    Ok(())
}

fn checked<F>(condition: Condition<F>) -> Result<Condition<F>, RequestError> {
    require_few_patterns(condition.patterns())?;
    let (tests, values) = condition.size();
    if tests > TEST_LIMIT || values > VALUE_LIMIT {
        let why = format!("a condition has at most {TEST_LIMIT} tests and {VALUE_LIMIT} values");
        return Err(RequestError::WithoutCode(why.into()));
    }
    Ok(condition)
}

/// The schema of a query filter.
pub(super) struct QueryFilter;

impl PartialSchema for QueryFilter {
    fn schema() -> RefOr<Schema> {
        object(
            "A group `{\"condition\": \"AND\" or \"OR\", \"rules\": […]}` of rules \
             `{\"field\", \"operator\", \"value\"}` or groups, at most 3 levels with the rules. \
             At most 20 rules in an `OR`, 500 in all, and 500 values in a list. Operators: \
             `equal`, `not_equal`, `in`, `not_in`, `less`, `less_or_equal`, `greater`, \
             `greater_or_equal`, `begins_with`, `contains`, `ends_with`, their negations \
             `not_…`, `is_null`, `is_not_null`, `exist`, `not_exist`, and others. The value of \
             `begins_with`, `contains` and `ends_with` is a regular expression.",
        )
    }
}

impl ToSchema for QueryFilter {}

/// The schema of a condition in MongoDB's form.
pub(super) struct MongoCondition;

impl PartialSchema for MongoCondition {
    fn schema() -> RefOr<Schema> {
        object(
            "A condition in MongoDB's form, such as `{\"bk_inst_id\": {\"$in\": [11, 12]}}`. \
             Operators: `$eq`, `$ne`, `$gt`, `$gte`, `$lt`, `$lte`, `$in`, `$nin`, `$exists`, \
             `$regex` with `$options` `i`, `$and`, `$or`, `$nor`, `$not`. A text never equals a \
             number. At most 10 levels, 500 tests and 10,000 values in lists.",
        )
    }
}

impl ToSchema for MongoCondition {}

fn object(description: &str) -> RefOr<Schema> {
    RefOr::T(ObjectBuilder::new().description(Some(description)).build().into())
}
