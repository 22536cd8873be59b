//! Instances as callers send and see them: any keys and values.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::filter::reserved_fields;
use super::json::RawJson;
use super::path::PathVariable;
use crate::domain::change_error::ChangeError;
use crate::domain::error::RequestError;
use crate::domain::instance::Attributes;
use crate::domain::model::BUILT_IN_MODELS;

/// The document of an instance.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct InstanceData(Box<RawValue>);

impl InstanceData {
    /// A stored document. PostgreSQL stores nothing but JSON.
    pub(super) fn new(json: String) -> Self {
        Self(RawValue::from_string(json).unwrap_or_else(|_error| RawValue::NULL.to_owned()))
    }
}

impl PartialSchema for InstanceData {
    fn schema() -> RefOr<Schema> {
        object(
            "The keys and values of the instance, with `bk_inst_id`, `bk_obj_id`, \
             `bk_supplier_account`, `create_time`, `last_time`, `bk_created_at`, `bk_created_by`, \
             `bk_updated_at` and `bk_updated_by`.",
        )
    }
}

impl ToSchema for InstanceData {}

/// The schema of the keys and values that a caller sends.
pub(super) struct InstanceFields;

impl PartialSchema for InstanceFields {
    fn schema() -> RefOr<Schema> {
        object(
            "Any keys and values, at most 64 KiB. Keys that the program sets, such as \
             `bk_inst_id` and `create_time`, are ignored.",
        )
    }
}

impl ToSchema for InstanceFields {}

fn object(description: &str) -> RefOr<Schema> {
    RefOr::T(ObjectBuilder::new().description(Some(description)).build().into())
}

/// The model of a request, which is not one of the built-in models, but for some of them. Those
/// have endpoints of their own.
pub(super) fn require_own_model(
    model: Option<PathVariable>, permitted: &[&str],
) -> Result<String, RequestError> {
    let PathVariable(model) = model.ok_or(RequestError::MissingField("bk_obj_id".into()))?;
    if BUILT_IN_MODELS.contains(&&*model) && !permitted.contains(&&*model) {
        return Err(ChangeError::BuiltInInstance.into());
    }
    Ok(model)
}

/// What a whole body says of an instance. `variables` are the fields that are in the path at the
/// CMDB API.
pub(super) fn parse_body(
    model: &str, body: Option<RawJson>, variables: &[&str],
) -> Result<Attributes, RequestError> {
    let Some(RawJson(json)) = body else { return Ok(Attributes::empty()) };
    let ignored = [&reserved_fields(), variables].concat();
    Attributes::parse("", &json, model, &ignored)
}

/// What a value in a body says of an instance.
pub(super) fn parse_at(
    model: &str, place: &str, RawJson(json): &RawJson,
) -> Result<Attributes, RequestError> {
    Attributes::parse(place, json, model, &[])
}
