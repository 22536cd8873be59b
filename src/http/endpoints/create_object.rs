//! `create_object`: creates a model.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::change_error::ChangeError;
use crate::domain::error::RequestError;
use crate::domain::model::NewModel;
use crate::http::json::Integer;
use crate::http::model::ModelData;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::model::create;

/// A new model.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateModelBody {
    /// The name by which other endpoints refer to it: at most 128 ASCII letters, digits and `_`,
    /// first a letter. It must not begin with `bk`.
    #[schema(required, nullable = false, min_length = 1, max_length = 128)]
    bk_obj_id: Option<String>,
    /// Its name in user interfaces. No other model has it.
    #[schema(required, nullable = false, min_length = 1, max_length = 128)]
    bk_obj_name: Option<String>,
    /// Its classification, such as `bk_network`.
    #[schema(required, nullable = false)]
    bk_classification_id: Option<String>,
    /// Its icon in user interfaces.
    #[schema(required, nullable = false, min_length = 1)]
    bk_obj_icon: Option<String>,
    /// Its place in its classification, from 1. The others move. By default it is the last.
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
    /// Only in the answer. The creator is the user of the request.
    creator: Option<String>,
    /// Only in the answer.
    modifier: Option<String>,
}

/// A new model, and what the answer repeats of the request.
pub(super) struct CreateModel {
    new: NewModel,
    creator: String,
    modifier: String,
}

pub(super) struct CreateObject;

impl Endpoint for CreateObject {
    type Body = CreateModelBody;
    type Input = CreateModel;
    type Data = ModelData;

    const SUMMARY: &'static str = "Create a model";

    const DESCRIPTION: &'static str = "Creates a model of the tenant. It has no instances yet. \
        The answer repeats what was sent, so `create_time` and `last_time` are null, and \
        `obj_sort_number` may not be the stored one.";

    const USER_FIELD: Option<&'static str> = Some("creator");

    fn check(body: CreateModelBody) -> Result<CreateModel, RequestError> {
        let new = NewModel {
            key: body.bk_obj_id.ok_or(ChangeError::NotAText("bk_obj_id"))?,
            name: body.bk_obj_name.unwrap_or_default(),
            classification: body.bk_classification_id,
            icon: body.bk_obj_icon.unwrap_or_default(),
            sort_number: body.obj_sort_number.map_or(0, |Integer(number)| number),
            description: body.description.unwrap_or_default(),
            position: body.position.unwrap_or_default(),
            is_hidden: body.bk_ishidden.unwrap_or_default(),
            is_paused: body.bk_ispaused.unwrap_or_default(),
            is_predefined: body.ispre.unwrap_or_default(),
        };
        new.check()?;
        let (creator, modifier) = (body.creator, body.modifier);
        Ok(CreateModel {
            new,
            creator: creator.unwrap_or_default(),
            modifier: modifier.unwrap_or_default(),
        })
    }

    async fn handle(
        cx: &RequestContext<'_>, input: &CreateModel,
    ) -> Result<Success<ModelData>, Error> {
        let id = create(cx, &input.new).await?;
        let CreateModel { new, creator, modifier } = input;
        let new = new.clone();
        let data = ModelData {
            id,
            bk_classification_id: new.classification.unwrap_or_default(),
            bk_obj_icon: new.icon,
            bk_obj_id: new.key,
            bk_obj_name: new.name,
            bk_ishidden: new.is_hidden,
            ispre: new.is_predefined,
            bk_ispaused: new.is_paused,
            position: new.position,
            bk_supplier_account: cx.tenant.as_str().to_owned(),
            description: new.description,
            creator: creator.clone(),
            modifier: modifier.clone(),
            create_time: None,
            last_time: None,
            obj_sort_number: new.sort_number,
        };
        Ok(Success::new(data, Counts { created: Some(1), ..Counts::default() }))
    }

    fn example() -> (Value, Value) {
        let body = json!({
            "bk_obj_id": "cable",
            "bk_obj_name": "Cable",
            "bk_classification_id": "bk_network",
            "bk_obj_icon": "icon-cc-default",
            "creator": "admin",
        });
        let data = json!({
            "id": 27,
            "bk_classification_id": "bk_network",
            "bk_obj_icon": "icon-cc-default",
            "bk_obj_id": "cable",
            "bk_obj_name": "Cable",
            "bk_ishidden": false,
            "ispre": false,
            "bk_ispaused": false,
            "position": "",
            "bk_supplier_account": "0",
            "description": "",
            "creator": "admin",
            "modifier": "",
            "create_time": null,
            "last_time": null,
            "obj_sort_number": 0,
        });
        (body, data)
    }

    fn errors() -> Vec<RequestError> {
        vec![
            ChangeError::NotAText("bk_obj_id").into(),
            RequestError::UnassignedField("bk_classification_id"),
            ChangeError::TooLong { field: "bk_obj_id", limit: 128 }.into(),
            RequestError::MissingField("bk_obj_id".into()),
            ChangeError::UnknownClassification { is_new_model: true }.into(),
            RequestError::InvalidField("obj_sort_number".into()),
            ChangeError::Duplicate { shown: "cable".into(), problem: "" }.into(),
        ]
    }
}
