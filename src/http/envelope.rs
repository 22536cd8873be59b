//! The shapes of an answer: the six keys of the contract in its order, and the five of the CMDB door.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::api::Api;
use super::permission::Permission;
use crate::domain::error::{DetailError, RequestError};
use crate::domain::language::Language;
use crate::service::instance_association::Outcome;

/// What every answer at an API path consists of, by its door.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Envelope<'a> {
    /// The contract's.
    Gateway(GatewayAnswer<'a>),
    /// The original CMDB's own.
    Cmdb(CmdbAnswer),
}

/// An answer.
#[derive(Serialize, ToSchema)]
pub struct GatewayAnswer<'a> {
    /// Whether the request was carried out, whatever became of its details.
    result: bool,
    /// 0, or why not.
    code: u32,
    /// The code in words; empty on success.
    message: String,
    /// Which permissions the user lacks; null unless that is why.
    #[schema(required)]
    permission: Option<Permission>,
    /// The request's id, or that of the one whose answer is repeated.
    request_id: &'a str,
    /// What became of each detail; null unless the request was carried out.
    #[schema(required)]
    data: Option<CreateManyData>,
}

/// An answer, as the original CMDB gives it to a gateway.
#[derive(Serialize, ToSchema)]
pub struct CmdbAnswer {
    /// Whether the request was carried out, whatever became of its details.
    result: bool,
    /// 0, or why not.
    bk_error_code: u32,
    /// The code in words; `success` on success.
    bk_error_msg: String,
    /// Which permissions the user lacks; null unless that is why.
    #[schema(required)]
    permission: Option<Permission>,
    /// What became of each detail; null unless the request was carried out.
    #[schema(required)]
    data: Option<CreateManyData>,
}

/// What became of each detail, under its index. serde writes the indexes as the decimal texts they are owed as.
#[derive(Serialize, ToSchema)]
pub(super) struct CreateManyData {
    /// The ids of the new associations, by the indexes of their details.
    #[schema(value_type = BTreeMap<String, i64>)]
    success_created: BTreeMap<usize, i64>,
    /// Why the others were not created, by the indexes of their details.
    #[schema(value_type = BTreeMap<String, String>)]
    error_msg: BTreeMap<usize, String>,
}

impl<'a> Envelope<'a> {
    /// Says at a door what came of a request.
    pub fn new(
        door: Api,
        result: Result<&Outcome, &RequestError>,
        language: Language,
        request_id: &'a str,
    ) -> Self {
        let data = result.ok().map(|outcome| CreateManyData::new(outcome, language));
        let permission = match result {
            Err(RequestError::NoPermission(needed)) => Some(Permission::needed(needed)),
            _ => None,
        };
        let code = result.map_or_else(RequestError::code, |_| 0);
        let text = result.err().map(|fault| fault.text(language));
        let is_created = result.is_ok();
        match door {
            Api::Gateway => Self::Gateway(GatewayAnswer {
                result: is_created,
                code,
                message: text.unwrap_or_default(),
                permission,
                request_id,
                data,
            }),
            Api::Cmdb => Self::Cmdb(CmdbAnswer {
                result: is_created,
                bk_error_code: code,
                bk_error_msg: text.unwrap_or_else(|| "success".to_owned()),
                permission,
                data,
            }),
        }
    }
}

impl CreateManyData {
    fn new(outcome: &Outcome, language: Language) -> Self {
        let Outcome { created, refused, source_model, target_model, .. } = outcome;
        let text = |(&index, fault): (&usize, &DetailError)| {
            (index, fault.text(language, source_model, target_model))
        };
        Self { success_created: created.clone(), error_msg: refused.iter().map(text).collect() }
    }
}
