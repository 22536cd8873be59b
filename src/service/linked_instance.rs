//! Searches for the instances of one model that an instance is linked with.

use std::sync::Arc;
use std::vec;

use sqlx::PgConnection;
use tokio::time::Instant;

use super::context::RequestContext;
use super::pages::{Pages, take_page};
use super::permission::authorize_view_all;
use super::topology::find_model;
use super::{Error, Service, with_connection};
use crate::db;
pub use crate::db::linked_instance::NamedInstance;
use crate::db::linked_instance::{LinkSlice, LinksOfInstance, OtherEnds, SortColumn};
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
    /// When the first page must have been read, until it is.
    deadline: Option<Instant>,
    other_model_id: i32,
    tenant_id: i32,
    /// The ids on the pages that were not returned yet.
    ids: vec::IntoIter<i64>,
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
    let pages = |other_model_id, tenant_id, ids: Vec<i64>| LinkedInstancePages {
        service: Arc::clone(cx.service),
        deadline: Some(cx.deadline),
        other_model_id,
        tenant_id,
        ids: ids.into_iter(),
    };
    let (Some(model), Some(other_model), Some(tenant_id)) = (model, other_model, tenant_id) else {
        return Ok((0, pages(0, 0, Vec::new())));
    };
    let links = LinksOfInstance {
        source_model_id: if search.is_target { other_model.id } else { model.id },
        target_model_id: if search.is_target { model.id } else { other_model.id },
        instance_id: search.instance_id,
        is_target: search.is_target,
        tenant_id,
    };
    let slice = LinkSlice { sort: sort_columns(search), skip: search.start, limit: search.limit };
    let list = async |conn: &mut PgConnection| {
        Ok(db::linked_instance::list_ids(conn, &links, &slice).await?)
    };
    let OtherEnds { count, ids } = with_connection(&cx.service.pool, cx.deadline, list).await?;
    Ok((count, pages(other_model.id, tenant_id, ids)))
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

impl Pages for LinkedInstancePages {
    type Row = NamedInstance;

    fn are_done(&self) -> bool {
        self.ids.len() == 0
    }

    async fn next_page(&mut self) -> Result<Vec<NamedInstance>, Error> {
        let first_deadline = self.deadline.take();
        let mut page = Vec::new();
        // The instances of a whole page of ids may be gone.
        while page.is_empty() && !self.are_done() {
            let deadline = first_deadline.unwrap_or(Instant::now() + db::STATEMENT_TIMEOUT);
            let ids = take_page(&mut self.ids);
            let list = async |conn: &mut PgConnection| {
                let list = db::linked_instance::list_named;
                Ok(list(conn, self.other_model_id, self.tenant_id, &ids).await?)
            };
            page = with_connection(&self.service.pool, deadline, list).await?;
        }
        Ok(page)
    }
}
