//! What callers see of the models that the original knows: the field of an instance's id, and the
//! name in the caller's language. Of other models it is `bk_inst_id` and the stored name.

use crate::domain::language::Language;

/// A model that the original knows.
struct KnownModel {
    key: &'static str,
    /// The field that has the id of an instance.
    id_field: &'static str,
    english: &'static str,
    chinese: &'static str,
}

const fn known(
    key: &'static str, id_field: &'static str, english: &'static str, chinese: &'static str,
) -> KnownModel {
    KnownModel { key, id_field, english, chinese }
}

/// The field that has the id of an instance of most models.
const ID_FIELD: &str = "bk_inst_id";

const KNOWN_MODELS: [KnownModel; 12] = [
    known("host", "bk_host_id", "Host", "主机"),
    known("biz", "bk_biz_id", "Business", "业务"),
    known("set", "bk_set_id", "Set", "集群"),
    known("module", "bk_module_id", "Module", "模块"),
    known("process", "bk_process_id", "Process", "进程"),
    known("plat", "bk_cloud_id", "Plat", "管控区域"),
    known("bk_biz_set_obj", "bk_biz_set_id", "Business set", "业务集"),
    known("bk_project", "id", "Project", "项目"),
    known("bk_switch", ID_FIELD, "Switch", "交换机"),
    known("bk_router", ID_FIELD, "Router", "路由器"),
    known("bk_load_balance", ID_FIELD, "Load Balance", "负载均衡"),
    known("bk_firewall", ID_FIELD, "Firewall", "防火墙"),
];

fn find(key: &str) -> Option<&'static KnownModel> {
    KNOWN_MODELS.iter().find(|model| model.key == key)
}

/// The field that has the id of an instance of this model.
pub(super) fn id_field(key: &str) -> &'static str {
    find(key).map_or(ID_FIELD, |model| model.id_field)
}

/// The name of a model in a language. Only the names of models that the original knows are
/// translated.
pub(super) fn name_in<'a>(language: Language, key: &str, stored: &'a str) -> &'a str {
    match (find(key), language) {
        (Some(model), Language::English) => model.english,
        (Some(model), Language::Chinese) => model.chinese,
        (None, _) => stored,
    }
}
