//! Models as callers see them.

use serde::Serialize;
use utoipa::ToSchema;

use super::known_models::name_in;
use crate::domain::language::Language;
use crate::service::model::StoredModel;

/// A model: a type of instances.
#[derive(Serialize, ToSchema)]
pub(super) struct ModelData {
    /// Its id, a number.
    pub(super) id: i64,
    /// Its classification.
    pub(super) bk_classification_id: String,
    /// Its icon in user interfaces.
    pub(super) bk_obj_icon: String,
    /// The name by which other endpoints refer to it.
    pub(super) bk_obj_id: String,
    /// Its name in user interfaces, in the language of the answer if it is part of BlueKing CMDB.
    pub(super) bk_obj_name: String,
    /// Whether user interfaces do not list it.
    pub(super) bk_ishidden: bool,
    /// Whether it is shown as a part of BlueKing CMDB.
    pub(super) ispre: bool,
    /// Whether it is out of use: `create_inst` refuses new instances then.
    pub(super) bk_ispaused: bool,
    /// Its place in user interfaces.
    pub(super) position: String,
    /// The tenant.
    pub(super) bk_supplier_account: String,
    /// Its description.
    pub(super) description: String,
    /// The user who created it.
    pub(super) creator: String,
    /// The user who changed it last.
    pub(super) modifier: String,
    /// When it was created, in UTC, as in `2026-01-31 18:00:00`. The year is 1 if that is not
    /// known. Null in the answer to its creation.
    #[schema(required)]
    pub(super) create_time: Option<String>,
    /// When it was changed last, likewise.
    #[schema(required)]
    pub(super) last_time: Option<String>,
    /// Its place in its classification.
    pub(super) obj_sort_number: i64,
}

/// How the original shows a time that is not known.
const UNKNOWN_TIME: &str = "0001-01-01 00:00:00";

impl ModelData {
    /// A stored model in a language.
    pub(super) fn new(stored: StoredModel, language: Language) -> Self {
        let time = |time: Option<String>| Some(time.unwrap_or_else(|| UNKNOWN_TIME.to_owned()));
        let name = name_in(language, &stored.key, &stored.name).to_owned();
        Self {
            id: stored.number,
            bk_classification_id: stored.classification.unwrap_or_default(),
            bk_obj_icon: stored.icon,
            bk_obj_id: stored.key,
            bk_obj_name: name,
            bk_ishidden: stored.is_hidden,
            ispre: stored.is_predefined,
            bk_ispaused: stored.is_paused,
            position: stored.position,
            bk_supplier_account: stored.tenant,
            description: stored.description,
            creator: stored.created_by,
            modifier: stored.updated_by,
            create_time: time(stored.created_at),
            last_time: time(stored.updated_at),
            obj_sort_number: stored.sort_number,
        }
    }
}
