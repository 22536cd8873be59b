//! `batch_create_instance_association`: creates up to 200 links in one commit and says for each
//! detail, under its index, the id of the new link or why it was refused.

use serde_json::{Value, json};

use super::Endpoint;
use crate::domain::batch::CreateLinks;
use crate::domain::error::{DetailError, RequestError};
use crate::http::batch::{
    self, CreateManyBody, CreateManyData, count, created, example_body, example_text, replayed,
};
use crate::http::success::Success;
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance_association::{create_many, find_replay};

pub(super) struct BatchCreateInstanceAssociation;

impl Endpoint for BatchCreateInstanceAssociation {
    type Body = CreateManyBody;
    type Input = CreateLinks;
    type Data = CreateManyData;

    const SUMMARY: &'static str = "Create associations between instances";

    const DESCRIPTION: &'static str = "Creates up to 200 associations in one commit. `result` is \
        true and `code` 0 even if every detail was refused: look at both maps of `data`, each by \
        the index of its detail.";

    const REQUIRES_BODY: bool = true;

    fn check(body: CreateManyBody) -> Result<CreateLinks, RequestError> {
        body.check()
    }

    fn cost(links: &CreateLinks) -> usize {
        links.details.len()
    }

    async fn find_replay(
        cx: &RequestContext<'_>, links: &CreateLinks,
    ) -> Result<Option<Success<CreateManyData>>, Error> {
        Ok(find_replay(cx, links).await?.map(|replay| replayed(replay, links)))
    }

    fn reports_timing(links: &CreateLinks) -> bool {
        links.options.explain
    }

    async fn handle(
        cx: &RequestContext<'_>, links: &CreateLinks,
    ) -> Result<Success<CreateManyData>, Error> {
        let outcomes = create_many(cx, links).await?;
        count(&outcomes);
        Ok(CreateManyData::new(&outcomes, links, cx.language).into_success(created(&outcomes)))
    }

    fn example() -> (Value, Value) {
        let data = json!({
            "success_created": {"0": 73},
            "error_msg": {
                "1": example_text(DetailError::OneToManyTaken),
                "2": example_text(DetailError::TargetMissing),
            },
        });
        (example_body(&[[11, 104], [12, 101], [12, 999]]), data)
    }

    fn errors() -> Vec<RequestError> {
        let mut errors = batch::errors();
        errors.push(RequestError::IdempotencyKeyReused);
        errors
    }
}
