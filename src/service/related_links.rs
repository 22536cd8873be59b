//! Searches for the links of an instance.

use std::sync::Arc;

use sqlx::PgConnection;
use tokio::time::Instant;

use super::context::RequestContext;
use super::pages::{PAGE_SIZE, Pages, cut_page};
use super::permission::authorize_view;
use super::{Error, Service, with_connection};
use crate::db;
use crate::db::instance_association::StoredLink;
use crate::domain::keys::Tenant;

/// A search for the links of an instance.
pub struct RelatedLinkSearch {
    /// The key of the instance's model.
    pub model: String,
    /// The instance's id.
    pub instance_id: i64,
    /// How many links to skip.
    pub start: i64,
    /// The most links to return; 0: all.
    pub limit: i64,
}

/// The links of an instance, page by page. No connection is held between pages, so a link that is
/// created or deleted meanwhile may be present or missing.
pub struct RelatedLinkPages {
    service: Arc<Service>,
    tenant: Tenant,
    /// When the first page must have been read, until it is.
    deadline: Option<Instant>,
    /// The instance, with the surrogate key of its model.
    instance: (i32, i64),
    /// The id of the last link that was returned.
    after: i64,
    /// How many links to skip after it.
    skip: i64,
    /// How many links may still be returned; 0 after the last page.
    remaining: i64,
}

/// Finds the links of which an instance is the source or the target, in order of their ids. An
/// unknown model or instance has none.
pub async fn find(
    cx: &RequestContext<'_>, search: &RelatedLinkSearch,
) -> Result<RelatedLinkPages, Error> {
    let model = authorize_view(cx, &search.model).await?;
    let remaining = match (&model, search.limit) {
        (None, _) => 0,
        (_, 0) => i64::MAX,
        (_, limit) => limit,
    };
    Ok(RelatedLinkPages {
        service: Arc::clone(cx.service),
        tenant: cx.tenant.clone(),
        deadline: Some(cx.deadline),
        instance: (model.map_or(0, |model| model.id), search.instance_id),
        after: i64::MIN,
        skip: search.start,
        remaining,
    })
}

impl Pages for RelatedLinkPages {
    type Row = StoredLink;

    fn are_done(&self) -> bool {
        self.remaining == 0
    }

    async fn next_page(&mut self) -> Result<Vec<StoredLink>, Error> {
        if self.are_done() {
            return Ok(Vec::new());
        }
        let deadline = self.deadline.take().unwrap_or(Instant::now() + db::STATEMENT_TIMEOUT);
        let Self { tenant, instance, after, skip, remaining, .. } = &*self;
        // One more than the page tells whether there are others.
        let size = PAGE_SIZE.min(*remaining);
        let list = async |conn: &mut PgConnection| {
            let list = db::instance_association::list_of_instance;
            Ok(list(conn, tenant, *instance, *after, *skip, size + 1).await?)
        };
        let mut links = with_connection(&self.service.pool, deadline, list).await?;
        let has_more = cut_page(&mut links, size);
        (self.after, self.skip) = (links.last().map_or(i64::MAX, |link| link.id), 0);
        self.remaining = if has_more { (self.remaining - PAGE_SIZE).max(0) } else { 0 };
        Ok(links)
    }
}
