//! `undo_instance_association_request`: deletes the links that a request created.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use super::find_instance_association_request::NamedRequestBody;
use crate::domain::batch::DETAIL_LIMIT;
use crate::domain::error::RequestError;
use crate::http::openapi::REQUEST_ID;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::creation::{NamedRequest, UndoOutcome, find_replay_of_undo, undo};

/// What became of the associations of the request.
#[derive(Serialize, ToSchema)]
pub(super) struct UndoData {
    /// The `audit_id` of the request that was undone.
    audit_id: i64,
    /// How many of its associations were deleted now.
    deleted: i64,
    /// How many of its associations did not exist any more.
    gone: i64,
}

pub(super) struct UndoInstanceAssociationRequest;

impl Endpoint for UndoInstanceAssociationRequest {
    type Body = NamedRequestBody;
    type Input = NamedRequest;
    type Data = UndoData;

    const SUMMARY: &'static str = "Delete the associations that a request created";

    const DESCRIPTION: &'static str = "Deletes what a request created and what still exists of it, \
        in one commit. An association that was deleted and created again is another one. Takes the \
        body of `find_instance_association_request`, and must find one request: if several have \
        the same id, nothing is done without `audit_id`. Deleting takes a grant to edit both \
        instances of each association that still exists. The original does not have it.";

    fn check(body: NamedRequestBody) -> Result<NamedRequest, RequestError> {
        body.check()
    }

    /// How many links the request created is not known yet.
    fn cost(_: &NamedRequest) -> usize {
        DETAIL_LIMIT
    }

    async fn find_replay(
        cx: &RequestContext<'_>, request: &NamedRequest,
    ) -> Result<Option<Success<UndoData>>, Error> {
        let replay = find_replay_of_undo(cx, request).await?;
        Ok(replay.map(|replay| Success::replayed(replay, success)))
    }

    async fn handle(
        cx: &RequestContext<'_>, request: &NamedRequest,
    ) -> Result<Success<UndoData>, Error> {
        undo(cx, request).await.map(success)
    }

    fn example() -> (Value, Value) {
        (json!({"request_id": REQUEST_ID}), json!({"audit_id": 6, "deleted": 1, "gone": 0}))
    }

    fn errors() -> Vec<RequestError> {
        vec![
            RequestError::UnassignedField("request_id"),
            RequestError::InvalidField("request_id".into()),
            RequestError::IdempotencyKeyReused,
        ]
    }
}

fn success(outcome: UndoOutcome) -> Success<UndoData> {
    let UndoOutcome { audit_record_id, deleted, gone } = outcome;
    let counts = Counts { deleted: Some(deleted), ..Counts::default() };
    Success::new(UndoData { audit_id: audit_record_id, deleted, gone }, counts)
}
