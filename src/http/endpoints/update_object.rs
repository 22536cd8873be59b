//! `update_object`: changes a model.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::change_error::ChangeError;
use crate::domain::error::RequestError;
use crate::domain::model::{ModelChange, check_key};
use crate::http::json::Integer;
use crate::http::nothing::Nothing;
use crate::http::path::PathVariable;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::model::update;

/// What to change of a model. A field that is absent stays as it is.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateModelBody {
    /// The id of the model.
    #[schema(required, nullable = false)]
    id: Option<PathVariable>,
    /// Has no effect, but must have the right form.
    bk_obj_id: Option<String>,
    /// Its name in user interfaces. No other model has it.
    #[schema(min_length = 1, max_length = 128)]
    bk_obj_name: Option<String>,
    /// Its classification. In another one it becomes the last.
    bk_classification_id: Option<String>,
    /// Its icon in user interfaces.
    bk_obj_icon: Option<String>,
    /// Its place in its classification, from 1; 0 for the last. The others move.
    obj_sort_number: Option<Integer>,
    /// Its description.
    description: Option<String>,
    /// Its place in user interfaces.
    position: Option<String>,
    /// Whether it is shown as a part of BlueKing CMDB.
    ispre: Option<bool>,
    /// Whether user interfaces do not list it.
    bk_ishidden: Option<bool>,
    /// Whether it is out of use: `create_inst` refuses new instances then.
    bk_ispaused: Option<bool>,
}

pub(super) struct UpdateObject;

impl Endpoint for UpdateObject {
    type Body = UpdateModelBody;
    /// The id of the model, and the change.
    type Input = (i64, ModelChange);
    type Data = Nothing;

    const SUMMARY: &'static str = "Change a model";

    const DESCRIPTION: &'static str = "Changes a model of the tenant. Its `bk_obj_id` cannot \
        change. Unknown fields are ignored.";

    fn check(body: UpdateModelBody) -> Result<Self::Input, RequestError> {
        let id = body.id.and_then(|id| id.integer());
        let id = id.ok_or(RequestError::NotAnInteger("id"))?;
        body.bk_obj_id.as_deref().map_or(Ok(()), check_key)?;
        let change = ModelChange {
            name: body.bk_obj_name,
            classification: body.bk_classification_id,
            icon: body.bk_obj_icon,
            sort_number: body.obj_sort_number.map(|Integer(number)| number),
            description: body.description,
            position: body.position,
            is_hidden: body.bk_ishidden,
            is_paused: body.bk_ispaused,
            is_predefined: body.ispre,
        };
        change.check()?;
        Ok((id, change))
    }

    async fn handle(
        cx: &RequestContext<'_>, (id, change): &Self::Input,
    ) -> Result<Success<Nothing>, Error> {
        update(cx, *id, change).await?;
        Ok(Success::new(Nothing, Counts::default()))
    }

    fn example() -> (Value, Value) {
        (json!({"id": 20, "bk_obj_name": "Rack"}), Value::Null)
    }

    fn errors() -> Vec<RequestError> {
        vec![
            RequestError::NotAnInteger("id"),
            ChangeError::TooLong { field: "bk_obj_id", limit: 128 }.into(),
            RequestError::MissingField("bk_obj_name".into()),
            ChangeError::UnknownClassification { is_new_model: false }.into(),
            ChangeError::UnknownModel.into(),
            RequestError::InvalidField("obj_sort_number".into()),
            ChangeError::Duplicate { shown: "Rack".into(), problem: "" }.into(),
        ]
    }
}
