//! `find_association_type`: the association kinds that satisfy a condition.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::condition::{Condition, KindField};
use crate::domain::error::RequestError;
use crate::domain::sort::SortField;
use crate::http::filter::{MongoCondition, parse_mongo_condition};
use crate::http::json::RawJson;
use crate::http::kind::KindData;
use crate::http::page::Page;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::association_kind::find;
use crate::service::context::RequestContext;

/// A search for association kinds.
#[derive(Deserialize, ToSchema)]
pub(super) struct SearchKindsBody {
    /// Which association kinds to return; by default all.
    #[schema(value_type = Option<MongoCondition>)]
    condition: Option<RawJson>,
    /// The part of the list; by default all.
    page: Option<Page>,
}

/// What was found.
#[derive(Serialize, ToSchema)]
pub(super) struct SearchKindsData {
    /// How many association kinds satisfy the condition, whatever the page is.
    count: usize,
    /// Those of the page.
    info: Vec<KindData>,
}

/// What is searched for.
pub(super) struct KindSearch {
    condition: Condition<KindField>,
    order: Vec<SortField<KindField>>,
    start: usize,
    /// At most this many are returned.
    limit: usize,
}

pub(super) struct FindAssociationType;

impl Endpoint for FindAssociationType {
    type Body = SearchKindsBody;
    type Input = KindSearch;
    type Data = SearchKindsData;

    const SUMMARY: &'static str = "Find association kinds";

    const DESCRIPTION: &'static str = "Returns the association kinds of the tenant and of tenant \
        `0`. Everybody may view them.";

    const ONLY_READS: bool = true;

    fn check(body: SearchKindsBody) -> Result<KindSearch, RequestError> {
        let page = body.page.unwrap_or_default();
        let (start, limit) = (page.start()?, page.limit()?);
        let limit = if limit == 0 { i64::MAX } else { limit };
        Ok(KindSearch {
            condition: parse_mongo_condition(body.condition)?,
            order: page.sort()?,
            start: usize::try_from(start).unwrap_or(usize::MAX),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
        })
    }

    async fn handle(
        cx: &RequestContext<'_>, input: &KindSearch,
    ) -> Result<Success<SearchKindsData>, Error> {
        let found = find(cx, &input.condition, &input.order).await?;
        let count = found.len();
        let page = found.into_iter().skip(input.start).take(input.limit);
        let info: Vec<_> = page.map(|kind| KindData::new(kind, cx.language)).collect();
        let counts = Counts { rows: Some(info.len()), ..Counts::default() };
        Ok(Success::new(SearchKindsData { count, info }, counts))
    }

    fn example() -> (Value, Value) {
        let kind = json!({
            "id": 5,
            "bk_asst_id": "connect",
            "bk_asst_name": "connect",
            "bk_supplier_account": "0",
            "src_des": "connect",
            "dest_des": "connected",
            "direction": "src_to_dest",
            "ispre": true,
        });
        let body = json!({"condition": {"bk_asst_id": "connect"}});
        (body, json!({"count": 1, "info": [kind]}))
    }

    fn errors() -> Vec<RequestError> {
        vec![RequestError::InvalidField("page.limit".into())]
    }
}
