//! `count_instance_associations`: how many links start at instances of a model.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::condition::{Condition, LinkField};
use crate::domain::error::RequestError;
use crate::http::filter::{Dialect, QueryFilter, parse_query_filter};
use crate::http::json::RawJson;
use crate::http::path::PathVariable;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::link_search::{condition_too_expensive, count};

/// A question for the number of links.
#[derive(Deserialize, ToSchema)]
pub(super) struct CountLinksBody {
    /// The source model of the links.
    #[schema(examples("bk_switch"))]
    bk_obj_id: PathVariable,
    /// Which links to count; all of them by default.
    #[schema(value_type = Option<QueryFilter>)]
    conditions: Option<RawJson>,
}

/// The number of links.
#[derive(Serialize, ToSchema)]
pub(super) struct CountLinksData {
    /// How many links there are.
    count: i64,
}

pub(super) struct CountInstanceAssociations;

impl Endpoint for CountInstanceAssociations {
    type Body = CountLinksBody;
    type Input = (String, Condition<LinkField>);
    type Data = CountLinksData;

    const SUMMARY: &'static str = "Count the associations of a source model";

    const DESCRIPTION: &'static str = "Counts the tenant's associations of which an instance of \
        the model is the source. `search_instance_associations` returns also those of which it is \
        the target.";

    const ONLY_READS: bool = true;

    fn check(body: CountLinksBody) -> Result<Self::Input, RequestError> {
        Ok((body.bk_obj_id.0, parse_query_filter(Dialect::Links, "conditions", body.conditions)?))
    }

    async fn handle(
        cx: &RequestContext<'_>, (model, condition): &Self::Input,
    ) -> Result<Success<CountLinksData>, Error> {
        let count = count(cx, model, condition).await?;
        Ok(Success::new(CountLinksData { count }, Counts::default()))
    }

    fn example() -> (Value, Value) {
        (json!({"bk_obj_id": "rack"}), json!({"count": 3}))
    }

    fn errors() -> Vec<RequestError> {
        vec![
            RequestError::InvalidField("conditions.rules[0].value".into()),
            condition_too_expensive(),
        ]
    }
}
