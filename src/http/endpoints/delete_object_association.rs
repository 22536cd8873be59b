//! `delete_object_association`: deletes a model association.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::change_error::ChangeError;
use crate::domain::error::RequestError;
use crate::http::nothing::Nothing;
use crate::http::path::PathVariable;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::model_association::delete;

/// A request to delete a model association.
#[derive(Deserialize, ToSchema)]
pub(super) struct DeleteModelAssociationBody {
    /// The id of the model association.
    #[schema(required, nullable = false)]
    id: Option<PathVariable>,
}

pub(super) struct DeleteObjectAssociation;

impl Endpoint for DeleteObjectAssociation {
    type Body = DeleteModelAssociationBody;
    type Input = i64;
    type Data = Nothing;

    const SUMMARY: &'static str = "Delete a model association";

    const DESCRIPTION: &'static str = "Deletes a model association of the tenant, if no instances \
        are associated by it. If the tenant has none with this id, nothing happens, and the answer \
        is the same.";

    fn check(body: DeleteModelAssociationBody) -> Result<i64, RequestError> {
        let id = body.id.and_then(|id| id.integer()).filter(|id| *id > 0);
        id.ok_or_else(|| ChangeError::InvalidAssociationId.into())
    }

    async fn handle(cx: &RequestContext<'_>, id: &i64) -> Result<Success<Nothing>, Error> {
        let deleted = i64::from(delete(cx, *id).await?);
        let counts = Counts { deleted: Some(deleted), ..Counts::default() };
        Ok(Success::new(Nothing, counts))
    }

    fn example() -> (Value, Value) {
        (json!({"id": 6}), Value::Null)
    }

    fn errors() -> Vec<RequestError> {
        vec![
            ChangeError::InvalidAssociationId.into(),
            ChangeError::MainlineKind.into(),
            ChangeError::PredefinedAssociation { is_deletion: true }.into(),
            ChangeError::AssociationHasLinks.into(),
        ]
    }
}
