//! The outer form of every answer: six keys at the gateway API, five at the CMDB API.

use serde::Serialize;
use utoipa::ToSchema;

use super::api::Api;
use super::error::answer_to;
use super::permission::Permission;
use crate::domain::error::RequestError;
use crate::domain::language::Language;

/// An answer at either API.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Envelope<'a, D> {
    /// At the gateway API.
    Gateway(GatewayAnswer<'a, D>),
    /// At the CMDB API.
    Cmdb(CmdbAnswer<D>),
}

/// An answer at the gateway API. Streamed answers rely on `data` being the last key.
#[derive(Serialize, ToSchema)]
pub struct GatewayAnswer<'a, D> {
    /// Whether the request was carried out.
    result: bool,
    /// 0, or the error's code.
    code: u32,
    /// The error's text; empty on success.
    message: String,
    /// The permissions that the user lacks, if the request was refused for them.
    #[schema(required)]
    permission: Option<Permission>,
    /// The request's id; in a replayed answer, that of the first request.
    request_id: &'a str,
    /// The result; null if the whole request was refused.
    #[schema(required)]
    data: Option<D>,
}

/// An answer at the CMDB API.
#[derive(Serialize, ToSchema)]
pub struct CmdbAnswer<D> {
    /// Whether the request was carried out.
    result: bool,
    /// 0, or the error's code.
    bk_error_code: u32,
    /// The error's text; `success` on success.
    bk_error_msg: String,
    /// The permissions that the user lacks, if the request was refused for them.
    #[schema(required)]
    permission: Option<Permission>,
    /// The result; null if the whole request was refused.
    #[schema(required)]
    data: Option<D>,
}

impl<'a, D> Envelope<'a, D> {
    /// The answer to a request: what it returns if it was carried out, and why it was refused, as
    /// a whole or in a part.
    pub fn new(
        api: Api, data: Option<D>, error: Option<&RequestError>, language: Language,
        request_id: &'a str,
    ) -> Self {
        let permission = match error {
            Some(RequestError::PermissionDenied(missing)) => Some(Permission::new(missing)),
            _ => None,
        };
        let result = error.is_none();
        let error = error.map(answer_to);
        let code = error.as_ref().map_or(0, |error| error.code);
        let text = error.map(|error| error.text(language));
        match api {
            Api::Gateway => {
                let message = text.unwrap_or_default();
                Self::Gateway(GatewayAnswer { result, code, message, permission, request_id, data })
            }
            Api::Cmdb => Self::Cmdb(CmdbAnswer {
                result,
                bk_error_code: code,
                bk_error_msg: text.unwrap_or_else(|| "success".to_owned()),
                permission,
                data,
            }),
        }
    }
}
