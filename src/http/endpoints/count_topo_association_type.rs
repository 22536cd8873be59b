//! `count_topo_association_type`: how many model associations association kinds have.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use super::find_topo_association_type::KindsBody;
use crate::domain::error::RequestError;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::model_association::find_of_kinds;

/// The numbers of model associations.
#[derive(Serialize, ToSchema)]
pub(super) struct CountKindsData {
    /// One element for each kind of the request, in the same order.
    associations: Vec<CountOfKind>,
}

/// The number of model associations of a kind.
#[derive(Serialize, ToSchema)]
struct CountOfKind {
    /// The kind.
    bk_asst_id: String,
    /// How many there are.
    count: usize,
}

pub(super) struct CountTopoAssociationType;

impl Endpoint for CountTopoAssociationType {
    type Body = KindsBody;
    type Input = Vec<String>;
    type Data = CountKindsData;

    const SUMMARY: &'static str = "Count the model associations of association kinds";

    const DESCRIPTION: &'static str = "Counts the model associations of the tenant and of tenant \
        `0` that are of these kinds. Those of which the user may view neither model do not count. \
        An unknown kind has none.";

    const ONLY_READS: bool = true;

    fn check(body: KindsBody) -> Result<Vec<String>, RequestError> {
        Ok(body.asst_ids.unwrap_or_default())
    }

    async fn handle(
        cx: &RequestContext<'_>, kinds: &Vec<String>,
    ) -> Result<Success<CountKindsData>, Error> {
        let mut numbers: HashMap<String, usize> = HashMap::new();
        for association in find_of_kinds(cx, kinds).await? {
            *numbers.entry(association.kind).or_default() += 1;
        }
        let count = |kind: &String| CountOfKind {
            count: numbers.get(kind).copied().unwrap_or_default(),
            bk_asst_id: kind.clone(),
        };
        let associations: Vec<_> = kinds.iter().map(count).collect();
        let counts = Counts { rows: Some(associations.len()), ..Counts::default() };
        Ok(Success::new(CountKindsData { associations }, counts))
    }

    fn example() -> (Value, Value) {
        let count = |kind, count| json!({"bk_asst_id": kind, "count": count});
        let data = json!({"associations": [count("group", 1), count("run", 0)]});
        (json!({"asst_ids": ["group", "run"]}), data)
    }

    fn errors() -> Vec<RequestError> {
        Vec::new()
    }
}
