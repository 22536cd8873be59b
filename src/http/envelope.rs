//! The shape of an answer: the six keys of the contract, in its order.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::fault::{DetailFault, Fault};
use crate::domain::language::Language;
use crate::service::instance_association::Outcome;

/// What every answer at an API path consists of.
#[derive(Serialize)]
pub(super) struct Envelope<'a> {
    result: bool,
    code: u32,
    message: String,
    /// Null unless permission was refused.
    permission: Option<()>,
    request_id: &'a str,
    /// Null on failure.
    data: Option<CreateManyData>,
}

/// What became of each detail, under its index. serde writes the indexes as the decimal texts they are owed as.
#[derive(Serialize)]
struct CreateManyData {
    success_created: BTreeMap<usize, i64>,
    error_msg: BTreeMap<usize, String>,
}

impl<'a> Envelope<'a> {
    pub(super) fn created(outcome: &Outcome, language: Language, request_id: &'a str) -> Self {
        let Outcome { created, refused, source_model, target_model } = outcome;
        let text = |(&index, fault): (&usize, &DetailFault)| {
            (index, fault.text(language, source_model, target_model))
        };
        Self {
            result: true,
            code: 0,
            message: String::new(),
            permission: None,
            request_id,
            data: Some(CreateManyData {
                success_created: created.clone(),
                error_msg: refused.iter().map(text).collect(),
            }),
        }
    }

    pub(super) fn refused(fault: &Fault, language: Language, request_id: &'a str) -> Self {
        Self {
            result: false,
            code: fault.code(),
            message: fault.text(language),
            permission: None,
            request_id,
            data: None,
        }
    }
}
