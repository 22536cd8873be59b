//! The shapes of an answer: the six keys of the contract in its order, and the five of the CMDB door.

use std::collections::BTreeMap;

use serde::Serialize;

use super::door::Door;
use super::permission::Permission;
use crate::domain::fault::{DetailFault, Fault};
use crate::domain::language::Language;
use crate::service::instance_association::Outcome;

/// What every answer at an API path consists of, by its door.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Envelope<'a> {
    /// The contract's.
    Gateway {
        /// Whether the request was carried out, whatever became of its details.
        result: bool,
        /// 0, or why not.
        code: u32,
        /// Empty on success.
        message: String,
        /// Null unless permission was refused.
        permission: Option<Permission>,
        /// The request's id, or that of the one whose answer is repeated.
        request_id: &'a str,
        /// Null on failure.
        data: Option<CreateManyData>,
    },
    /// The original CMDB's own.
    Cmdb {
        /// Whether the request was carried out, whatever became of its details.
        result: bool,
        /// 0, or why not.
        bk_error_code: u32,
        /// `success` on success.
        bk_error_msg: String,
        /// Null unless permission was refused.
        permission: Option<Permission>,
        /// Null on failure.
        data: Option<CreateManyData>,
    },
}

/// What became of each detail, under its index. serde writes the indexes as the decimal texts they are owed as.
#[derive(Serialize)]
pub struct CreateManyData {
    success_created: BTreeMap<usize, i64>,
    error_msg: BTreeMap<usize, String>,
}

impl<'a> Envelope<'a> {
    /// Says at a door what came of a request.
    pub fn new(
        door: Door,
        result: Result<&Outcome, &Fault>,
        language: Language,
        request_id: &'a str,
    ) -> Self {
        let data = result.ok().map(|outcome| CreateManyData::new(outcome, language));
        let permission = match result {
            Err(Fault::NoPermission(needed)) => Some(Permission::needed(needed)),
            _ => None,
        };
        let code = result.map_or_else(Fault::code, |_| 0);
        let text = result.err().map(|fault| fault.text(language));
        let is_created = result.is_ok();
        match door {
            Door::Gateway => Self::Gateway {
                result: is_created,
                code,
                message: text.unwrap_or_default(),
                permission,
                request_id,
                data,
            },
            Door::Cmdb => Self::Cmdb {
                result: is_created,
                bk_error_code: code,
                bk_error_msg: text.unwrap_or_else(|| "success".to_owned()),
                permission,
                data,
            },
        }
    }
}

impl CreateManyData {
    fn new(outcome: &Outcome, language: Language) -> Self {
        let Outcome { created, refused, source_model, target_model, .. } = outcome;
        let text = |(&index, fault): (&usize, &DetailFault)| {
            (index, fault.text(language, source_model, target_model))
        };
        Self { success_created: created.clone(), error_msg: refused.iter().map(text).collect() }
    }
}
