//! `search_inst`: the instances of a model that satisfy conditions on them and on the instances
//! that they are linked to.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::change_error::ChangeError;
use crate::domain::condition::Condition;
use crate::domain::error::RequestError;
use crate::http::instance::require_own_model;
use crate::http::instance_search::{
    InstanceRule, InstanceTimeCondition, InstancesData, limit_or_all, parse_keys, parse_rules,
    stream_instances,
};
use crate::http::page::Page;
use crate::http::path::PathVariable;
use crate::http::success::Success;
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance_search::{
    InstanceSearch, TargetCondition, condition_too_expensive, find, find_sources,
};

/// The most models with conditions.
const MODEL_LIMIT: usize = 20;

/// A search for instances of a model.
#[derive(Deserialize, ToSchema)]
pub(super) struct SearchInstBody {
    /// The model.
    #[schema(required, nullable = false)]
    bk_obj_id: Option<PathVariable>,
    /// The rules by models: of the model itself, and of models to which the instances are
    /// associated as sources. Each rule of the model itself must hold. Of the other models, one
    /// must have an associated instance for which its rules hold.
    condition: Option<BTreeMap<String, Option<Vec<Option<InstanceRule>>>>>,
    /// The keys of each instance to return, under the key of the model. Empty or absent: all.
    fields: Option<BTreeMap<String, Option<Vec<String>>>>,
    /// When the instances were created or changed.
    time_condition: Option<InstanceTimeCondition>,
    /// The part of the list; all of it by default.
    page: Option<Page>,
}

/// What a search is for.
pub(super) struct SearchInput {
    search: InstanceSearch,
    targets: Vec<TargetCondition>,
    /// Whether there are rules of the model itself.
    has_own_rules: bool,
}

pub(super) struct SearchInst;

impl Endpoint for SearchInst {
    type Body = SearchInstBody;
    type Input = SearchInput;
    type Data = InstancesData;

    const SUMMARY: &'static str = "Search instances by what they and associated instances have";

    const DESCRIPTION: &'static str = "Returns the tenant's instances of a model. An unknown model \
        has none. If no instance of the other models is associated and satisfies its rules, these \
        models do not matter, or without rules of the model itself `info` is null. It takes grants \
        to view all models in the condition.";

    const ONLY_READS: bool = true;

    fn check(body: SearchInstBody) -> Result<SearchInput, RequestError> {
        let model = require_own_model(body.bk_obj_id, &[])?;
        let rules = body.condition.unwrap_or_default();
        if rules.len() > MODEL_LIMIT {
            let why = format!("condition: more than {MODEL_LIMIT} models");
            return Err(RequestError::WithoutCode(why.into()));
        }
        let mut own = parse_rules(&model, rules)?;
        let fields = body.fields.unwrap_or_default().remove(&model).flatten();
        let time = body.time_condition.map(InstanceTimeCondition::parse).transpose()?;
        let page = body.page.unwrap_or_default();
        let condition = own.remove(&model);
        let has_own_rules = condition.is_some();
        Ok(SearchInput {
            search: InstanceSearch {
                model,
                condition: Condition::all(condition.into_iter().chain(time)),
                sort: page.sort()?,
                start: page.start()?,
                limit: limit_or_all(&page)?,
                fields: parse_keys("fields", fields)?,
            },
            targets: own
                .into_iter()
                .map(|(model, condition)| TargetCondition { model, condition })
                .collect(),
            has_own_rules,
        })
    }

    async fn handle(
        cx: &RequestContext<'_>, input: &SearchInput,
    ) -> Result<Success<InstancesData>, Error> {
        let SearchInput { search, targets, has_own_rules } = input;
        let found = if targets.is_empty() {
            Some(find(cx, search).await?)
        } else {
            find_sources(cx, search, targets, !has_own_rules).await?
        };
        stream_instances(cx, found).await
    }

    fn example() -> (Value, Value) {
        let rule = json!({"field": "bk_inst_name", "operator": "$eq", "value": "rack-1"});
        let body = json!({
            "bk_obj_id": "power_unit",
            "condition": {"rack": [rule]},
            "fields": {"power_unit": ["bk_inst_id", "bk_inst_name"]},
        });
        let info = json!([{"bk_inst_id": 31, "bk_inst_name": "pdu-1"}]);
        (body, json!({"count": 1, "info": info}))
    }

    fn errors() -> Vec<RequestError> {
        vec![
            ChangeError::BuiltInInstance.into(),
            RequestError::InvalidField("page.limit".into()),
            RequestError::UnassignedField("time_condition.rules"),
            condition_too_expensive(),
        ]
    }
}
