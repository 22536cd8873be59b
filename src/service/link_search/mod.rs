//! Searches for links by a condition.
//!
//! Only the three ids differ between the links of a model association; all other fields are texts
//! of the model association. So the tests of texts are evaluated first, once for each model
//! association of the model: whether a text is one of a list by the server, all others by
//! PostgreSQL. The statement that searches for links has what is left, a condition on ids.

mod text_test;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::vec;

use sqlx::PgConnection;
use tokio::time::Instant;

use self::text_test::{column, group, split, test_texts, text};
use super::context::RequestContext;
use super::pages::{PAGE_SIZE, Pages, cut_page, take_page};
use super::permission::authorize_view;
use super::{Error, Service, with_connection};
use crate::db;
use crate::db::link_search::{
    FoundLink, Group, LinkColumn, LinkOrder, LinkSelection, Slice, SortKey,
};
use crate::db::model_association::AssociationsOfModel;
use crate::domain::condition::{Condition, LinkField, Test};
use crate::domain::error::RequestError;
use crate::domain::keys::Tenant;
use crate::domain::sort::SortField;

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
    /// The source model's surrogate key.
    pub source_model_id: i32,
    /// The source model's key.
    pub source_model: String,
    /// The target instance's id.
    pub target_id: i64,
    /// The target model's surrogate key.
    pub target_model_id: i32,
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
    /// The model associations of the model; `None` if there are none.
    associations: Option<Arc<AssociationsOfModel>>,
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
    let order = associations.as_deref().map(|all| order(sort, all, &cx.tenant));
    Ok(LinkSearchPages {
        service: Arc::clone(cx.service),
        deadline: Some(cx.deadline),
        associations,
        tenant: cx.tenant.clone(),
        order: order.unwrap_or_default(),
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

/// The links that a search selects, and the model associations of the model, if there are any.
struct Selected {
    selection: LinkSelection,
    associations: Option<Arc<AssociationsOfModel>>,
}

async fn select(
    cx: &RequestContext<'_>, model: &str, role: Role, condition: &Condition<LinkField>,
) -> Result<Selected, Error> {
    let nothing = Selected {
        selection: LinkSelection { tenant_id: 0, groups: Vec::new() },
        associations: None,
    };
    let model = authorize_view(cx, model).await?;
    let tenant_id = cx.lookups.tenant_id(&cx.tenant).await?;
    let (Some(model), Some(tenant_id)) = (model, tenant_id) else { return Ok(nothing) };
    let Some(associations) = cx.lookups.associations_of_model(model.id).await? else {
        return Ok(nothing);
    };
    let (condition, tests) = split(condition);
    let mut results = test_texts(cx, model.id, &associations, &tests).await?;
    if role == Role::Source {
        results.retain(|(_, association, _)| association.source_model_id == model.id);
    }
    let groups = group(results, &condition)?;
    Ok(Selected {
        selection: LinkSelection { tenant_id, groups },
        associations: Some(associations),
    })
}

fn order(
    sort: &[SortField<LinkField>], associations: &AssociationsOfModel, tenant: &Tenant,
) -> LinkOrder {
    let mut order = LinkOrder::new();
    for (position, (field, descends)) in sort.iter().enumerate() {
        if sort.iter().take(position).any(|(before, _)| before == field) {
            continue;
        }
        let key = match column(*field) {
            Some(column) => SortKey::Column(column),
            None => rank(*field, associations, tenant),
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
fn rank(field: LinkField, associations: &AssociationsOfModel, tenant: &Tenant) -> SortKey {
    let texts = associations.by_id.iter().map(|(id, one)| (*id, text(field, one, tenant)));
    let distinct: BTreeSet<_> = texts.clone().map(|(_, text)| text).collect();
    let ranks: HashMap<_, _> = distinct.into_iter().zip(0..).collect();
    let (ids, ranks) = texts.filter_map(|(id, text)| Some((id, *ranks.get(text)?))).unzip();
    SortKey::Rank(ids, ranks)
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
            let page = Condition::Test(LinkColumn::Id, Test::IntegerIn(take_page(ids)));
            self.is_done = ids.len() == 0;
            let associations = self.selection.groups.iter();
            let associations = associations.flat_map(|group| &group.associations).copied();
            let associations = associations.collect();
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
            let association = self.associations.as_ref()?.by_id.get(&found.model_association_id)?;
            Some(StoredLink {
                id: found.id,
                source_id: found.source_id,
                source_model_id: association.source_model_id,
                source_model: association.source_model.clone(),
                target_id: found.target_id,
                target_model_id: association.target_model_id,
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
