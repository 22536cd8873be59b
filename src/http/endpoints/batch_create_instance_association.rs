//! `batch_create_instance_association`: creates up to 200 links in one commit and says for each
//! detail, under its index, the id of the new link or why it was refused.

use std::borrow::Cow;
use std::collections::BTreeMap;

use metrics::counter;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Endpoint;
use crate::domain::batch::{CreateLinks, DETAIL_LIMIT, Detail};
use crate::domain::error::{DetailError, End, RequestError};
use crate::domain::language::Language;
use crate::http::error::detail_text;
use crate::http::json::Integer;
use crate::http::success::{Counts, Success};
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::instance_association::{DetailOutcomes, create_many, find_replay};

/// A request to create links.
#[derive(Deserialize, ToSchema)]
pub struct CreateManyBody {
    /// The source model.
    #[schema(required, nullable = false, examples("bk_switch"))]
    bk_obj_id: Option<String>,
    /// The target model.
    #[schema(required, nullable = false, examples("host"))]
    bk_asst_obj_id: Option<String>,
    /// The association between the two models.
    #[schema(required, nullable = false, examples("bk_switch_connect_host"))]
    bk_obj_asst_id: Option<String>,
    /// The pairs to link. They are processed as if one after another.
    #[schema(required, nullable = false, min_items = 1, max_items = 200)]
    details: Option<Vec<Option<DetailBody>>>,
}

/// A pair of instances. A detail without an id is refused like one whose instance does not exist.
#[derive(Default, Deserialize, ToSchema)]
struct DetailBody {
    /// The source instance.
    bk_inst_id: Option<Integer>,
    /// The target instance.
    bk_asst_inst_id: Option<Integer>,
}

/// The outcome of each detail. The keys are the indexes of details in decimal digits.
#[derive(Serialize, ToSchema)]
pub struct CreateManyData {
    /// The ids of the new links.
    #[schema(value_type = BTreeMap<String, i64>)]
    success_created: BTreeMap<usize, i64>,
    /// Why the other details were refused.
    #[schema(value_type = BTreeMap<String, String>)]
    error_msg: BTreeMap<usize, Cow<'static, str>>,
}

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
        let present = |field: Option<String>, name: &'static str| {
            field.filter(|key| !key.is_empty()).ok_or(RequestError::MissingField(name.into()))
        };
        let model_association = present(body.bk_obj_asst_id, "bk_obj_asst_id")?;
        let source_model = present(body.bk_obj_id, "bk_obj_id")?;
        let target_model = present(body.bk_asst_obj_id, "bk_asst_obj_id")?;
        let details = body.details.unwrap_or_default();
        if details.is_empty() {
            return Err(RequestError::NoDetails);
        }
        if details.len() > DETAIL_LIMIT {
            return Err(RequestError::TooManyDetails);
        }
        let detail = |detail: Option<DetailBody>| {
            let DetailBody { bk_inst_id, bk_asst_inst_id } = detail.unwrap_or_default();
            Detail { source: bk_inst_id.map(|id| id.0), target: bk_asst_inst_id.map(|id| id.0) }
        };
        let details = details.into_iter().map(detail).collect();
        Ok(CreateLinks { model_association, source_model, target_model, details })
    }

    fn cost(links: &CreateLinks) -> usize {
        links.details.len()
    }

    async fn find_replay(
        cx: &RequestContext<'_>, links: &CreateLinks,
    ) -> Result<Option<Success<CreateManyData>>, Error> {
        let Some(replay) = find_replay(cx, links).await? else { return Ok(None) };
        let language = replay.language;
        let success = |outcomes| CreateManyData::new(&outcomes, links, language).into_success();
        Ok(Some(Success::replayed(replay, success)))
    }

    async fn handle(
        cx: &RequestContext<'_>, links: &CreateLinks,
    ) -> Result<Success<CreateManyData>, Error> {
        let outcomes = create_many(cx, links).await?;
        count(&outcomes);
        Ok(CreateManyData::new(&outcomes, links, cx.language).into_success())
    }

    fn example() -> (Value, Value) {
        let body = json!({
            "bk_obj_id": "bk_switch",
            "bk_asst_obj_id": "host",
            "bk_obj_asst_id": "bk_switch_connect_host",
            "details": [
                {"bk_inst_id": 11, "bk_asst_inst_id": 104},
                {"bk_inst_id": 12, "bk_asst_inst_id": 101},
                {"bk_inst_id": 12, "bk_asst_inst_id": 999},
            ],
        });
        let text = |error| detail_text(error, Language::English, "bk_switch", "host");
        let data = json!({
            "success_created": {"0": 73},
            "error_msg": {
                "1": text(DetailError::OneToManyTaken),
                "2": text(DetailError::TargetMissing),
            },
        });
        (body, data)
    }

    fn errors() -> Vec<RequestError> {
        vec![
            RequestError::MissingField("bk_obj_asst_id".into()),
            RequestError::NoDetails,
            RequestError::TooManyDetails,
            RequestError::IdempotencyKeyReused,
            RequestError::UnknownModelAssociation,
            RequestError::ModelMismatch(End::Source),
        ]
    }
}

impl CreateManyData {
    /// The answer to a batch, with the texts in a language.
    pub fn new(outcomes: &DetailOutcomes, links: &CreateLinks, language: Language) -> Self {
        let CreateLinks { source_model, target_model, .. } = links;
        let (mut success_created, mut error_msg) = (BTreeMap::new(), BTreeMap::new());
        for (index, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Ok(id) => drop(success_created.insert(index, *id)),
                Err(error) => {
                    let text = detail_text(*error, language, source_model, target_model);
                    error_msg.insert(index, text);
                }
            }
        }
        Self { success_created, error_msg }
    }

    fn into_success(self) -> Success<Self> {
        let (created, refused) = (self.success_created.len(), self.error_msg.len());
        let counts = Counts { created: Some(created), refused: Some(refused), ..Counts::default() };
        Success::new(self, counts)
    }
}

/// Counts the details, once for each kind of outcome.
fn count(outcomes: &DetailOutcomes) {
    let created = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    counter!("cmdb_details_total", "verdict" => "created").increment(created as u64);
    for &error in DetailError::ALL {
        let refused = outcomes.iter().filter(|outcome| **outcome == Err(error)).count();
        counter!("cmdb_details_total", "verdict" => error.name()).increment(refused as u64);
    }
}
