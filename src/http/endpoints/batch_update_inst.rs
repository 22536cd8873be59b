//! `batch_update_inst`: changes instances of a model in one commit.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::change_error::ChangeError;
use crate::domain::error::RequestError;
use crate::domain::instance::{Attributes, InvalidName};
use crate::http::instance::{InstanceFields, parse_at, require_own_model};
use crate::http::json::{Integer, RawJson};
use crate::http::nothing::Nothing;
use crate::http::path::PathVariable;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance::update;

/// A request to change instances.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateInstancesBody {
    /// The model.
    #[schema(required, nullable = false)]
    bk_obj_id: Option<PathVariable>,
    /// The changes. They are made as if one after another.
    update: Option<Vec<Option<InstanceUpdate>>>,
}

/// A change of one instance.
#[derive(Default, Deserialize, ToSchema)]
pub(super) struct InstanceUpdate {
    /// The id of the instance.
    #[schema(required, nullable = false)]
    inst_id: Option<Integer>,
    /// The keys that change, and their values.
    #[schema(required, nullable = false, value_type = InstanceFields)]
    datas: Option<RawJson>,
}

/// Changes of instances.
pub(super) struct InstanceUpdates {
    pub(super) model: String,
    /// The changes by the ids of instances.
    pub(super) changes: Vec<(i64, Attributes)>,
    /// How many changes were sent. An instance may be changed several times.
    pub(super) count: usize,
}

pub(super) struct BatchUpdateInst;

impl Endpoint for BatchUpdateInst {
    type Body = UpdateInstancesBody;
    type Input = InstanceUpdates;
    type Data = Nothing;

    const SUMMARY: &'static str = "Change instances of a model";

    const DESCRIPTION: &'static str = "Changes instances of the tenant in one commit, each in the \
        keys of its `datas`. If one of them is refused, none is changed.";

    fn check(body: UpdateInstancesBody) -> Result<Self::Input, RequestError> {
        let model = require_own_model(body.bk_obj_id, &["host"])?;
        parse_updates(model, body.update.unwrap_or_default())
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
        let update = json!([{"inst_id": 35, "datas": {"rows": 48, "row": "A"}}]);
        (json!({"bk_obj_id": "rack", "update": update}), Value::Null)
    }

    fn errors() -> Vec<RequestError> {
        vec![
            ChangeError::BuiltInInstance.into(),
            RequestError::InvalidField("inst_id".into()),
            ChangeError::UnknownInstance.into(),
            ChangeError::InvalidInstanceName(InvalidName::Empty).into(),
            ChangeError::Duplicate { shown: " bk_inst_name: \"rack-9\" ".into(), problem: "" }
                .into(),
        ]
    }
}

/// The changes of instances. Later changes of an instance are added to the earlier ones.
pub(super) fn parse_updates(
    model: String, updates: Vec<Option<InstanceUpdate>>,
) -> Result<InstanceUpdates, RequestError> {
    let count = updates.len();
    let mut changes = BTreeMap::<i64, Attributes>::new();
    let updates: Vec<_> = updates.into_iter().map(Option::unwrap_or_default).collect();
    let is_id = |update: &InstanceUpdate| update.inst_id.is_some_and(|Integer(id)| id != 0);
    if !updates.iter().all(is_id) {
        return Err(RequestError::InvalidField("inst_id".into()));
    }
    for (index, InstanceUpdate { inst_id, datas }) in updates.into_iter().enumerate() {
        let datas = datas.ok_or(RequestError::MissingField("datas".into()))?;
        let new = parse_at(&model, &format!("update[{index}].datas"), &datas)?;
        let id = inst_id.map(|Integer(id)| id).unwrap_or_default();
        match changes.get_mut(&id) {
            Some(earlier) => earlier.add(new),
            None => drop(changes.insert(id, new)),
        }
    }
    Ok(InstanceUpdates { model, changes: changes.into_iter().collect(), count })
}
