//! `create_association_type`: creates an association kind.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::association_kind::{KindTexts, NewKind};
use crate::domain::change_error::ChangeError;
use crate::domain::error::RequestError;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::association_kind::create;
use crate::service::context::RequestContext;

/// A new association kind.
#[derive(Deserialize, ToSchema)]
pub(super) struct CreateKindBody {
    /// The name by which other endpoints refer to it: at most 128 ASCII letters, digits and `_`,
    /// first a letter.
    #[schema(required, nullable = false, min_length = 1, max_length = 128)]
    bk_asst_id: Option<String>,
    /// Its name in user interfaces.
    bk_asst_name: Option<String>,
    /// How the source relates to the target.
    src_des: Option<String>,
    /// How the target relates to the source.
    dest_des: Option<String>,
    /// The direction of arrows in user interfaces: `none`, `src_to_dest`, `dest_to_src` or
    /// `bidirectional`.
    direction: Option<String>,
    /// Whether it is shown as a part of BlueKing CMDB. It cannot be deleted then.
    ispre: Option<bool>,
}

/// The new association kind.
#[derive(Serialize, ToSchema)]
pub(super) struct CreateKindData {
    /// Its id.
    id: i64,
}

pub(super) struct CreateAssociationType;

impl Endpoint for CreateAssociationType {
    type Body = CreateKindBody;
    type Input = NewKind;
    type Data = CreateKindData;

    const SUMMARY: &'static str = "Create an association kind";

    const DESCRIPTION: &'static str = "Creates an association kind of the tenant.";

    fn check(body: CreateKindBody) -> Result<NewKind, RequestError> {
        let new = NewKind {
            key: body.bk_asst_id.unwrap_or_default(),
            is_predefined: body.ispre,
            texts: KindTexts {
                name: body.bk_asst_name.unwrap_or_default(),
                source_text: body.src_des.unwrap_or_default(),
                target_text: body.dest_des.unwrap_or_default(),
                direction: body.direction.unwrap_or_default(),
            },
        };
        new.check()?;
        Ok(new)
    }

    async fn handle(
        cx: &RequestContext<'_>, new: &NewKind,
    ) -> Result<Success<CreateKindData>, Error> {
        let id = create(cx, new).await?;
        let counts = Counts { created: Some(1), ..Counts::default() };
        Ok(Success::new(CreateKindData { id }, counts))
    }

    fn example() -> (Value, Value) {
        let body = json!({
            "bk_asst_id": "cools",
            "bk_asst_name": "cooling",
            "src_des": "cools",
            "dest_des": "is cooled by",
            "direction": "src_to_dest",
        });
        (body, json!({"id": 9}))
    }

    fn errors() -> Vec<RequestError> {
        vec![
            ChangeError::Duplicate { shown: "bk_asst_id".into(), problem: "" }.into(),
            ChangeError::TooLong { field: "bk_asst_id", limit: 128 }.into(),
            RequestError::MissingField("bk_asst_id".into()),
            RequestError::InvalidField("src_des".into()),
        ]
    }
}
