//! Searches for the instances of one model that an instance is linked with.

use std::sync::Arc;

use sqlx::PgConnection;
use tokio::time::Instant;

use super::context::RequestContext;
use super::pages::{PAGE_SIZE, Pages, cut_page};
use super::permission::authorize_view_all;
use super::topology::find_model;
use super::{Error, Service, with_connection};
use crate::db;
use crate::db::linked_instance::{LinkedInstances, LinkedSlice, LinksOfInstance, SortColumn};
use crate::domain::condition::LinkField;
use crate::domain::permission::Action;
use crate::domain::sort::SortField;

/// A search for the instances of a model that an instance is linked with.
pub struct LinkedInstanceSearch {
    /// The key of the instance's model.
    pub model: String,
    /// The instance's id.
    pub instance_id: i64,
    /// Whether the instance is the target of the links, not the source.
    pub is_target: bool,
    /// The key of the model at the other end.
    pub other_model: String,
    /// The order of the links.
    pub sort: Vec<SortField<LinkField>>,
    /// How many links to skip.
    pub start: i64,
    /// The most links whose other ends are returned; `None`: all.
    pub limit: Option<i64>,
}

/// The instances that a search has found, page by page.
pub struct LinkedInstancePages {
    service: Arc<Service>,
    links: LinksOfInstance,
    slice: LinkedSlice,
    /// The first page, until it is returned.
    first: Option<LinkedInstances>,
    is_done: bool,
}

/// Finds the instances of a model that an instance is linked with: the number of links, and the
/// distinct instances in the order of their ids. Unknown models and instances have none.
pub async fn find(
    cx: &RequestContext<'_>, search: &LinkedInstanceSearch,
) -> Result<(i64, LinkedInstancePages), Error> {
    let model = find_model(cx, &search.model).await?;
    let other_model = find_model(cx, &search.other_model).await?;
    let known = [&model, &other_model].into_iter().flatten().map(|model| &**model);
    authorize_view_all(cx, Action::ViewInstances, known).await?;
    let tenant_id = cx.lookups.tenant_id(&cx.tenant).await?;
    let ids = [model, other_model].map(|model| model.map(|model| model.id));
    let links = |(model_id, other_model_id, tenant_id)| LinksOfInstance {
        source_model_id: if search.is_target { other_model_id } else { model_id },
        target_model_id: if search.is_target { model_id } else { other_model_id },
        instance_id: search.instance_id,
        is_target: search.is_target,
        tenant_id,
    };
    let [model_id, other_model_id] = ids;
    let is_unknown = [model_id, other_model_id, tenant_id].contains(&None);
    let mut pages = LinkedInstancePages {
        service: Arc::clone(cx.service),
        links: links((
            model_id.unwrap_or_default(),
            other_model_id.unwrap_or_default(),
            tenant_id.unwrap_or_default(),
        )),
        slice: LinkedSlice {
            sort: sort_columns(search),
            skip: search.start,
            limit: search.limit,
            after: i64::MIN,
            size: PAGE_SIZE + 1,
        },
        first: None,
        is_done: is_unknown,
    };
    if is_unknown {
        return Ok((0, pages));
    }
    let first = pages.read(cx.deadline).await?;
    let count = first.count;
    pages.first = Some(first);
    Ok((count, pages))
}

/// The columns that make a difference: of all links of a search, one end is the same.
fn sort_columns(search: &LinkedInstanceSearch) -> Vec<(SortColumn, bool)> {
    let column = |field: &LinkField| match field {
        LinkField::Id => Some(SortColumn::Link),
        LinkField::SourceId if search.is_target => Some(SortColumn::OtherInstance),
        LinkField::TargetId if !search.is_target => Some(SortColumn::OtherInstance),
        LinkField::ModelAssociation => Some(SortColumn::ModelAssociation),
        LinkField::Kind => Some(SortColumn::Kind),
        LinkField::SourceId
        | LinkField::TargetId
        | LinkField::SourceModel
        | LinkField::TargetModel
        | LinkField::Tenant => None,
    };
    let mut columns: Vec<(SortColumn, bool)> = Vec::new();
    for (field, descends) in &search.sort {
        // A column that stands twice has the same value both times.
        if let Some(column) = column(field)
            && !columns.iter().any(|(known, _)| *known == column)
        {
            columns.push((column, *descends));
        }
    }
    columns
}

impl LinkedInstancePages {
    async fn read(&self, deadline: Instant) -> Result<LinkedInstances, Error> {
        let list = async |conn: &mut PgConnection| {
            Ok(db::linked_instance::list(conn, &self.links, &self.slice).await?)
        };
        with_connection(&self.service.pool, deadline, list).await
    }
}

impl Pages for LinkedInstancePages {
    type Row = (i64, Option<String>);

    fn are_done(&self) -> bool {
        self.is_done
    }

    async fn next_page(&mut self) -> Result<Vec<Self::Row>, Error> {
        if self.is_done {
            return Ok(Vec::new());
        }
        let LinkedInstances { mut instances, .. } = match self.first.take() {
            Some(first) => first,
            None => self.read(Instant::now() + db::STATEMENT_TIMEOUT).await?,
        };
        // One more than the page tells that there are others.
        self.is_done = !cut_page(&mut instances, PAGE_SIZE);
        if let Some((last, _)) = instances.last() {
            self.slice.after = *last;
        }
        Ok(instances)
    }
}
