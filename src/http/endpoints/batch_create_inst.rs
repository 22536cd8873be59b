//! `batch_create_inst`: creates up to 200 instances and says for each of them the id or why it was
//! refused.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::batch::DETAIL_LIMIT;
use crate::domain::change_error::ChangeError;
use crate::domain::error::RequestError;
use crate::domain::instance::Attributes;
use crate::http::error::answer_to;
use crate::http::instance::{InstanceFields, parse_at, require_own_model};
use crate::http::json::RawJson;
use crate::http::path::PathVariable;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance::create;

/// New instances.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateInstancesBody {
    /// The model.
    #[schema(required, nullable = false)]
    bk_obj_id: Option<PathVariable>,
    /// The instances. They are created as if one after another.
    #[schema(required, nullable = false, min_items = 1, max_items = 200)]
    #[schema(value_type = Option<Vec<Option<InstanceFields>>>)]
    details: Option<Vec<Option<RawJson>>>,
}

/// What became of each instance. The keys are indexes in `details`, in decimal digits.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct CreateInstancesData {
    /// The ids of the new instances.
    #[schema(value_type = BTreeMap<String, i64>)]
    success_created: BTreeMap<usize, i64>,
    /// Why the other instances were refused.
    #[schema(value_type = BTreeMap<String, String>)]
    error_msg: BTreeMap<usize, String>,
}

pub(super) struct BatchCreateInst;

impl Endpoint for BatchCreateInst {
    type Body = CreateInstancesBody;
    /// The model, and the new instances.
    type Input = (String, Vec<Attributes>);
    type Data = CreateInstancesData;

    const SUMMARY: &'static str = "Create instances";

    const DESCRIPTION: &'static str = "Creates up to 200 instances of the tenant in one commit. \
        `result` is true and `code` 0 even if every instance was refused: look at both maps of \
        `data`.";

    fn check(body: CreateInstancesBody) -> Result<Self::Input, RequestError> {
        let model = require_own_model(body.bk_obj_id, &[])?;
        let details = body.details.unwrap_or_default();
        if details.is_empty() {
            return Err(RequestError::NoDetails);
        }
        if details.len() > DETAIL_LIMIT {
            return Err(RequestError::TooManyDetails);
        }
        let new = details.iter().enumerate().map(|(index, detail)| match detail {
            Some(detail) => parse_at(&model, &format!("details[{index}]"), detail),
            None => Ok(Attributes::empty()),
        });
        let new = new.collect::<Result<_, _>>()?;
        Ok((model, new))
    }

    fn cost((_, new): &Self::Input) -> usize {
        new.len()
    }

    async fn handle(
        cx: &RequestContext<'_>, (model, new): &Self::Input,
    ) -> Result<Success<CreateInstancesData>, Error> {
        let mut data = CreateInstancesData::default();
        for (index, created) in create(cx, model, new).await?.into_iter().enumerate() {
            match created {
                Ok(created) => {
                    data.success_created.insert(index, created.id);
                }
                Err(error) => {
                    data.error_msg.insert(index, answer_to(&error).text(cx.language));
                }
            }
        }
        let created = Some(data.success_created.len());
        let refused = Some(data.error_msg.len());
        Ok(Success::new(data, Counts { created, refused, ..Counts::default() }))
    }

    fn example() -> (Value, Value) {
        let details = json!([{"bk_inst_name": "rack-10"}, {"rows": 42}]);
        let body = json!({"bk_obj_id": "rack", "details": details});
        let problem = "'bk_inst_name' unassigned";
        (body, json!({"success_created": {"0": 35}, "error_msg": {"1": problem}}))
    }

    fn errors() -> Vec<RequestError> {
        vec![
            ChangeError::BuiltInInstance.into(),
            RequestError::NoDetails,
            RequestError::TooManyDetails,
            RequestError::MissingField("bk_obj_id".into()),
        ]
    }
}
