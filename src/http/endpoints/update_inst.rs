//! `update_inst`: changes an instance.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use super::batch_update_inst::{InstanceUpdate, InstanceUpdates, parse_updates};
use crate::domain::change_error::ChangeError;
use crate::domain::error::RequestError;
use crate::domain::instance::InvalidName;
use crate::http::instance::{parse_body, require_own_model};
use crate::http::json::{JsonObject, RawJson, field_names};
use crate::http::nothing::Nothing;
use crate::http::path::PathVariable;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance::update;

/// A request to change an instance.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateInstanceBody {
    /// The model.
    #[schema(required, nullable = false)]
    bk_obj_id: Option<PathVariable>,
    /// The id of the instance.
    #[schema(required, nullable = false)]
    bk_inst_id: Option<PathVariable>,
    /// The whole body: the keys that change, and their values.
    #[schema(ignore)]
    document: Option<RawJson>,
}

/// What the body is if `batch` stands in place of an id.
#[derive(Deserialize)]
struct Batch {
    update: Option<Vec<Option<InstanceUpdate>>>,
}

pub(super) struct UpdateInst;

impl Endpoint for UpdateInst {
    type Body = UpdateInstanceBody;
    type Input = InstanceUpdates;
    type Data = Nothing;

    const SUMMARY: &'static str = "Change an instance";

    const DESCRIPTION: &'static str = "Changes the keys of an instance of the tenant that are in \
        the body. The others stay.";

    const WHOLE_BODY: Option<&'static str> = Some("document");

    fn check(body: UpdateInstanceBody) -> Result<Self::Input, RequestError> {
        let model = require_own_model(body.bk_obj_id, &["host"])?;
        let id = body.bk_inst_id.ok_or(RequestError::NotAnInteger("inst_id"))?;
        if id.0 == "batch" {
            let text = body.document.map_or_else(|| "{}".into(), |RawJson(json)| json);
            let json = JsonObject::parse(&text, field_names::<Batch>());
            let json = json.ok_or(RequestError::Internal)?;
            json.require_unique_keys()?;
            let updates = json.decode::<Batch>()?.update.unwrap_or_default();
            return parse_updates(model, updates);
        }
        let id = id.integer().ok_or(RequestError::NotAnInteger("inst_id"))?;
        let new = parse_body(&model, body.document, &["bk_obj_id", "bk_inst_id"])?;
        Ok(InstanceUpdates { model, changes: vec![(id, new)], count: 1 })
    }

    fn cost(updates: &InstanceUpdates) -> usize {
        updates.count.max(1)
    }

    async fn handle(
        cx: &RequestContext<'_>, updates: &InstanceUpdates,
    ) -> Result<Success<Nothing>, Error> {
        update(cx, &updates.model, &updates.changes).await?;
        Ok(Success::new(Nothing, Counts::default()))
    }

    fn example() -> (Value, Value) {
        (json!({"bk_obj_id": "rack", "bk_inst_id": 35, "rows": 47}), Value::Null)
    }

    fn errors() -> Vec<RequestError> {
        vec![
            ChangeError::BuiltInInstance.into(),
            RequestError::NotAnInteger("inst_id"),
            ChangeError::UnknownInstance.into(),
            RequestError::InvalidField("bk_cloud_id".into()),
            ChangeError::InvalidInstanceName(InvalidName::Empty).into(),
            ChangeError::Duplicate { shown: " bk_inst_name: \"rack-9\" ".into(), problem: "" }
                .into(),
        ]
    }
}
