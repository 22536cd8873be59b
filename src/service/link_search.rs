//! Searches for links by a condition.
//!
//! Only the three ids differ between the links of a model association; all other fields are texts
//! of the model association. So a search takes two statements: the first evaluates the tests of
//! texts, once for each model association of the model; the second searches for links by what is
//! left, a condition on ids.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::vec;

use sqlx::PgConnection;
use tokio::time::Instant;

use super::context::RequestContext;
use super::pages::{PAGE_SIZE, Pages, cut_page};
use super::permission::authorize_view;
use super::{Error, Service, with_connection};
use crate::db;
use crate::db::link_search::{
    FoundLink, Group, LinkColumn, LinkOrder, LinkSelection, Slice, SortKey,
};
use crate::db::model_association::AssociationOfModel;
use crate::domain::condition::{Condition, LinkField, Test};
use crate::domain::error::RequestError;
use crate::domain::keys::Tenant;
use crate::domain::sort::SortField;

/// The most model associations that a search may read, tests in its statement, and values in the
/// lists of these. The statement has less than the 65,535 parameters that PostgreSQL allows.
const ASSOCIATION_LIMIT: usize = 5_000;
const TEST_LIMIT: usize = 10_000;
const VALUE_LIMIT: usize = 500_000;

/// A search for links of a model.
pub struct LinkSearch {
    /// The key of the model, which is at either end.
    pub model: String,
    /// What the links must satisfy.
    pub condition: Condition<LinkField>,
    /// How many links to skip.
    pub start: i64,
    /// The page to return; `None`: all links, in the order of their ids.
    pub page: Option<SortedPage>,
}

/// A page of a sorted list.
pub struct SortedPage {
    /// The order of the links; in the end that of their ids.
    pub sort: Vec<SortField<LinkField>>,
    /// The most links to return.
    pub limit: i64,
}

/// A stored link, with the keys of what it refers to.
#[derive(Debug)]
pub struct StoredLink {
    /// Its id.
    pub id: i64,
    /// The source instance's id.
    pub source_id: i64,
    /// The source model's key.
    pub source_model: String,
    /// The target instance's id.
    pub target_id: i64,
    /// The target model's key.
    pub target_model: String,
    /// The tenant's key.
    pub tenant: String,
    /// The model association's key.
    pub model_association: String,
    /// The association kind's key.
    pub kind: String,
}

/// The links that a search has found, page by page.
pub struct LinkSearchPages {
    service: Arc<Service>,
    /// When the first page must have been read, until it is.
    deadline: Option<Instant>,
    associations: HashMap<i32, AssociationOfModel>,
    tenant: Tenant,
    selection: LinkSelection,
    order: LinkOrder,
    slice: Slice,
    /// Whether the pages after the first one are wanted.
    is_unlimited: bool,
    /// The ids of the links on these, if the search is by keys: it is not repeated for each page.
    other_ids: Option<vec::IntoIter<i64>>,
    is_done: bool,
}

/// Finds the links of a model that satisfy a condition. An unknown model has none.
pub async fn search(
    cx: &RequestContext<'_>, search: &LinkSearch,
) -> Result<LinkSearchPages, Error> {
    let selected = select(cx, &search.model, Role::Either, &search.condition).await?;
    let Selected { selection, associations } = selected;
    let (sort, limit) = match &search.page {
        Some(SortedPage { sort, limit }) => (sort.as_slice(), *limit),
        None => ([].as_slice(), PAGE_SIZE),
    };
    Ok(LinkSearchPages {
        service: Arc::clone(cx.service),
        deadline: Some(cx.deadline),
        tenant: cx.tenant.clone(),
        order: order(sort, &associations),
        associations: associations.into_iter().map(|one| (one.id, one)).collect(),
        is_done: selection.groups.is_empty(),
        selection,
        slice: Slice { after: i64::MIN, skip: search.start, limit },
        is_unlimited: search.page.is_none(),
        other_ids: None,
    })
}

/// Finds links as [`search`]. The user must be allowed to view businesses, too.
pub async fn search_as_business_user(
    cx: &RequestContext<'_>, input: &LinkSearch,
) -> Result<LinkSearchPages, Error> {
    authorize_view(cx, "biz").await?;
    search(cx, input).await
}

/// Counts the links of which a model is the source and that satisfy a condition.
pub async fn count(
    cx: &RequestContext<'_>, model: &str, condition: &Condition<LinkField>,
) -> Result<i64, Error> {
    let Selected { selection, .. } = select(cx, model, Role::Source, condition).await?;
    if selection.groups.is_empty() {
        return Ok(0);
    }
    let count = async |conn: &mut PgConnection| Ok(db::link_search::count(conn, &selection).await?);
    with_connection(&cx.service.pool, cx.deadline, count).await.map_err(too_expensive)
}

/// At which end of its model associations a model is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Source,
    Either,
}

/// The links that a search selects, and the model associations of the model.
struct Selected {
    selection: LinkSelection,
    associations: Vec<AssociationOfModel>,
}

async fn select(
    cx: &RequestContext<'_>, model: &str, role: Role, condition: &Condition<LinkField>,
) -> Result<Selected, Error> {
    let model = authorize_view(cx, model).await?;
    let tenant_id = cx.lookups.tenant_id(&cx.tenant).await?;
    let (Some(model), Some(tenant_id)) = (model, tenant_id) else {
        let selection = LinkSelection { tenant_id: 0, groups: Vec::new() };
        return Ok(Selected { selection, associations: Vec::new() });
    };
    let (condition, tests) = split(condition);
    let find = async |conn: &mut PgConnection| {
        let find = db::model_association::list_of_model;
        Ok(find(conn, model.id, &cx.tenant, &tests).await?)
    };
    let associations = with_connection(&cx.service.pool, cx.deadline, find).await;
    let mut associations = associations.map_err(too_expensive)?;
    if role == Role::Source {
        associations.retain(|association| association.source_model_id == model.id);
    }
    let groups = group(&associations, &condition)?;
    Ok(Selected { selection: LinkSelection { tenant_id, groups }, associations })
}

/// What a test of a condition is about.
#[derive(Debug, Clone, Copy)]
enum Subject {
    /// A column of the link.
    Column(LinkColumn),
    /// A text of its model association: the number of the test.
    Text(usize),
}

/// Takes the tests of texts out of a condition, which then refers to them by their numbers. The
/// test beside such a number is a placeholder: the actual one is in the list.
fn split(condition: &Condition<LinkField>) -> (Condition<Subject>, Vec<Condition<LinkField>>) {
    let mut tests = Vec::new();
    let condition = condition.clone().map(&mut |field, test| {
        if let Some(column) = column(field) {
            return Condition::Test(Subject::Column(column), test);
        }
        tests.push(Condition::Test(field, test));
        Condition::Test(Subject::Text(tests.len() - 1), Test::IsNull)
    });
    (condition, tests)
}

/// The condition that is left for each model association. Model associations with the same results
/// of all text tests form one group; those of which no link can satisfy it are left out.
fn group(
    associations: &[AssociationOfModel], condition: &Condition<Subject>,
) -> Result<Vec<Group>, RequestError> {
    let mut by_results: HashMap<&[bool], Vec<i32>> = HashMap::new();
    for association in associations {
        by_results.entry(&association.text_test_results).or_default().push(association.id);
    }
    let (tests, values) = condition.size();
    if associations.len() > ASSOCIATION_LIMIT
        || by_results.len() * tests > TEST_LIMIT
        || by_results.len() * values > VALUE_LIMIT
    {
        return Err(condition_too_expensive());
    }
    let group = |(text_test_results, associations): (&[bool], Vec<i32>)| {
        let remaining = condition.clone().map(&mut |subject, test| match subject {
            Subject::Column(column) => Condition::Test(column, test),
            Subject::Text(number) => Condition::constant(
                text_test_results.get(number).is_some_and(|is_passed| *is_passed),
            ),
        });
        (!remaining.is_never()).then_some(Group { associations, condition: remaining })
    };
    Ok(by_results.into_iter().filter_map(group).collect())
}

/// The column of a field that is not a text.
fn column(field: LinkField) -> Option<LinkColumn> {
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

fn order(sort: &[SortField<LinkField>], associations: &[AssociationOfModel]) -> LinkOrder {
    let mut order = LinkOrder::new();
    for (position, (field, descends)) in sort.iter().enumerate() {
        if sort.iter().take(position).any(|(before, _)| before == field) {
            continue;
        }
        let key = match column(*field) {
            Some(column) => SortKey::Column(column),
            None => rank(*field, associations),
        };
        order.push((key, *descends));
        if *field == LinkField::Id {
            // Ids differ, so other fields make no difference.
            break;
        }
    }
    order
}

/// The rank of each model association in the order of one of its texts.
fn rank(field: LinkField, associations: &[AssociationOfModel]) -> SortKey {
    let text = |association: &AssociationOfModel| match field {
        LinkField::SourceModel => association.source_model.clone(),
        LinkField::TargetModel => association.target_model.clone(),
        LinkField::ModelAssociation => association.key.clone(),
        LinkField::Kind => association.kind.clone(),
        // All links are the tenant's.
        LinkField::Tenant | LinkField::Id | LinkField::SourceId | LinkField::TargetId => {
            String::new()
        }
    };
    let texts: BTreeSet<_> = associations.iter().map(text).collect();
    let ranks: HashMap<_, _> = texts.into_iter().zip(0..).collect();
    let ranks = associations.iter().map(|one| ranks.get(&text(one)).copied().unwrap_or_default());
    SortKey::Rank(associations.iter().map(|one| one.id).collect(), ranks.collect())
}

impl Pages for LinkSearchPages {
    type Row = StoredLink;

    fn are_done(&self) -> bool {
        self.is_done
    }

    async fn next_page(&mut self) -> Result<Vec<StoredLink>, Error> {
        if self.is_done {
            return Ok(Vec::new());
        }
        if let Some(ids) = &mut self.other_ids {
            let page = ids.by_ref().take(usize::try_from(PAGE_SIZE).unwrap_or(usize::MAX));
            let page = Condition::Test(LinkColumn::Id, Test::IntegerIn(page.collect()));
            self.is_done = ids.len() == 0;
            let associations = self.associations.keys().copied().collect();
            let groups = vec![Group { associations, condition: page }];
            let selection = LinkSelection { tenant_id: self.selection.tenant_id, groups };
            let slice = Slice { after: i64::MIN, skip: 0, limit: PAGE_SIZE };
            let list = async |conn: &mut PgConnection| {
                Ok(db::link_search::list(conn, &selection, &LinkOrder::new(), slice).await?)
            };
            let deadline = Instant::now() + db::STATEMENT_TIMEOUT;
            let found = with_connection(&self.service.pool, deadline, list).await?;
            return Ok(self.to_stored(found));
        }
        let deadline = self.deadline.take().unwrap_or(Instant::now() + db::STATEMENT_TIMEOUT);
        let Slice { after, skip, limit } = self.slice;
        // One more than the page tells whether there are others.
        let slice = Slice { after, skip, limit: limit + i64::from(self.is_unlimited) };
        let (selection, order) = (&self.selection, &self.order);
        let list = async |conn: &mut PgConnection| {
            Ok(db::link_search::list(conn, selection, order, slice).await?)
        };
        let found = with_connection(&self.service.pool, deadline, list).await;
        // A cheap search was canceled because it waited for something else.
        let is_cheap = db::link_search::is_cheap(selection, order, slice);
        let to_error = |error| if is_cheap { error } else { too_expensive(error) };
        let mut found = found.map_err(to_error)?;
        self.is_done = !cut_page(&mut found, limit);
        self.slice = Slice { after: found.last().map_or(after, |link| link.id), skip: 0, limit };
        if !self.is_done && self.selection.groups.iter().all(db::link_search::is_keyed) {
            let (selection, after) = (&self.selection, self.slice.after);
            let list = async |conn: &mut PgConnection| {
                Ok(db::link_search::list_ids(conn, selection, after).await?)
            };
            let ids = with_connection(&self.service.pool, deadline, list).await;
            self.other_ids = Some(ids.map_err(too_expensive)?.into_iter());
        }
        Ok(self.to_stored(found))
    }
}

impl LinkSearchPages {
    fn to_stored(&self, found: Vec<FoundLink>) -> Vec<StoredLink> {
        let stored = |found: FoundLink| {
            let association = self.associations.get(&found.model_association_id)?;
            Some(StoredLink {
                id: found.id,
                source_id: found.source_id,
                source_model: association.source_model.clone(),
                target_id: found.target_id,
                target_model: association.target_model.clone(),
                tenant: self.tenant.as_str().to_owned(),
                model_association: association.key.clone(),
                kind: association.kind.clone(),
            })
        };
        found.into_iter().filter_map(stored).collect()
    }
}

/// How a condition is refused that takes too long to search by.
pub fn condition_too_expensive() -> RequestError {
    let why = "condition too expensive: it needs bk_inst_id, bk_asst_inst_id or id with fixed \
        values, or an order by id and a smaller page";
    RequestError::WithoutCode(why.into())
}

/// A search that was canceled at the statement timeout, or is too complex, is the caller's.
pub(super) fn too_expensive(error: Error) -> Error {
    match error {
        Error::Database(error) if db::is_too_expensive(&error) => condition_too_expensive().into(),
        error => error,
    }
}
