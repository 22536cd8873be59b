//! Tests of texts in a condition on links: all links of a model association have the same texts.

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;

use super::super::context::RequestContext;
use super::super::{Error, with_connection};
use super::{condition_too_expensive, too_expensive};
use crate::db;
use crate::db::link_search::{Group, LinkColumn};
use crate::db::model_association::{AssociationOfModel, AssociationsOfModel};
use crate::domain::condition::{Condition, LinkField, Test};
use crate::domain::error::RequestError;
use crate::domain::keys::Tenant;

/// The most model associations that a search may read, tests in its statement, and values in the
/// lists of these. The statement has less than the 65,535 parameters that PostgreSQL allows.
const ASSOCIATION_LIMIT: usize = 5_000;
const TEST_LIMIT: usize = 10_000;
const VALUE_LIMIT: usize = 500_000;

/// What a test of a condition is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Subject {
    /// A column of the link.
    Column(LinkColumn),
    /// A text of its model association: the number of the test.
    Text(usize),
}

/// A test of a text of the model association.
pub(super) type TextTest = (LinkField, Test);

/// Takes the tests of texts out of a condition, which then refers to them by their numbers. The
/// test beside such a number is a placeholder: the actual one is in the list.
pub(super) fn split(condition: &Condition<LinkField>) -> (Condition<Subject>, Vec<TextTest>) {
    let mut tests = Vec::new();
    let condition = condition.clone().map(&mut |field, test| {
        if let Some(column) = column(field) {
            return Condition::Test(Subject::Column(column), test);
        }
        tests.push((field, test));
        Condition::Test(Subject::Text(tests.len() - 1), Test::IsNull)
    });
    (condition, tests)
}

/// A model association with its surrogate key, and whether its links pass each test of a text.
pub(super) type TestedAssociation<'a> = (i32, &'a AssociationOfModel, Vec<bool>);

/// Evaluates the tests of texts for each model association of a model.
pub(super) async fn test_texts<'a>(
    cx: &RequestContext<'_>, model_id: i32, associations: &'a AssociationsOfModel,
    tests: &[TextTest],
) -> Result<Vec<TestedAssociation<'a>>, Error> {
    if associations.by_id.len() > ASSOCIATION_LIMIT {
        return Err(condition_too_expensive().into());
    }
    let is_listed = |(_, test): &&TextTest| matches!(test, Test::TextIn(_));
    let others = tests.iter().filter(|test| !is_listed(test));
    let others = others.map(|(field, test)| Condition::Test(*field, test.clone()));
    let others: Vec<_> = others.collect();
    let mut other_results = HashMap::new();
    if !others.is_empty() {
        let find = async |conn: &mut PgConnection| {
            Ok(db::model_association::test_texts(conn, model_id, &cx.tenant, &others).await?)
        };
        let found = with_connection(&cx.service.pool, cx.deadline, find).await;
        other_results.extend(found.map_err(too_expensive)?);
    }
    let tested = associations.by_id.iter().map(|(id, association)| {
        let mut other_results = other_results.remove(id).unwrap_or_default().into_iter();
        let result = |(field, test): &TextTest| match test {
            Test::TextIn(list) => {
                let text = text(*field, association, &cx.tenant);
                list.iter().any(|listed| listed == text)
            }
            _ => other_results.next().unwrap_or_default(),
        };
        (*id, association, tests.iter().map(result).collect())
    });
    Ok(tested.collect())
}

/// The condition that is left for each model association. Model associations with the same results
/// of all text tests form one group; those of which no link can satisfy it are left out.
pub(super) fn group(
    associations: Vec<TestedAssociation<'_>>, condition: &Condition<Subject>,
) -> Result<Vec<Group>, RequestError> {
    let mut by_results: BTreeMap<Vec<bool>, Vec<i32>> = BTreeMap::new();
    for (id, _, results) in associations {
        by_results.entry(results).or_default().push(id);
    }
    let (tests, values) = condition.size();
    if by_results.len() * tests > TEST_LIMIT || by_results.len() * values > VALUE_LIMIT {
        return Err(condition_too_expensive());
    }
    let group = |(results, mut associations): (Vec<bool>, Vec<i32>)| {
        let remaining = condition.clone().map(&mut |subject, test| match subject {
            Subject::Column(column) => Condition::Test(column, test),
            Subject::Text(number) => {
                Condition::constant(results.get(number).is_some_and(|is_passed| *is_passed))
            }
        });
        associations.sort_unstable();
        (!remaining.is_never()).then_some(Group { associations, condition: remaining })
    };
    Ok(by_results.into_iter().filter_map(group).collect())
}

/// The column of a field that is not a text.
pub(super) fn column(field: LinkField) -> Option<LinkColumn> {
    match field {
        LinkField::Id => Some(LinkColumn::Id),
        LinkField::SourceId => Some(LinkColumn::Source),
        LinkField::TargetId => Some(LinkColumn::Target),
        LinkField::SourceModel
        | LinkField::TargetModel
        | LinkField::Tenant
        | LinkField::ModelAssociation
        | LinkField::Kind => None,
    }
}

/// A text that the links of a model association have; of an id none.
pub(super) fn text<'a>(
    field: LinkField, association: &'a AssociationOfModel, tenant: &'a Tenant,
) -> &'a str {
    match field {
        LinkField::SourceModel => &association.source_model,
        LinkField::TargetModel => &association.target_model,
        LinkField::Tenant => tenant.as_str(),
        LinkField::ModelAssociation => &association.key,
        LinkField::Kind => &association.kind,
        LinkField::Id | LinkField::SourceId | LinkField::TargetId => "",
    }
}
