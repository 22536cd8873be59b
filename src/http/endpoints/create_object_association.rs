//! `create_object_association`: creates a model association.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::association::NewModelAssociation;
use crate::domain::change_error::ChangeError;
use crate::domain::error::{End, RequestError};
use crate::http::model_association::ModelAssociationData;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::model_association::create;

/// A new model association.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateModelAssociationBody {
    /// The name by which other endpoints refer to it, at most 512 characters; usually
    /// `{bk_obj_id}_{bk_asst_id}_{bk_asst_obj_id}`.
    #[schema(required, nullable = false, min_length = 1, max_length = 512)]
    bk_obj_asst_id: Option<String>,
    /// Its name in user interfaces.
    bk_obj_asst_name: Option<String>,
    /// The source model.
    #[schema(required, nullable = false, min_length = 1)]
    bk_obj_id: Option<String>,
    /// The target model.
    #[schema(required, nullable = false, min_length = 1)]
    bk_asst_obj_id: Option<String>,
    /// The association kind.
    #[schema(required, nullable = false, min_length = 1)]
    bk_asst_id: Option<String>,
    /// How many associations an instance may have: `1:1`, `1:n` or `n:n`.
    #[schema(required, nullable = false)]
    mapping: Option<String>,
    /// What BlueKing CMDB would do when an instance is deleted; `none` by default. It has no
    /// effect.
    on_delete: Option<String>,
    /// Whether it is shown as a part of BlueKing CMDB. It can then be neither changed nor deleted.
    ispre: Option<bool>,
}

pub(super) struct CreateObjectAssociation;

impl Endpoint for CreateObjectAssociation {
    type Body = CreateModelAssociationBody;
    type Input = NewModelAssociation;
    type Data = ModelAssociationData;

    const SUMMARY: &'static str = "Let two models be associated";

    const DESCRIPTION: &'static str = "Creates a model association of the tenant, between models \
        and of a kind that the tenant sees. Models, kind and mapping cannot change later. In the \
        answer the tenant is empty.";

    fn check(body: CreateModelAssociationBody) -> Result<NewModelAssociation, RequestError> {
        let new = NewModelAssociation {
            key: body.bk_obj_asst_id.unwrap_or_default(),
            name: body.bk_obj_asst_name.unwrap_or_default(),
            source_model: body.bk_obj_id.unwrap_or_default(),
            target_model: body.bk_asst_obj_id.unwrap_or_default(),
            kind: body.bk_asst_id.unwrap_or_default(),
            mapping: body.mapping.unwrap_or_default(),
            on_delete: body.on_delete.unwrap_or_else(|| "none".to_owned()),
            is_predefined: body.ispre,
        };
        new.check()?;
        Ok(new)
    }

    async fn handle(
        cx: &RequestContext<'_>, new: &NewModelAssociation,
    ) -> Result<Success<ModelAssociationData>, Error> {
        let id = create(cx, new).await?;
        let data = ModelAssociationData::created(id, new.clone());
        Ok(Success::new(data, Counts { created: Some(1), ..Counts::default() }))
    }

    fn example() -> (Value, Value) {
        let body = json!({
            "bk_obj_asst_id": "rack_group_power_unit",
            "bk_obj_id": "rack",
            "bk_asst_obj_id": "power_unit",
            "bk_asst_id": "group",
            "mapping": "1:n",
        });
        let data = json!({
            "id": 6,
            "bk_supplier_account": "",
            "bk_obj_asst_id": "rack_group_power_unit",
            "bk_obj_asst_name": "",
            "bk_obj_id": "rack",
            "bk_asst_obj_id": "power_unit",
            "bk_asst_id": "group",
            "mapping": "1:n",
            "on_delete": "none",
            "ispre": null,
        });
        (body, data)
    }

    fn errors() -> Vec<RequestError> {
        let [source_model, target_model] = ["rack", "power_unit"].map(str::to_owned);
        vec![
            ChangeError::MainlineKind.into(),
            ChangeError::MissingParameters.into(),
            ChangeError::SameAssociation { source_model, target_model }.into(),
            RequestError::MissingField("bk_obj_id".into()),
            RequestError::InvalidField("mapping".into()),
            RequestError::UnassignedField("bk_obj_asst_id"),
            ChangeError::TooLong { field: "bk_obj_asst_id", limit: 512 }.into(),
            ChangeError::NotAssociable(End::Source, "bk_project".to_owned()).into(),
            ChangeError::NotAssociable(End::Target, "bk_project".to_owned()).into(),
            ChangeError::Duplicate { shown: "bk_obj_asst_id".into(), problem: "" }.into(),
        ]
    }
}
