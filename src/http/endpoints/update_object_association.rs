//! `update_object_association`: changes the name of a model association.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::change_error::{ChangeError, check_texts};
use crate::domain::error::RequestError;
use crate::http::json::RawJson;
use crate::http::nothing::Nothing;
use crate::http::path::PathVariable;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::model_association::rename;

/// What to change of a model association.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateModelAssociationBody {
    /// The id of the model association.
    #[schema(required, nullable = false)]
    association_id: Option<PathVariable>,
    /// Its name in user interfaces.
    bk_obj_asst_name: Option<String>,
    /// Cannot change: the request is refused.
    #[schema(value_type = Option<i64>)]
    id: Option<RawJson>,
    /// Cannot change: the request is refused.
    #[schema(value_type = Option<String>)]
    bk_supplier_account: Option<RawJson>,
    /// Cannot change: the request is refused.
    #[schema(value_type = Option<String>)]
    bk_obj_asst_id: Option<RawJson>,
    /// Cannot change: the request is refused.
    #[schema(value_type = Option<String>)]
    bk_obj_id: Option<RawJson>,
    /// Cannot change: the request is refused.
    #[schema(value_type = Option<String>)]
    bk_asst_obj_id: Option<RawJson>,
    /// Cannot change: the request is refused.
    #[schema(value_type = Option<String>)]
    mapping: Option<RawJson>,
    /// Cannot change: the request is refused.
    #[schema(value_type = Option<bool>)]
    ispre: Option<RawJson>,
}

pub(super) struct UpdateObjectAssociation;

impl Endpoint for UpdateObjectAssociation {
    type Body = UpdateModelAssociationBody;
    /// The id of the model association, and its new name.
    type Input = (i64, Option<String>);
    type Data = Nothing;

    const SUMMARY: &'static str = "Change the name of a model association";

    const DESCRIPTION: &'static str = "Changes a model association of the tenant. Only the name \
        can change. `bk_asst_id`, `on_delete` and unknown fields are ignored.";

    fn check(body: UpdateModelAssociationBody) -> Result<Self::Input, RequestError> {
        let id = body.association_id.and_then(|id| id.integer());
        let id = id.ok_or(RequestError::MissingField("id".into()))?;
        let fixed = [
            body.id,
            body.bk_supplier_account,
            body.bk_obj_asst_id,
            body.bk_obj_id,
            body.bk_asst_obj_id,
            body.mapping,
            body.ispre,
        ];
        if fixed.iter().any(Option::is_some) {
            return Err(ChangeError::FixedFields.into());
        }
        check_texts(body.bk_obj_asst_name.as_deref().map(|name| ("bk_obj_asst_name", name)))?;
        Ok((id, body.bk_obj_asst_name))
    }

    async fn handle(
        cx: &RequestContext<'_>, (id, name): &Self::Input,
    ) -> Result<Success<Nothing>, Error> {
        rename(cx, *id, name.as_deref()).await?;
        Ok(Success::new(Nothing, Counts::default()))
    }

    fn example() -> (Value, Value) {
        (json!({"association_id": 1, "bk_obj_asst_name": "uplink"}), Value::Null)
    }

    fn errors() -> Vec<RequestError> {
        vec![
            RequestError::MissingField("id".into()),
            ChangeError::FixedFields.into(),
            RequestError::InvalidField("bk_obj_asst_name".into()),
            RequestError::UnknownModelAssociation,
            ChangeError::PredefinedAssociation { is_deletion: false }.into(),
        ]
    }
}
