//! The topology of an instance: the instances that it is linked with, model by model.

use std::sync::Arc;

use sqlx::PgConnection;

use super::context::RequestContext;
use super::permission::authorize_view_all;
use super::{Error, with_connection};
use crate::db;
pub use crate::db::model::Model;
pub use crate::db::topology::{InstanceLabel, Neighbor, NeighborGroup};
use crate::domain::error::RequestError;
use crate::domain::permission::Action;

/// The most links in one direction that a topology may have: the answer is built in memory.
pub const LINK_LIMIT: i64 = 10_000;

/// The links that a topology has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directions {
    /// Those of which the instance is the source.
    Outgoing,
    /// Those of which the instance is the source or the target.
    Both,
}

/// An instance and its links.
pub struct Topology {
    /// The instance.
    pub instance: InstanceLabel,
    /// The links to it, if they were asked for, by their source model.
    pub incoming: Vec<NeighborGroup>,
    /// The links from it, by their target model.
    pub outgoing: Vec<NeighborGroup>,
}

/// The model with this key that the tenant sees.
pub async fn find_model(cx: &RequestContext<'_>, key: &str) -> Result<Option<Arc<Model>>, Error> {
    cx.lookups.model(key, &cx.tenant).await
}

/// The topology of an instance. Returns `None` if the tenant sees no such instance. Refuses the
/// request if the user may not view the model or one of those that the instance is linked with, or
/// if the instance has too many links.
pub async fn find_topology(
    cx: &RequestContext<'_>, model: &Model, instance_id: i64, directions: Directions,
) -> Result<Option<Topology>, Error> {
    authorize_view_all(cx, Action::ViewModel, [model]).await?;
    // In the original, cloud area 0 has no topology either.
    if instance_id <= 0 {
        return Ok(None);
    }
    let (tenant_id, instance) = (cx.lookups.tenant_id(&cx.tenant).await?, (model.id, instance_id));
    let find = async |conn: &mut PgConnection| {
        let look = db::topology::find_instance(conn, tenant_id, instance).await?;
        let Some(look) = look else { return Ok(None) };
        let list = db::topology::list_neighbors;
        let with_incoming = directions == Directions::Both;
        // One more than the limit tells that there are too many.
        let groups = list(conn, tenant_id, instance, with_incoming, LINK_LIMIT + 1).await?;
        Ok(Some((look, groups)))
    };
    let found = with_connection(&cx.service.pool, cx.deadline, find).await?;
    let Some((instance, groups)) = found else { return Ok(None) };
    let models = groups.iter().map(|group| &group.model);
    authorize_view_all(cx, Action::ViewModel, models).await?;
    let (outgoing, incoming): (Vec<_>, Vec<_>) =
        groups.into_iter().partition(|group| group.is_outgoing);
    let count = |groups: &[NeighborGroup]| groups.iter().map(|group| group.count).sum::<i64>();
    if count(&outgoing).max(count(&incoming)) > LINK_LIMIT {
        return Err(too_many_links().into());
    }
    Ok(Some(Topology { instance, incoming, outgoing }))
}

/// The refusal of a topology with too many links.
pub fn too_many_links() -> RequestError {
    let why = format!("the instance has more than {LINK_LIMIT} associations in one direction");
    RequestError::WithoutCode(why.into())
}
