//! The collections of an export, and how their documents become rows.

use std::borrow::Cow;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::documents::Document;
use super::instance_document::{StoredDocument, convert};
use super::value::{at, integer};
use crate::db::import::{Row, Stage};
use crate::domain::keys::{KEY_LIMIT, MODEL_ASSOCIATION_KEY_LIMIT, Tenant, is_valid_key};

/// The highest id of a link in an import. The sequence continues above it.
const ASSOCIATION_ID_LIMIT: i64 = 1 << 62;

/// The content of a file, which its name determines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Collection {
    /// The stage of its rows.
    pub(super) stage: Stage,
    /// The tenant of documents that name none.
    tenant: String,
    /// The model of instances whose documents name none.
    model: String,
    id_field: &'static str,
    name_field: &'static str,
    pub(super) versions: Versions,
}

/// The versions of BlueKing CMDB that use a collection. Version 3.10 divided instances and links
/// among collections for each model, and left the previous collections as they were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Versions {
    All,
    Before310,
    Since310,
}

/// Why a document does not become a row.
#[derive(Debug)]
pub(super) enum RowError {
    /// A field is missing or has the wrong type, so this is no export. The import stops.
    Unreadable(String),
    /// A value is not allowed. The row is rejected and reported.
    Invalid(String),
}

/// The collections with fixed names: name, stage, model of its instances, field of the id, field of
/// the name.
const FIXED_NAMES: [(&str, Stage, &str, &str, &str); 15] = [
    ("cc_idgenerator", Stage::AssignedIds, "", "SequenceID", ""),
    ("cc_ObjClassification", Stage::Classifications, "", "", ""),
    ("cc_ObjDes", Stage::Models, "", "id", "bk_obj_name"),
    ("cc_AsstDes", Stage::Kinds, "", "id", "bk_asst_name"),
    ("cc_ObjAsst", Stage::ModelAssociations, "", "id", "bk_obj_asst_name"),
    ("cc_HostBase", Stage::Instances, "host", "bk_host_id", "bk_host_innerip"),
    ("cc_ApplicationBase", Stage::Instances, "biz", "bk_biz_id", "bk_biz_name"),
    ("cc_SetBase", Stage::Instances, "set", "bk_set_id", "bk_set_name"),
    ("cc_ModuleBase", Stage::Instances, "module", "bk_module_id", "bk_module_name"),
    ("cc_Process", Stage::Instances, "process", "bk_process_id", "bk_process_name"),
    ("cc_PlatBase", Stage::Instances, "plat", "bk_cloud_id", "bk_cloud_name"),
    ("cc_BizSetBase", Stage::Instances, "bk_biz_set_obj", "bk_biz_set_id", "bk_biz_set_name"),
    ("cc_ProjectBase", Stage::Instances, "bk_project", "id", "bk_project_name"),
    // Their documents name the model. Version 3.10 replaced them.
    ("cc_ObjectBase", Stage::Instances, "", "bk_inst_id", "bk_inst_name"),
    ("cc_InstAsst", Stage::Links, "", "id", ""),
];

impl Collection {
    /// The collection of this name, or `None` if it is not imported.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        let tenant_and_model = |prefix| name.strip_prefix(prefix)?.split_once("_pub_");
        let (stage, tenant, model, id_field, name_field) =
            if let Some((tenant, model)) = tenant_and_model("cc_ObjectBase_") {
                (Stage::Instances, tenant, model, "bk_inst_id", "bk_inst_name")
            } else if let Some((tenant, model)) = tenant_and_model("cc_InstAsst_") {
                (Stage::Links, tenant, model, "id", "")
            } else {
                let (_, stage, model, id_field, name_field) =
                    *FIXED_NAMES.iter().find(|(fixed, ..)| *fixed == name)?;
                (stage, Tenant::SHARED, model, id_field, name_field)
            };
        let versions = match name {
            "cc_ObjectBase" | "cc_InstAsst" => Versions::Before310,
            _ if name.contains("_pub_") => Versions::Since310,
            _ => Versions::All,
        };
        let (tenant, model) = (tenant.to_owned(), model.to_owned());
        Some(Self { stage, tenant, model, id_field, name_field, versions })
    }

    /// The association id of a document whose row is rejected. It is not assigned again.
    pub(super) fn assigned_id(&self, document: &Document) -> Option<i64> {
        if self.stage != Stage::Links {
            return None;
        }
        Fields(document).association_id(self.id_field).ok()
    }

    /// The row of a document, or `None` if the document is not imported. `warn` receives what is
    /// imported otherwise than it is in the document, and not reported by the row.
    pub(super) fn row(
        &self, document: &Document, warn: &mut impl FnMut(String),
    ) -> Result<Option<Row>, RowError> {
        let fields = Fields(document);
        let name = fields.name(self.name_field);
        let row = Row::default();
        Ok(Some(match self.stage {
            Stage::AssignedIds => {
                let Some(collection @ ("cc_InstAsst" | "cc_ObjAsst" | "cc_ObjDes" | "cc_AsstDes")) =
                    fields.optional_text("_id")
                else {
                    return Ok(None);
                };
                row.value(collection).value(fields.association_id(self.id_field)?)
            }
            Stage::Classifications => row.value(fields.key("bk_classification_id", KEY_LIMIT)?),
            Stage::Models => row
                .value(fields.tenant(&self.tenant)?)
                .value(fields.key("bk_obj_id", KEY_LIMIT)?)
                .optional(name)
                .optional(fields.optional_key("bk_classification_id"))
                .optional(fields.optional_text("bk_obj_icon"))
                .optional(fields.optional_boolean("bk_ishidden"))
                .optional(fields.optional_boolean("bk_ispaused"))
                .optional(fields.optional_boolean("ispre"))
                .optional(fields.optional_text("position"))
                .optional(fields.optional_text("description"))
                .optional(fields.get("obj_sort_number").and_then(integer))
                .optional(fields.optional_text("creator"))
                .optional(fields.optional_time("create_time"))
                .optional(fields.optional_text("modifier"))
                .optional(fields.optional_time("last_time"))
                .optional(fields.optional_integer(self.id_field)?),
            Stage::Kinds => row
                .value(fields.tenant(&self.tenant)?)
                .value(fields.key("bk_asst_id", KEY_LIMIT)?)
                .optional(name)
                .optional(fields.optional_text("src_des"))
                .optional(fields.optional_text("dest_des"))
                .optional(fields.optional_text("direction"))
                .optional(fields.optional_boolean("ispre"))
                .optional(fields.optional_integer(self.id_field)?),
            Stage::ModelAssociations => {
                let Mapping { stored, exported, warning } = fields.mapping()?;
                row.value(fields.tenant(&self.tenant)?)
                    .value(fields.key("bk_obj_asst_id", MODEL_ASSOCIATION_KEY_LIMIT)?)
                    .optional(name)
                    .value(fields.key("bk_obj_id", KEY_LIMIT)?)
                    .value(fields.key("bk_asst_obj_id", KEY_LIMIT)?)
                    .value(fields.key("bk_asst_id", KEY_LIMIT)?)
                    .value(stored)
                    .optional(exported)
                    .optional(fields.optional_text("on_delete"))
                    .optional(fields.optional_boolean("ispre"))
                    .optional(fields.optional_integer(self.id_field)?)
                    .optional(warning)
            }
            Stage::Instances => {
                let is_in_document = fields.optional_text("bk_obj_id").is_some();
                let model = if is_in_document || self.model.is_empty() {
                    fields.key("bk_obj_id", KEY_LIMIT)?
                } else {
                    &self.model
                };
                let id = fields.integer(self.id_field)?;
                if id < 0 {
                    return Err(RowError::Invalid(format!("{} {id} is negative", self.id_field)));
                }
                let tenant = fields.tenant(&self.tenant)?;
                let fixed = [(self.id_field, json!(id)), ("bk_supplier_account", json!(tenant))];
                let own_model =
                    (self.id_field == "bk_inst_id").then_some(("bk_obj_id", json!(model)));
                let own_name = name.as_ref().map(|name| (self.name_field, json!(name)));
                let fixed = fixed.into_iter().chain(own_model).chain(own_name);
                let stored = convert(document, model, fixed).map_err(warn).ok();
                let (json, hash) = stored.map(|StoredDocument { json, hash }| (json, hash)).unzip();
                row.value(tenant)
                    .value(model)
                    .value(id)
                    .optional(name)
                    .optional(json)
                    .optional(hash)
            }
            Stage::Links => row
                .value(fields.tenant(&self.tenant)?)
                .value(fields.association_id(self.id_field)?)
                .value(fields.key("bk_obj_asst_id", MODEL_ASSOCIATION_KEY_LIMIT)?)
                .value(fields.key("bk_obj_id", KEY_LIMIT)?)
                .value(fields.key("bk_asst_obj_id", KEY_LIMIT)?)
                .value(fields.integer("bk_inst_id")?)
                .value(fields.integer("bk_asst_inst_id")?),
        }))
    }
}

/// The mapping of a model association.
struct Mapping<'a> {
    stored: &'a str,
    /// The mapping in the document if it is another one, which callers are shown.
    exported: Option<&'a str>,
    warning: Option<String>,
}

/// Reads the fields of a document in any form that `mongoexport` writes.
struct Fields<'a>(&'a Document);

impl<'a> Fields<'a> {
    /// The value of a field. Null counts as absent.
    fn get(&self, field: &str) -> Option<&'a Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    fn required<T>(&self, field: &str, value: Option<T>, expected: &str) -> Result<T, RowError> {
        value.ok_or_else(|| {
            RowError::Unreadable(match self.get(field) {
                Some(value) => format!("{field} is {value}, not {expected}"),
                None => format!("{field} is missing"),
            })
        })
    }

    fn optional_text(&self, field: &str) -> Option<&'a str> {
        self.get(field).and_then(Value::as_str)
    }

    /// A valid key of at most [`KEY_LIMIT`] characters.
    fn optional_key(&self, field: &str) -> Option<&'a str> {
        self.optional_text(field).filter(|key| is_valid_key(key, KEY_LIMIT))
    }

    /// A time: `{"$date": "2026-01-31T18:00:00Z"}`, or with the milliseconds since 1970.
    fn optional_time(&self, field: &str) -> Option<OffsetDateTime> {
        let time = self.get(field)?.get("$date")?;
        let time = if let Some(text) = time.as_str() {
            OffsetDateTime::parse(text, &Rfc3339).ok()
        } else {
            at(integer(time)?)
        };
        time.filter(|time| time.year() > 0)
    }

    /// A name, or several addresses of a host, separated by commas.
    fn name(&self, field: &str) -> Option<Cow<'a, str>> {
        match self.get(field)? {
            Value::String(name) => Some(Cow::Borrowed(name)),
            Value::Array(names) => {
                let names = names.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
                Some(Cow::Owned(names.join(",")))
            }
            _ => None,
        }
    }

    fn optional_boolean(&self, field: &str) -> Option<bool> {
        self.get(field).and_then(Value::as_bool)
    }

    fn text(&self, field: &str) -> Result<&'a str, RowError> {
        self.required(field, self.optional_text(field), "a string")
    }

    /// A valid key of at most `limit` characters.
    fn key(&self, field: &str, limit: usize) -> Result<&'a str, RowError> {
        let key = self.text(field)?;
        if is_valid_key(key, limit) {
            return Ok(key);
        }
        let start = start(key);
        let problem = format!("is empty, longer than {limit} characters or contains NUL");
        Err(RowError::Invalid(format!("{field} {start:?} {problem}")))
    }

    /// The mapping. For BlueKing CMDB, anything but `1:1` and `1:n` is `n:n`.
    fn mapping(&self) -> Result<Mapping<'a>, RowError> {
        let (exported, described) = match self.get("mapping") {
            None => ("", "missing".to_owned()),
            Some(_) => match self.text("mapping")? {
                stored @ ("1:1" | "1:n" | "n:n") => {
                    return Ok(Mapping { stored, exported: None, warning: None });
                }
                other => (other, format!("{:?}", start(other))),
            },
        };
        let warning = format!("mapping is {described}, imported as n:n");
        Ok(Mapping { stored: "n:n", exported: Some(exported), warning: Some(warning) })
    }

    fn optional_integer(&self, field: &str) -> Result<Option<i64>, RowError> {
        self.get(field).map(|_| self.integer(field)).transpose()
    }

    fn integer(&self, field: &str) -> Result<i64, RowError> {
        self.required(field, self.get(field).and_then(integer), "an integer")
    }

    fn association_id(&self, field: &str) -> Result<i64, RowError> {
        let id = self.integer(field)?;
        if (0..=ASSOCIATION_ID_LIMIT).contains(&id) {
            return Ok(id);
        }
        Err(RowError::Invalid(format!("{field} {id} is not between 0 and {ASSOCIATION_ID_LIMIT}")))
    }

    /// The document's own tenant, or else that of its collection.
    fn tenant(&self, default: &str) -> Result<String, RowError> {
        const FIELD: &str = "bk_supplier_account";
        const TENANT_PROBLEM: &str =
            "is longer than 128 characters or contains a control character";
        let tenant = match self.get(FIELD) {
            None => Tenant::parse(default),
            Some(value) => match integer(value) {
                Some(number) => Tenant::parse(&number.to_string()),
                None => Tenant::parse(self.text(FIELD)?),
            },
        };
        let tenant = tenant.map(|tenant| tenant.as_str().to_owned());
        tenant.ok_or_else(|| RowError::Invalid(format!("{FIELD} {TENANT_PROBLEM}")))
    }
}

/// The start of a text, for a message.
fn start(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_time_is_read_in_every_form_of_mongoexport() {
        for form in [
            json!("2026-11-25T18:21:10.491Z"),
            json!({"$numberLong": "1795630870491"}),
            json!(1_795_630_870_491_i64),
        ] {
            let document = Document::from_iter([("t".to_owned(), json!({ "$date": form }))]);
            let time = Fields(&document).optional_time("t").map(|time| time.to_string());
            assert_eq!(time.as_deref(), Some("2026-11-25 18:21:10.491 +00:00:00"), "{form}");
        }
        for other in [json!({}), json!("2026-11-25T18:21:10Z"), json!({"$date": "yesterday"})] {
            let document = Document::from_iter([("t".to_owned(), other)]);
            assert_eq!(Fields(&document).optional_time("t"), None);
        }
    }

    #[test]
    fn the_name_of_a_collection_determines_its_content() {
        let instances = Collection::from_name("cc_ObjectBase_tenant_1_pub_bk_switch").unwrap();
        assert_eq!(instances.stage, Stage::Instances);
        assert_eq!([instances.model, instances.tenant], ["bk_switch", "tenant_1"]);
        let links = Collection::from_name("cc_InstAsst_0_pub_host").unwrap();
        assert_eq!((links.stage, links.tenant.as_str()), (Stage::Links, "0"));
        for unknown in ["cc_ObjectBase_0", "cc_ModuleHostConfig", "cc_objdes", ""] {
            assert_eq!(Collection::from_name(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn each_built_in_model_has_its_own_id_field() {
        let instances = FIXED_NAMES.iter().filter(|(_, stage, ..)| *stage == Stage::Instances);
        let id_fields: Vec<_> = instances.map(|(.., id_field, _)| *id_field).collect();
        assert_eq!(
            id_fields.join(" "),
            "bk_host_id bk_biz_id bk_set_id bk_module_id bk_process_id bk_cloud_id bk_biz_set_id \
             id bk_inst_id"
        );
    }
}
