//! Searches for instances by a condition on their documents.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::vec;

use sqlx::PgConnection;
use tokio::time::Instant;

use super::context::RequestContext;
use super::link_search::StoredLink;
use super::pages::Pages;
use super::permission::{authorize_view, authorize_view_all};
use super::{Error, Service, with_connection};
use crate::db;
use crate::db::instance_search::{InstancePage, InstanceSelection, LinkTargets};
use crate::db::model::Model;
use crate::domain::condition::{Condition, DocumentField};
use crate::domain::error::RequestError;
use crate::domain::instance::FixedFields;
use crate::domain::model::BUILT_IN_MODELS;
use crate::domain::permission::Action;
use crate::domain::sort::SortField;

/// The most documents that are read at once, of up to 64 KiB each.
const DOCUMENT_PAGE_SIZE: usize = 500;

/// A search for instances of a model.
pub struct InstanceSearch {
    /// The key of the model.
    pub model: String,
    /// What the documents must satisfy.
    pub condition: Condition<DocumentField>,
    /// The order; in the end that of the ids.
    pub sort: Vec<SortField<DocumentField>>,
    /// How many instances to skip.
    pub start: i64,
    /// The most instances to return; `None`: all of them.
    pub limit: Option<i64>,
    /// The keys of each document to return; `None`: all of them.
    pub fields: Option<Vec<String>>,
}

/// A condition on instances to which those that are searched for are linked.
pub struct TargetCondition {
    /// The key of their model.
    pub model: String,
    /// What their documents must satisfy.
    pub condition: Condition<DocumentField>,
}

/// Finds a page of the tenant's instances of a model: their documents, as JSON text. An unknown
/// model has none.
pub async fn search(
    cx: &RequestContext<'_>, search: &InstanceSearch,
) -> Result<Vec<String>, Error> {
    let Some(scope) = Scope::find(cx, &search.model).await? else { return Ok(Vec::new()) };
    let selection = scope.select(&search.condition);
    with_connection(&cx.service.pool, cx.deadline, async |conn| {
        let page = search.page();
        Ok(db::instance_search::search(conn, selection, page, search.fields.as_deref()).await?)
    })
    .await
    .map_err(too_expensive)
}

/// Counts the tenant's instances of a model. An unknown model has none.
pub async fn count(
    cx: &RequestContext<'_>, model: &str, condition: &Condition<DocumentField>,
) -> Result<i64, Error> {
    let Some(scope) = Scope::find(cx, model).await? else { return Ok(0) };
    let selection = scope.select(condition);
    with_connection(&cx.service.pool, cx.deadline, async |conn| {
        Ok(db::instance_search::count(conn, selection).await?)
    })
    .await
    .map_err(too_expensive)
}

/// Finds the tenant's instances of a model, and counts those of all pages. An unknown model has
/// none.
pub async fn find(
    cx: &RequestContext<'_>, search: &InstanceSearch,
) -> Result<(i64, InstancePages), Error> {
    let scope = Scope::find(cx, &search.model).await?;
    find_among(cx, search, scope, None).await
}

/// Finds instances as [`find`], of which each is the source of a link to an instance that satisfies
/// the condition on its model. Without any such link, returns `None` if one is required; otherwise
/// the targets do not matter. The user must be allowed to view the models of the targets, too.
pub async fn find_sources(
    cx: &RequestContext<'_>, search: &InstanceSearch, targets: &[TargetCondition],
    is_required: bool,
) -> Result<Option<(i64, InstancePages)>, Error> {
    let Some(model) = cx.lookups.model(&search.model, &cx.tenant).await? else {
        return find_among(cx, search, None, None).await.map(Some);
    };
    let scope = Scope::of(cx, model).await?;
    let associations = cx.lookups.associations_of_model(scope.model.id).await?;
    let mut scopes = Vec::new();
    for TargetCondition { model, condition } in targets {
        let Some(model) = cx.lookups.model(model, &cx.tenant).await? else { continue };
        let target = Scope::of(cx, model).await?;
        let by_id = associations.iter().flat_map(|found| &found.by_id);
        let ids: Vec<_> = by_id
            .filter(|(_, association)| {
                association.source_model_id == scope.model.id
                    && association.target_model_id == target.model.id
            })
            .map(|(id, _)| *id)
            .collect();
        scopes.push((target, condition, ids));
    }
    let models =
        [&*scope.model].into_iter().chain(scopes.iter().map(|(target, ..)| &*target.model));
    authorize_view_all(cx, Action::ViewInstances, models).await?;
    let targets: Vec<_> = scopes
        .iter()
        .filter(|(.., association_ids)| !association_ids.is_empty())
        .map(|(target, condition, association_ids)| LinkTargets {
            association_ids,
            instances: target.select(condition),
        })
        .collect();
    let mut sources = Vec::new();
    if let Some(tenant_id) = scope.tenant_id.filter(|_| !targets.is_empty()) {
        let work = async |conn: &mut PgConnection| {
            Ok(db::instance_search::list_sources(conn, tenant_id, &targets).await?)
        };
        let found = with_connection(&cx.service.pool, cx.deadline, work).await;
        sources = found.map_err(too_expensive)?;
    }
    if sources.is_empty() && is_required {
        return Ok(None);
    }
    let sources = Some(sources).filter(|sources| !sources.is_empty());
    find_among(cx, search, Some(scope), sources).await.map(Some)
}

async fn find_among(
    cx: &RequestContext<'_>, search: &InstanceSearch, scope: Option<Scope>, ids: Option<Vec<i64>>,
) -> Result<(i64, InstancePages), Error> {
    let pages = |scope: Option<Scope>, ids: Vec<i64>| InstancePages {
        service: Arc::clone(cx.service),
        deadline: Some(cx.deadline),
        scope,
        fields: search.fields.clone(),
        ids: ids.into_iter(),
    };
    let Some(scope) = scope else { return Ok((0, pages(None, Vec::new()))) };
    let selection = InstanceSelection { ids: ids.as_deref(), ..scope.select(&search.condition) };
    let list = async |conn: &mut PgConnection| {
        Ok(db::instance_search::list_ids(conn, selection, search.page()).await?)
    };
    let found = with_connection(&cx.service.pool, cx.deadline, list).await;
    let (count, ids) = found.map_err(too_expensive)?;
    Ok((count, pages(Some(scope), ids)))
}

/// Which instances at the ends of links are wanted; `None`: none.
pub struct WantedEnds {
    /// The sources.
    pub sources: Option<WantedKeys>,
    /// The targets.
    pub targets: Option<WantedKeys>,
}

/// Which keys of documents are wanted; `None`: all.
pub struct WantedKeys(pub Option<Vec<String>>);

/// The instances at the ends of links, the sources and the targets, each once and in the order of
/// the links. The user must be allowed to view the models at both ends.
pub async fn list_ends(
    cx: &RequestContext<'_>, links: &[StoredLink], wanted: &WantedEnds,
) -> Result<[Vec<String>; 2], Error> {
    if wanted.sources.is_none() && wanted.targets.is_none() {
        return Ok(Default::default());
    }
    let keys = links.iter().flat_map(|link| [&link.source_model, &link.target_model]);
    let mut models = Vec::new();
    for key in keys.collect::<BTreeSet<_>>() {
        models.extend(cx.lookups.model(key, &cx.tenant).await?);
    }
    authorize_view_all(cx, Action::ViewInstances, models.iter().map(|model| &**model)).await?;
    let Some(tenant_id) = cx.lookups.tenant_id(&cx.tenant).await? else {
        return Ok(Default::default());
    };
    // The ends of a link belong to its tenant, or are of a built-in model and shared.
    let tenant_ids = [tenant_id, db::tenant::SHARED_ID];
    let sources = links.iter().map(|link| (link.source_model_id, link.source_id));
    let targets = links.iter().map(|link| (link.target_model_id, link.target_id));
    let ends = [
        (sources.collect::<Vec<_>>(), &wanted.sources),
        (targets.collect::<Vec<_>>(), &wanted.targets),
    ];
    with_connection(&cx.service.pool, cx.deadline, async |conn| {
        let mut documents = [Vec::new(), Vec::new()];
        for ((mut instances, keys), documents) in ends.into_iter().zip(&mut documents) {
            let Some(WantedKeys(keys)) = keys else { continue };
            let mut listed = HashSet::new();
            instances.retain(|instance| listed.insert(*instance));
            let list = db::instance_search::list_by_ids;
            *documents = list(conn, &instances, &tenant_ids, keys.as_deref()).await?;
        }
        Ok(documents)
    })
    .await
}

impl InstanceSearch {
    fn page(&self) -> InstancePage<'_> {
        InstancePage { sort: &self.sort, skip: self.start, limit: self.limit }
    }
}

/// A model, and the tenants whose instances of it are searched.
struct Scope {
    model: Arc<Model>,
    /// The surrogate key of the caller's tenant, if it is stored.
    tenant_id: Option<i32>,
    /// The surrogate keys of the tenants whose instances the caller's tenant sees.
    tenant_ids: Vec<i32>,
}

impl Scope {
    /// Authorizes the user to view the instances of the model.
    async fn find(cx: &RequestContext<'_>, key: &str) -> Result<Option<Self>, Error> {
        match authorize_view(cx, key).await? {
            Some(model) => Self::of(cx, model).await.map(Some),
            None => Ok(None),
        }
    }

    async fn of(cx: &RequestContext<'_>, model: Arc<Model>) -> Result<Self, Error> {
        let tenant_id = cx.lookups.tenant_id(&cx.tenant).await?;
        let is_shared = BUILT_IN_MODELS.contains(&model.key.as_str());
        let shared = is_shared.then_some(db::tenant::SHARED_ID);
        Ok(Self { model, tenant_id, tenant_ids: tenant_id.into_iter().chain(shared).collect() })
    }

    fn select<'a>(&'a self, condition: &'a Condition<DocumentField>) -> InstanceSelection<'a> {
        InstanceSelection {
            model_id: self.model.id,
            id_field: FixedFields::of(&self.model.key).id,
            tenant_ids: &self.tenant_ids,
            condition,
            ids: None,
        }
    }
}

/// The documents of the instances that a search has found, page by page, as JSON text.
pub struct InstancePages {
    service: Arc<Service>,
    /// When the first page must have been read, until it is.
    deadline: Option<Instant>,
    scope: Option<Scope>,
    fields: Option<Vec<String>>,
    /// The ids on the pages that were not returned yet.
    ids: vec::IntoIter<i64>,
}

impl Pages for InstancePages {
    type Row = String;

    fn are_done(&self) -> bool {
        self.ids.len() == 0
    }

    async fn next_page(&mut self) -> Result<Vec<String>, Error> {
        let ids: Vec<_> = self.ids.by_ref().take(DOCUMENT_PAGE_SIZE).collect();
        let deadline = self.deadline.take().unwrap_or(Instant::now() + db::STATEMENT_TIMEOUT);
        let Some(Scope { model, tenant_ids, .. }) = &self.scope else { return Ok(Vec::new()) };
        let instances: Vec<_> = ids.into_iter().map(|id| (model.id, id)).collect();
        let list = async |conn: &mut PgConnection| {
            let list = db::instance_search::list_by_ids;
            Ok(list(conn, &instances, tenant_ids, self.fields.as_deref()).await?)
        };
        with_connection(&self.service.pool, deadline, list).await
    }
}

/// How a condition is refused that takes too long to search by.
pub fn condition_too_expensive() -> RequestError {
    let why = "condition too expensive: it needs a field that equals a value, or fewer instances";
    RequestError::WithoutCode(why.into())
}

fn too_expensive(error: Error) -> Error {
    match error {
        Error::Database(error) if db::is_too_expensive(&error) => condition_too_expensive().into(),
        error => error,
    }
}
