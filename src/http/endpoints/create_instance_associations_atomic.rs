//! `create_instance_associations_atomic`: creates all links of a batch, or none.

use serde_json::{Value, json};

use super::Endpoint;
use crate::domain::batch::CreateLinks;
use crate::domain::error::{DetailError, RequestError};
use crate::http::batch::{self, CreateManyBody, CreateManyData, count, created, example_body};
use crate::http::success::Success;
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance_association::{create_all, find_replay_of_all};

pub(super) struct CreateInstanceAssociationsAtomic;

impl Endpoint for CreateInstanceAssociationsAtomic {
    type Body = CreateManyBody;
    type Input = CreateLinks;
    type Data = CreateManyData;

    const SUMMARY: &'static str = "Create all associations of a batch, or none";

    const DESCRIPTION: &'static str = "Takes the body of `batch_create_instance_association`. If \
        any detail is refused, nothing is created: `result` is false, `code` and `message` are \
        those of the first refused detail, and `data` explains every refused one. The original \
        does not have it.";

    const REQUIRES_BODY: bool = true;

    fn check(body: CreateManyBody) -> Result<CreateLinks, RequestError> {
        let mut links = body.check()?;
        links.options.explain = true;
        Ok(links)
    }

    fn cost(links: &CreateLinks) -> usize {
        links.details.len()
    }

    async fn find_replay(
        cx: &RequestContext<'_>, links: &CreateLinks,
    ) -> Result<Option<Success<CreateManyData>>, Error> {
        let Some(replay) = find_replay_of_all(cx, links).await? else { return Ok(None) };
        let language = replay.language;
        Ok(Some(Success::replayed(replay, |outcomes| {
            CreateManyData::new(&outcomes, links, language).into_success(created(&outcomes))
        })))
    }

    fn reports_timing(links: &CreateLinks) -> bool {
        links.options.explain
    }

    async fn handle(
        cx: &RequestContext<'_>, links: &CreateLinks,
    ) -> Result<Success<CreateManyData>, Error> {
        let outcomes = create_all(cx, links).await?;
        let mut data = CreateManyData::new(&outcomes, links, cx.language);
        let first = data.refuse_all().and_then(|index| outcomes.get(index)?.err());
        let Some(refusal) = first else {
            count(&outcomes);
            return Ok(data.into_success(created(&outcomes)));
        };
        let CreateLinks { source_model, target_model, .. } = links.clone();
        let error =
            RequestError::DetailRefused { error: refusal.error, source_model, target_model };
        Ok(Success { error: Some(error), ..data.into_success(0) })
    }

    fn example() -> (Value, Value) {
        let data = json!({
            "success_created": {"0": 75, "1": 76},
            "error_msg": {},
            "error_detail": {},
        });
        (example_body(&[[12, 105], [12, 106]]), data)
    }

    fn errors() -> Vec<RequestError> {
        let mut errors = batch::errors();
        errors.push(RequestError::IdempotencyKeyReused);
        errors.extend(DetailError::ALL.iter().map(|&error| RequestError::DetailRefused {
            error,
            source_model: "bk_switch".to_owned(),
            target_model: "host".to_owned(),
        }));
        errors
    }
}
