//! `count_object_instances`: how many instances of a model satisfy a condition.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::change_error::ChangeError;
use crate::domain::condition::{Condition, DocumentField};
use crate::domain::error::RequestError;
use crate::http::filter::{Dialect, QueryFilter, parse_query_filter};
use crate::http::instance::require_own_model;
use crate::http::instance_search::InstanceTimeCondition;
use crate::http::json::RawJson;
use crate::http::path::PathVariable;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance_search::{condition_too_expensive, count};

/// A question for the number of instances.
#[derive(Deserialize, ToSchema)]
pub(super) struct CountInstancesBody {
    /// The model.
    #[schema(required, nullable = false)]
    bk_obj_id: Option<PathVariable>,
    /// Which instances to count; all of them by default.
    #[schema(value_type = Option<QueryFilter>)]
    conditions: Option<RawJson>,
    /// When they were created or changed.
    time_condition: Option<InstanceTimeCondition>,
}

/// The number of instances.
#[derive(Serialize, ToSchema)]
pub(super) struct CountInstancesData {
    /// How many instances there are.
    count: i64,
}

pub(super) struct CountObjectInstances;

impl Endpoint for CountObjectInstances {
    type Body = CountInstancesBody;
    type Input = (String, Condition<DocumentField>);
    type Data = CountInstancesData;

    const SUMMARY: &'static str = "Count the instances of a model";

    const DESCRIPTION: &'static str = "Counts the tenant's instances of a model. An unknown model \
        has none.";

    const ONLY_READS: bool = true;

    fn check(body: CountInstancesBody) -> Result<Self::Input, RequestError> {
        let model = require_own_model(body.bk_obj_id, &[])?;
        let condition = parse_query_filter(Dialect::Instances, "conditions", body.conditions)?;
        let time = body.time_condition.map(InstanceTimeCondition::parse).transpose()?;
        Ok((model, Condition::all([condition].into_iter().chain(time))))
    }

    async fn handle(
        cx: &RequestContext<'_>, (model, condition): &Self::Input,
    ) -> Result<Success<CountInstancesData>, Error> {
        let count = count(cx, model, condition).await?;
        Ok(Success::new(CountInstancesData { count }, Counts::default()))
    }

    fn example() -> (Value, Value) {
        (json!({"bk_obj_id": "rack"}), json!({"count": 4}))
    }

    fn errors() -> Vec<RequestError> {
        vec![
            ChangeError::BuiltInInstance.into(),
            RequestError::InvalidField("conditions.rules".into()),
            RequestError::UnassignedField("time_condition.rules"),
            condition_too_expensive(),
        ]
    }
}
