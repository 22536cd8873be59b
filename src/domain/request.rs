//! What a request must say before its details are looked at, in the order in which it is judged.

use super::association::{ModelAssociation, Tenant};
use super::batch::{DETAIL_LIMIT, Detail};
use super::error::{Field, RequestError};

/// The longest idempotency key, in characters.
pub const KEY_LIMIT: usize = 255;

/// The fields of a request as they came, of the right types.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// `bk_obj_id`.
    pub source_model: Option<String>,
    /// `bk_asst_obj_id`.
    pub target_model: Option<String>,
    /// `bk_obj_asst_id`.
    pub model_association: Option<String>,
    /// `details`.
    pub details: Option<Vec<Detail>>,
    /// `bk_supplier_account`.
    pub account: Option<String>,
    /// `Idempotency-Key`.
    pub key: Option<String>,
}

/// A batch that can be looked up.
#[derive(Debug, Clone)]
pub struct CreateLinks {
    /// The source model's key.
    pub source_model: String,
    /// The target model's key.
    pub target_model: String,
    /// The model association's key.
    pub model_association: String,
    /// 1 to [`DETAIL_LIMIT`] details.
    pub details: Vec<Detail>,
    /// The tenant.
    pub account: Tenant,
    /// What the caller calls this request, so that it can be sent again.
    pub key: Option<String>,
}

impl Given {
    /// Refuses what is missing, empty or too much.
    pub fn check(self) -> Result<CreateLinks, RequestError> {
        let present = |value: Option<String>, field| {
            value.filter(|text| !text.is_empty()).ok_or(RequestError::Missing(field))
        };
        let is_key = |key: &String| {
            (1..=KEY_LIMIT).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !self.key.as_ref().is_none_or(is_key) {
            return Err(RequestError::BadKey);
        }
        let model_association = present(self.model_association, Field::ModelAssociation)?;
        let source_model = present(self.source_model, Field::SourceModel)?;
        let target_model = present(self.target_model, Field::TargetModel)?;
        let details = self.details.unwrap_or_default();
        match details.len() {
            0 => Err(RequestError::NoDetails),
            1..=DETAIL_LIMIT => {
                let account = Tenant::parse(&self.account.unwrap_or_default())
                    .ok_or(RequestError::Mismatch(Field::Tenant))?;
                Ok(CreateLinks {
                    source_model,
                    target_model,
                    model_association,
                    details,
                    account,
                    key: self.key,
                })
            }
            _ => Err(RequestError::TooManyDetails),
        }
    }
}

impl CreateLinks {
    /// Refuses a model association that does not exist, or that is between other models.
    ///
    /// Keys are usually `<source>_<kind>_<target>`; one that is not even that for the models given is
    /// blamed on the model that does not fit, as the original does.
    pub fn check_association(&self, found: Option<&ModelAssociation>) -> Result<(), RequestError> {
        let (source_fits, target_fits) = match found {
            Some(found) => {
                (found.source_model == self.source_model, found.target_model == self.target_model)
            }
            None => (
                self.model_association.starts_with(&self.source_model),
                self.model_association.ends_with(&self.target_model),
            ),
        };
        if !source_fits {
            return Err(RequestError::Mismatch(Field::SourceModel));
        }
        if !target_fits {
            return Err(RequestError::Mismatch(Field::TargetModel));
        }
        found.map(|_| ()).ok_or(RequestError::UnknownModelAssociation)
    }
}
