//! The names of the models that the original knows, in the caller's language.

use crate::domain::language::Language;

/// A model that the original knows.
struct KnownModel {
    key: &'static str,
    english: &'static str,
    chinese: &'static str,
}

const fn known(key: &'static str, english: &'static str, chinese: &'static str) -> KnownModel {
    KnownModel { key, english, chinese }
}

const KNOWN_MODELS: [KnownModel; 12] = [
    known("host", "Host", "主机"),
    known("biz", "Business", "业务"),
    known("set", "Set", "集群"),
    known("module", "Module", "模块"),
    known("process", "Process", "进程"),
    known("plat", "Plat", "管控区域"),
    known("bk_biz_set_obj", "Business set", "业务集"),
    known("bk_project", "Project", "项目"),
    known("bk_switch", "Switch", "交换机"),
    known("bk_router", "Router", "路由器"),
    known("bk_load_balance", "Load Balance", "负载均衡"),
    known("bk_firewall", "Firewall", "防火墙"),
];

/// The name of a model in a language. Only the names of models that the original knows are
/// translated.
pub(super) fn name_in<'a>(language: Language, key: &str, stored: &'a str) -> &'a str {
    match (KNOWN_MODELS.iter().find(|model| model.key == key), language) {
        (Some(model), Language::English) => model.english,
        (Some(model), Language::Chinese) => model.chinese,
        (None, _) => stored,
    }
}
