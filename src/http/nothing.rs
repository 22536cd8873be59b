//! The `data` of endpoints that return none.

use serde::Serialize;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// Null, also on success.
#[derive(Serialize)]
pub(super) struct Nothing;

impl PartialSchema for Nothing {
    fn schema() -> RefOr<Schema> {
        let description = Some("Null, also on success.");
        RefOr::T(
            ObjectBuilder::new().schema_type(Type::Null).description(description).build().into(),
        )
    }
}

impl ToSchema for Nothing {}
