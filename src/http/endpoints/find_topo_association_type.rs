//! `find_topo_association_type`: the model associations of association kinds.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::error::RequestError;
use crate::http::model_association::ModelAssociationData;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::model_association::find_of_kinds;

/// Association kinds.
#[derive(Deserialize, ToSchema)]
pub(super) struct KindsBody {
    /// The association kinds.
    #[schema(examples(json!(["connect", "group"])))]
    pub(super) asst_ids: Option<Vec<String>>,
}

/// The model associations of the kinds.
#[derive(Serialize, ToSchema)]
pub(super) struct FindKindsData {
    /// One element for each kind that has model associations, in the order of their first ids.
    associations: Vec<AssociationsOfKind>,
}

/// The model associations of a kind.
#[derive(Serialize, ToSchema)]
struct AssociationsOfKind {
    /// The kind.
    bk_asst_id: String,
    /// Its model associations, in the order of their ids.
    assts: Vec<ModelAssociationData>,
}

pub(super) struct FindTopoAssociationType;

impl Endpoint for FindTopoAssociationType {
    type Body = KindsBody;
    type Input = Vec<String>;
    type Data = FindKindsData;

    const SUMMARY: &'static str = "Find the model associations of association kinds";

    const DESCRIPTION: &'static str = "Returns the model associations of the tenant and of tenant \
        `0` that are of these kinds. Those of which the user may view neither model are left out, \
        and so are kinds of which none remains.";

    const ONLY_READS: bool = true;

    fn check(body: KindsBody) -> Result<Vec<String>, RequestError> {
        Ok(body.asst_ids.unwrap_or_default())
    }

    async fn handle(
        cx: &RequestContext<'_>, kinds: &Vec<String>,
    ) -> Result<Success<FindKindsData>, Error> {
        let found = find_of_kinds(cx, kinds).await?;
        let counts = Counts { rows: Some(found.len()), ..Counts::default() };
        let mut associations: Vec<AssociationsOfKind> = Vec::new();
        for association in found {
            let kind = association.kind.clone();
            let data = association.into();
            match associations.iter_mut().find(|known| known.bk_asst_id == kind) {
                Some(known) => known.assts.push(data),
                None => {
                    associations.push(AssociationsOfKind { bk_asst_id: kind, assts: vec![data] });
                }
            }
        }
        Ok(Success::new(FindKindsData { associations }, counts))
    }

    fn example() -> (Value, Value) {
        let association = json!({
            "id": 2,
            "bk_supplier_account": "0",
            "bk_obj_asst_id": "rack_group_bk_switch",
            "bk_obj_asst_name": "",
            "bk_obj_id": "rack",
            "bk_asst_obj_id": "bk_switch",
            "bk_asst_id": "group",
            "mapping": "1:n",
            "on_delete": "none",
            "ispre": null,
        });
        let data = json!({"associations": [{"bk_asst_id": "group", "assts": [association]}]});
        (json!({"asst_ids": ["group", "run"]}), data)
    }

    fn errors() -> Vec<RequestError> {
        Vec::new()
    }
}
