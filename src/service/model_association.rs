//! Searches for model associations.

use sqlx::PgConnection;

use super::context::RequestContext;
use super::link_search::too_expensive;
use super::permission::{authorize_view_all, viewable_models};
use super::{Error, with_connection};
use crate::db;
pub use crate::db::model_association::StoredModelAssociation;
use crate::domain::condition::{Condition, ModelAssociationField, Test};
use crate::domain::keys::{KEY_LIMIT, is_valid_key};
use crate::domain::permission::Action;

/// Finds the model associations that satisfy a condition. If the condition names a model, the user
/// must be allowed to view it. Otherwise those are left out of which the user may view no end.
pub async fn find(
    cx: &RequestContext<'_>, condition: &Condition<ModelAssociationField>,
    named_model: Option<&str>,
) -> Result<Vec<StoredModelAssociation>, Error> {
    let model = match named_model {
        Some(key) => cx.lookups.model(key, &cx.tenant).await?,
        None => None,
    };
    let is_authorized = model.is_some();
    if let Some(model) = model {
        authorize_view_all(cx, Action::ViewModel, [&*model]).await?;
    }
    let list = async |conn: &mut PgConnection| {
        Ok(db::model_association::list(conn, &cx.tenant, condition).await?)
    };
    let found = with_connection(&cx.service.pool, cx.deadline, list).await;
    let mut found = found.map_err(too_expensive)?;
    if !is_authorized {
        let viewable = viewable_models(cx).await?;
        found.retain(|association| {
            let ends = [association.source_model_id, association.target_model_id];
            ends.iter().any(|model| viewable.contain(*model))
        });
    }
    Ok(found)
}

/// Finds the model associations of these kinds, in the order of their ids. Those are left out of
/// which the user may view no end.
pub async fn find_of_kinds(
    cx: &RequestContext<'_>, kinds: &[String],
) -> Result<Vec<StoredModelAssociation>, Error> {
    let is_valid = |key: &&String| is_valid_key(key, KEY_LIMIT);
    let kinds: Vec<_> = kinds.iter().filter(is_valid).cloned().collect();
    if kinds.is_empty() {
        return Ok(Vec::new());
    }
    find(cx, &Condition::Test(ModelAssociationField::Kind, Test::TextIn(kinds)), None).await
}
