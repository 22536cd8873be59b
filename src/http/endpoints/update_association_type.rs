//! `update_association_type`: changes the texts of an association kind.

use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::association_kind::KindTexts;
use crate::domain::error::RequestError;
use crate::http::nothing::Nothing;
use crate::http::path::PathVariable;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::association_kind::update;
use crate::service::context::RequestContext;

/// The new texts of an association kind. One that is absent becomes empty.
#[derive(Deserialize, ToSchema)]
pub(super) struct UpdateKindBody {
    /// The id of the association kind.
    #[schema(required, nullable = false)]
    id: Option<PathVariable>,
    /// Its name in user interfaces.
    bk_asst_name: Option<String>,
    /// How the source relates to the target.
    src_des: Option<String>,
    /// How the target relates to the source.
    dest_des: Option<String>,
    /// The direction of arrows in user interfaces: `none`, `src_to_dest`, `dest_to_src` or
    /// `bidirectional`.
    direction: Option<String>,
}

pub(super) struct UpdateAssociationType;

impl Endpoint for UpdateAssociationType {
    type Body = UpdateKindBody;
    /// The id of the association kind, and its new texts.
    type Input = (i64, KindTexts);
    type Data = Nothing;

    const SUMMARY: &'static str = "Change the texts of an association kind";

    const DESCRIPTION: &'static str = "Changes all four texts of an association kind of the \
        tenant. If the tenant has none with this id, nothing happens, and the answer is the same. \
        Of the kinds that are part of BlueKing CMDB only the direction is shown as it is stored.";

    fn check(body: UpdateKindBody) -> Result<Self::Input, RequestError> {
        let id = body.id.and_then(|id| id.integer());
        let id = id.ok_or(RequestError::InvalidField("id".into()))?;
        let texts = KindTexts {
            name: body.bk_asst_name.unwrap_or_default(),
            source_text: body.src_des.unwrap_or_default(),
            target_text: body.dest_des.unwrap_or_default(),
            direction: body.direction.unwrap_or_default(),
        };
        texts.check()?;
        Ok((id, texts))
    }

    async fn handle(
        cx: &RequestContext<'_>, (id, texts): &Self::Input,
    ) -> Result<Success<Nothing>, Error> {
        update(cx, *id, texts).await?;
        Ok(Success::new(Nothing, Counts::default()))
    }

    fn example() -> (Value, Value) {
        let body = json!({
            "id": 9,
            "bk_asst_name": "air conditioning",
            "src_des": "cools",
            "dest_des": "is cooled by",
            "direction": "src_to_dest",
        });
        (body, Value::Null)
    }

    fn errors() -> Vec<RequestError> {
        vec![RequestError::InvalidField("id".into())]
    }
}
