//! Association kinds as callers see them.

use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::language::Language;
use crate::service::association_kind::StoredKind;

/// An association kind: what an association means.
#[derive(Serialize, ToSchema)]
pub(super) struct KindData {
    /// Its id, a number.
    id: i64,
    /// The name by which other endpoints refer to it.
    bk_asst_id: String,
    /// Its name in user interfaces. The texts are in the language of the answer if the kind is part
    /// of BlueKing CMDB.
    bk_asst_name: String,
    /// The tenant.
    bk_supplier_account: String,
    /// How the source relates to the target.
    src_des: String,
    /// How the target relates to the source.
    dest_des: String,
    /// The direction of arrows in user interfaces: `none`, `src_to_dest`, `dest_to_src` or
    /// `bidirectional`.
    direction: String,
    /// Whether it is part of BlueKing CMDB.
    #[schema(required)]
    ispre: Option<bool>,
}

impl KindData {
    /// A stored kind in a language.
    pub(super) fn new(stored: StoredKind, language: Language) -> Self {
        let is_predefined = stored.is_predefined.unwrap_or_default();
        let texts = translated_texts(&stored.key, language).filter(|_| is_predefined);
        let stored_texts = [stored.name, stored.source_text, stored.target_text];
        let [name, source_text, target_text] =
            texts.map_or(stored_texts, |texts| texts.map(str::to_owned));
        Self {
            id: stored.number,
            bk_asst_id: stored.key,
            bk_asst_name: name,
            bk_supplier_account: stored.tenant,
            src_des: source_text,
            dest_des: target_text,
            direction: stored.direction,
            ispre: stored.is_predefined,
        }
    }
}

/// The name and the texts of a kind that every BlueKing CMDB has, whatever is stored.
fn translated_texts(key: &str, language: Language) -> Option<[&'static str; 3]> {
    let (english, chinese) = match key {
        "run" => (["run on", "run on", "run"], ["运行", "运行于", "运行"]),
        "group" => (["group", "group", "group by"], ["组成", "组成", "组成于"]),
        "default" => {
            (["default association", "associate", "associate"], ["默认关联", "关联", "关联"])
        }
        "connect" => (["connect", "connect", "connected"], ["上联", "上联", "下联"]),
        "bk_mainline" => (["mainline", "group", "group by"], ["拓扑组成", "组成", "组成于"]),
        "belong" => (["belong", "belong", "contain"], ["属于", "属于", "包含"]),
        _ => return None,
    };
    Some(if language == Language::English { english } else { chinese })
}
