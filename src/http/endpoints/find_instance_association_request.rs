//! `find_instance_association_request`: what became of a request that created links.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::error::RequestError;
use crate::domain::language::Language;
use crate::http::error::detail_text;
use crate::http::json::Integer;
use crate::http::openapi::REQUEST_ID;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::creation::{CreatedLink, Creation, NamedRequest, find, refusals};

/// An earlier request.
#[derive(Deserialize, ToSchema)]
pub(super) struct NamedRequestBody {
    /// The id of the request, as its answer has it. Several requests may have the same.
    #[schema(required, nullable = false, min_length = 1)]
    request_id: Option<String>,
    /// The `audit_id` of the request, to tell it from others with the same id.
    audit_id: Option<Integer>,
}

impl NamedRequestBody {
    pub(super) fn check(self) -> Result<NamedRequest, RequestError> {
        let request_id = self.request_id.filter(|id| !id.is_empty());
        let request_id = request_id.ok_or(RequestError::UnassignedField("request_id"))?;
        Ok(NamedRequest { request_id, audit_record_id: self.audit_id.map(|id| id.0) })
    }
}

/// The requests that were found.
#[derive(Serialize, ToSchema)]
pub(super) struct FoundRequests {
    /// How many there are.
    count: usize,
    /// The requests, in the order of `audit_id`. Of more than 100, the last ones.
    info: Vec<FoundRequest>,
}

/// A request that created associations.
#[derive(Serialize, ToSchema)]
struct FoundRequest {
    /// The id of its audit record. No two requests have the same.
    audit_id: i64,
    /// The id of the request.
    request_id: String,
    /// When it created the associations, in UTC.
    created_at: String,
    /// The application; empty if the gateway named none.
    bk_app_code: String,
    /// The user.
    bk_username: String,
    /// Why, as the request says.
    reason: Option<String>,
    /// The association between the two models; null if it does not exist any more.
    bk_obj_asst_id: Option<String>,
    /// The source model; null if the association between the models does not exist any more.
    bk_obj_id: Option<String>,
    /// The target model; null if the association between the models does not exist any more.
    bk_asst_obj_id: Option<String>,
    /// The associations that it created, in the order of their ids.
    created: Vec<FoundLink>,
    /// Why the other details were refused, by their indexes. Null if that is not known: the server
    /// keeps it for at least 24 hours, and only of requests with an `Idempotency-Key`.
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    error_msg: Option<BTreeMap<usize, Cow<'static, str>>>,
}

/// An association that a request created.
#[derive(Serialize, ToSchema)]
struct FoundLink {
    /// The index of its detail in the request.
    index: Option<i16>,
    /// Its id.
    id: i64,
    /// The source instance; null if the pairs were removed from the audit log.
    bk_inst_id: Option<i64>,
    /// The target instance; null if the pairs were removed from the audit log.
    bk_asst_inst_id: Option<i64>,
    /// Whether the association still stands.
    exists: bool,
}

impl FoundRequest {
    fn new(request_id: &str, creation: Creation, language: Language) -> Result<Self, Error> {
        let refused = refusals(&creation)?;
        let Creation { audit_record_id, created_at, caller, reason, association, .. } = creation;
        let error_msg = refused.zip(association.as_ref()).map(|(refused, association)| {
            let (source, target) = (&association.source_model, &association.target_model);
            let text = |(index, error)| (index, detail_text(error, language, source, target));
            refused.into_iter().map(text).collect()
        });
        let (bk_obj_asst_id, models) =
            association.map(|found| (found.key, (found.source_model, found.target_model))).unzip();
        let (bk_obj_id, bk_asst_obj_id) = models.unzip();
        Ok(Self {
            audit_id: audit_record_id,
            request_id: request_id.to_owned(),
            created_at: in_utc(created_at)?,
            bk_app_code: caller.app,
            bk_username: caller.user,
            reason,
            bk_obj_asst_id,
            bk_obj_id,
            bk_asst_obj_id,
            created: creation.links.into_iter().map(FoundLink::new).collect(),
            error_msg,
        })
    }
}

impl FoundLink {
    fn new(CreatedLink { id, index, source, target, exists }: CreatedLink) -> Self {
        Self { index, id, bk_inst_id: source, bk_asst_inst_id: target, exists }
    }
}

fn in_utc(time: OffsetDateTime) -> Result<String, RequestError> {
    time.to_offset(UtcOffset::UTC).format(&Rfc3339).or(Err(RequestError::Internal))
}

pub(super) struct FindInstanceAssociationRequest;

impl Endpoint for FindInstanceAssociationRequest {
    type Body = NamedRequestBody;
    type Input = NamedRequest;
    type Data = FoundRequests;

    const SUMMARY: &'static str = "Find what became of a request that created associations";

    const DESCRIPTION: &'static str = "Finds requests by their id: those of the same application \
        and user, and for a user who may edit all instances of both models, those of others, too. \
        A request that created nothing, or that the caller may not see, is not found. At the CMDB \
        API callers choose the ids of requests, so several may have the same. The original does \
        not have it.";

    fn check(body: NamedRequestBody) -> Result<NamedRequest, RequestError> {
        body.check()
    }

    async fn handle(
        cx: &RequestContext<'_>, request: &NamedRequest,
    ) -> Result<Success<FoundRequests>, Error> {
        let found = find(cx, request).await?.into_iter();
        let found = found.map(|one| FoundRequest::new(&request.request_id, one, cx.language));
        let info = found.collect::<Result<Vec<_>, _>>()?;
        let counts = Counts { rows: Some(info.len()), ..Counts::default() };
        Ok(Success::new(FoundRequests { count: info.len(), info }, counts))
    }

    fn example() -> (Value, Value) {
        let link = json!({
            "index": 0, "id": 73, "bk_inst_id": 11, "bk_asst_inst_id": 104, "exists": true,
        });
        let request = json!({
            "audit_id": 6,
            "request_id": REQUEST_ID,
            "created_at": "2026-11-27T08:00:00.123456Z",
            "bk_app_code": "demo",
            "bk_username": "admin",
            "reason": null,
            "bk_obj_asst_id": "bk_switch_connect_host",
            "bk_obj_id": "bk_switch",
            "bk_asst_obj_id": "host",
            "created": [link],
            "error_msg": null,
        });
        (json!({"request_id": REQUEST_ID}), json!({"count": 1, "info": [request]}))
    }

    fn errors() -> Vec<RequestError> {
        vec![RequestError::UnassignedField("request_id")]
    }
}
