//! What the endpoints that create or check batches of links have in common.

use std::borrow::Cow;
use std::collections::BTreeMap;

use metrics::counter;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::error::detail_text;
use super::json::Integer;
use super::success::{Counts, Success};
use crate::domain::batch::{
    BatchOptions, Blocker, CreateLinks, DETAIL_LIMIT, Detail, DetailOutcomes, REASON_LIMIT,
    RefusedDetail, accept_existing,
};
use crate::domain::error::{DetailError, End, RequestError};
use crate::domain::language::Language;
use crate::service::idempotency::Replay;

/// A request to create links.
#[derive(Default, Deserialize, ToSchema)]
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
    /// `created`: a pair that is associated already goes to `success_created`, with the id of its
    /// association; a pair that is repeated gets the id of its first. `error`, the default: both
    /// are refused. Not in the original.
    existing: Option<String>,
    /// Whether `error_detail` explains each refusal, and the header `Server-Timing` says what took
    /// how long. Not in the original.
    explain: Option<bool>,
    /// Why the associations are created, for the audit log. Not in the original.
    #[schema(max_length = 200)]
    reason: Option<String>,
}

/// A pair of instances. A detail without an id is refused like one whose instance does not exist.
#[derive(Default, Deserialize, ToSchema)]
struct DetailBody {
    /// The source instance.
    bk_inst_id: Option<Integer>,
    /// The target instance.
    bk_asst_inst_id: Option<Integer>,
}

impl CreateManyBody {
    /// Checks the request.
    pub fn check(self) -> Result<CreateLinks, RequestError> {
        let options = self.options()?;
        let present = |field: Option<String>, name: &'static str| {
            field.filter(|key| !key.is_empty()).ok_or(RequestError::MissingField(name.into()))
        };
        let model_association = present(self.bk_obj_asst_id, "bk_obj_asst_id")?;
        let source_model = present(self.bk_obj_id, "bk_obj_id")?;
        let target_model = present(self.bk_asst_obj_id, "bk_asst_obj_id")?;
        let details = self.details.unwrap_or_default();
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
        Ok(CreateLinks { model_association, source_model, target_model, details, options })
    }

    fn options(&self) -> Result<BatchOptions, RequestError> {
        let wrong = |path: &str, problem: String| {
            Err(RequestError::WrongType { path: path.to_owned(), problem })
        };
        let accepts_existing = match self.existing.as_deref() {
            None | Some("error") => false,
            Some("created") => true,
            Some(_) => return wrong("existing", "expected \"error\" or \"created\"".to_owned()),
        };
        let reason = self.reason.clone().filter(|reason| !reason.is_empty());
        if let Some(reason) = &reason {
            if reason.chars().count() > REASON_LIMIT {
                return wrong("reason", format!("longer than {REASON_LIMIT} characters"));
            }
            if reason.chars().any(char::is_control) {
                return wrong("reason", "contains a control character".to_owned());
            }
        }
        Ok(BatchOptions { accepts_existing, explain: self.explain == Some(true), reason })
    }
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
    /// What was in the way of these, if `explain` was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = BTreeMap<String, ErrorDetail>, required = false)]
    error_detail: Option<BTreeMap<usize, ErrorDetail>>,
}

/// Why a detail was refused.
#[derive(Serialize, ToSchema)]
struct ErrorDetail {
    /// The code of the text in `error_msg`.
    code: i32,
    /// `already_exists`, `source_missing`, `target_missing`, `source_taken` or `target_taken`.
    reason: &'static str,
    /// The association that is in the way, if the caller can find it.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocking_id: Option<i64>,
    /// The earlier detail that is in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocking_index: Option<usize>,
    /// The ends, `source` and `target`, whose instances do not exist.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    missing: Vec<&'static str>,
    /// Whether the same detail can be accepted later, although no association is deleted: a missing
    /// instance may be created.
    retryable: bool,
}

impl ErrorDetail {
    fn new(refusal: &RefusedDetail) -> Self {
        let RefusedDetail { error, blocker, source_missing, target_missing } = *refusal;
        let is_missing = matches!(error, DetailError::SourceMissing | DetailError::TargetMissing);
        let reason = match (error, blocker) {
            (DetailError::OneToOneTaken, Some((End::Source, _))) => "source_taken",
            (DetailError::OneToOneTaken | DetailError::OneToManyTaken, _) => "target_taken",
            _ => error.name(),
        };
        let (mut blocking_id, mut blocking_index) = (None, None);
        match blocker {
            Some((_, Blocker::Link(id))) => blocking_id = id,
            Some((_, Blocker::Detail(index))) => blocking_index = Some(index),
            None => {}
        }
        let missing = [(source_missing, "source"), (target_missing, "target")];
        let missing = missing.into_iter().filter_map(|(is, end)| (is && is_missing).then_some(end));
        let missing = missing.collect();
        let code = error.code();
        Self { code, reason, blocking_id, blocking_index, missing, retryable: is_missing }
    }
}

impl CreateManyData {
    /// The answer to a batch, with the texts in a language.
    pub fn new(outcomes: &DetailOutcomes, links: &CreateLinks, language: Language) -> Self {
        let CreateLinks { source_model, target_model, options, .. } = links;
        let accepted = options.accepts_existing.then(|| accept_existing(outcomes));
        let mut data = Self {
            success_created: BTreeMap::new(),
            error_msg: BTreeMap::new(),
            error_detail: options.explain.then(BTreeMap::new),
        };
        for (index, outcome) in accepted.as_ref().unwrap_or(outcomes).iter().enumerate() {
            match outcome {
                Ok(id) => drop(data.success_created.insert(index, *id)),
                Err(refusal) => {
                    let text = detail_text(refusal.error, language, source_model, target_model);
                    data.error_msg.insert(index, text);
                    if let Some(details) = &mut data.error_detail {
                        details.insert(index, ErrorDetail::new(refusal));
                    }
                }
            }
        }
        data
    }

    /// Leaves only the refused details, if there are any. Returns the index of the first one.
    pub(super) fn refuse_all(&mut self) -> Option<usize> {
        let first = *self.error_msg.first_key_value()?.0;
        self.success_created.clear();
        Some(first)
    }

    /// The answer, of which `created` links are new.
    pub(super) fn into_success(self, created: usize) -> Success<Self> {
        let (created, refused) = (Some(created), Some(self.error_msg.len()));
        Success::new(self, Counts { created, refused, ..Counts::default() })
    }
}

/// The stored answer to a batch.
pub(super) fn replayed(
    replay: Replay<DetailOutcomes>, links: &CreateLinks,
) -> Success<CreateManyData> {
    let language = replay.language;
    Success::replayed(replay, |outcomes| {
        CreateManyData::new(&outcomes, links, language).into_success(created(&outcomes))
    })
}

/// How many links were created.
pub(super) fn created(outcomes: &DetailOutcomes) -> usize {
    outcomes.iter().filter(|outcome| outcome.is_ok()).count()
}

/// Counts the details in metrics, once for each kind of outcome.
pub(super) fn count(outcomes: &DetailOutcomes) {
    counter!("cmdb_details_total", "verdict" => "created").increment(created(outcomes) as u64);
    for &error in DetailError::ALL {
        let is_such = |outcome: &&Result<i64, RefusedDetail>| {
            outcome.as_ref().is_err_and(|refusal| refusal.error == error)
        };
        let refused = outcomes.iter().filter(is_such).count();
        counter!("cmdb_details_total", "verdict" => error.name()).increment(refused as u64);
    }
}

/// The errors of [`CreateManyBody::check`], and of a batch whose model association is wrong.
pub(super) fn errors() -> Vec<RequestError> {
    vec![
        RequestError::MissingField("bk_obj_asst_id".into()),
        RequestError::NoDetails,
        RequestError::TooManyDetails,
        RequestError::UnknownModelAssociation,
        RequestError::ModelMismatch(End::Source),
    ]
}

/// The body of an example, with these details.
pub(super) fn example_body(details: &[[i64; 2]]) -> Value {
    let detail =
        |[source, target]: &[i64; 2]| json!({"bk_inst_id": source, "bk_asst_inst_id": target});
    json!({
        "bk_obj_id": "bk_switch",
        "bk_asst_obj_id": "host",
        "bk_obj_asst_id": "bk_switch_connect_host",
        "details": details.iter().map(detail).collect::<Vec<_>>(),
    })
}

/// The English text of an error in an example.
pub(super) fn example_text(error: DetailError) -> Cow<'static, str> {
    detail_text(error, Language::English, "bk_switch", "host")
}
