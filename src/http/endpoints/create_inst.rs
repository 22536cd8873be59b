//! `create_inst`: creates an instance.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::change_error::ChangeError;
use crate::domain::error::RequestError;
use crate::domain::instance::{Attributes, InvalidName};
use crate::http::instance::{InstanceData, parse_body, require_own_model};
use crate::http::json::RawJson;
use crate::http::path::PathVariable;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance::create_one;

/// A new instance.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateInstanceBody {
    /// The model.
    #[schema(required, nullable = false)]
    bk_obj_id: Option<PathVariable>,
    /// The whole body: the keys and values of the instance.
    #[schema(ignore)]
    document: Option<RawJson>,
}

pub(super) struct CreateInst;

impl Endpoint for CreateInst {
    type Body = CreateInstanceBody;
    /// The model, and the new instance.
    type Input = (String, Attributes);
    type Data = InstanceData;

    const SUMMARY: &'static str = "Create an instance";

    const DESCRIPTION: &'static str = "Creates an instance of the tenant. The body has any keys \
        and values, at most 64 KiB, which are kept as they are sent, but for those that the answer \
        sets. The name (`bk_inst_name`) is required.";

    const WHOLE_BODY: Option<&'static str> = Some("document");

    fn check(body: CreateInstanceBody) -> Result<Self::Input, RequestError> {
        let model = require_own_model(body.bk_obj_id, &[])?;
        let new = parse_body(&model, body.document, &["bk_obj_id"])?;
        Ok((model, new))
    }

    async fn handle(
        cx: &RequestContext<'_>, (model, new): &Self::Input,
    ) -> Result<Success<InstanceData>, Error> {
        let data = InstanceData::new(create_one(cx, model, new).await?.document);
        Ok(Success::new(data, Counts { created: Some(1), ..Counts::default() }))
    }

    fn example() -> (Value, Value) {
        let body = json!({"bk_obj_id": "rack", "bk_inst_name": "rack-9", "rows": 42});
        let time = "2026-01-31T18:00:00.123Z";
        let data = json!({
            "bk_inst_id": 34,
            "bk_inst_name": "rack-9",
            "bk_obj_id": "rack",
            "bk_supplier_account": "0",
            "rows": 42,
            "create_time": time,
            "last_time": time,
            "bk_created_at": time,
            "bk_created_by": "admin",
            "bk_updated_at": time,
            "bk_updated_by": null,
        });
        (body, data)
    }

    fn errors() -> Vec<RequestError> {
        vec![
            ChangeError::BuiltInInstance.into(),
            ChangeError::PausedModel.into(),
            RequestError::MissingField("bk_obj_id".into()),
            RequestError::UnassignedField("bk_inst_name"),
            ChangeError::InvalidInstanceName(InvalidName::Empty).into(),
            ChangeError::Duplicate { shown: " bk_inst_name: \"rack-9\" ".into(), problem: "" }
                .into(),
        ]
    }
}
