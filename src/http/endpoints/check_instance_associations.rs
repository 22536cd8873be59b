//! `check_instance_associations`: says what `batch_create_instance_association` would answer now,
//! and creates nothing.

use serde_json::{Value, json};

use super::Endpoint;
use crate::domain::batch::CreateLinks;
use crate::domain::error::{DetailError, RequestError};
use crate::http::batch::{self, CreateManyBody, CreateManyData, example_body, example_text};
use crate::http::success::Success;
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance_association::check_many;

pub(super) struct CheckInstanceAssociations;

impl Endpoint for CheckInstanceAssociations {
    type Body = CreateManyBody;
    type Input = CreateLinks;
    type Data = CreateManyData;

    const SUMMARY: &'static str = "Check which associations a batch would create";

    const DESCRIPTION: &'static str = "Takes the body of `batch_create_instance_association` and \
        says what that would answer now. Creates nothing. The id of each association that would \
        be new is 0. Each refusal is explained. The original does not have it.";

    const REQUIRES_BODY: bool = true;

    fn check(body: CreateManyBody) -> Result<CreateLinks, RequestError> {
        let mut links = body.check()?;
        links.options.explain = true;
        Ok(links)
    }

    fn cost(links: &CreateLinks) -> usize {
        links.details.len()
    }

    fn reports_timing(links: &CreateLinks) -> bool {
        links.options.explain
    }

    async fn handle(
        cx: &RequestContext<'_>, links: &CreateLinks,
    ) -> Result<Success<CreateManyData>, Error> {
        let outcomes = check_many(cx, links).await?;
        Ok(CreateManyData::new(&outcomes, links, cx.language).into_success(0))
    }

    fn example() -> (Value, Value) {
        let data = json!({
            "success_created": {"0": 0},
            "error_msg": {"1": example_text(DetailError::TargetMissing)},
            "error_detail": {"1": {
                "code": 1_101_074,
                "reason": "target_missing",
                "missing": ["target"],
                "retryable": true,
            }},
        });
        (example_body(&[[12, 105], [12, 999]]), data)
    }

    fn errors() -> Vec<RequestError> {
        batch::errors()
    }
}
