//! The collections of an export, and how their documents become rows.

use serde_json::{Map, Value};

use crate::db::import::{Row, Stage};
use crate::domain::association::Mapping;
use crate::domain::keys::{MODEL_ASSOCIATION_KEY_LIMIT, MODEL_KEY_LIMIT, Tenant, is_valid_key};

/// A document as `mongoexport` wrote it.
pub(super) type Document = Map<String, Value>;

/// The highest association id of an import. The sequence continues above it.
const ASSOCIATION_ID_LIMIT: i64 = 1 << 62;

/// The content of a file, which its name determines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Collection {
    IdGenerator,
    Models,
    Kinds,
    ModelAssociations,
    /// Instances of a model, unless a document names another model.
    Instances {
        model: String,
        tenant: String,
        id_field: &'static str,
        name_field: &'static str,
    },
    Links {
        tenant: String,
    },
}

/// Why a document does not become a row.
#[derive(Debug)]
pub(super) enum RowError {
    /// A field is missing or has the wrong type. The import stops.
    Unreadable(String),
    /// A value is not allowed. The row is rejected and reported.
    Invalid(String),
}

/// The collections of built-in models: collection, model, field of the id, field of the name.
const BUILT_IN: [(&str, &str, &str, &str); 8] = [
    ("cc_HostBase", "host", "bk_host_id", "bk_host_name"),
    ("cc_ApplicationBase", "biz", "bk_biz_id", "bk_biz_name"),
    ("cc_SetBase", "set", "bk_set_id", "bk_set_name"),
    ("cc_ModuleBase", "module", "bk_module_id", "bk_module_name"),
    ("cc_Process", "process", "bk_process_id", "bk_process_name"),
    ("cc_PlatBase", "plat", "bk_cloud_id", "bk_cloud_name"),
    ("cc_BizSetBase", "bk_biz_set_obj", "bk_biz_set_id", "bk_biz_set_name"),
    ("cc_ProjectBase", "bk_project", "id", "bk_project_name"),
];

impl Collection {
    /// The collection of this name, or `None` if it is not imported.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        if let Some((_, model, id_field, name_field)) =
            BUILT_IN.iter().find(|(collection, ..)| *collection == name)
        {
            let (model, tenant) = ((*model).to_owned(), Tenant::SHARED.to_owned());
            return Some(Self::Instances { model, tenant, id_field, name_field });
        }
        let split = |prefix| {
            let (tenant, model) = name.strip_prefix(prefix)?.split_once("_pub_")?;
            Some((tenant.to_owned(), model.to_owned()))
        };
        if let Some((tenant, model)) = split("cc_ObjectBase_") {
            let (id_field, name_field) = ("bk_inst_id", "bk_inst_name");
            return Some(Self::Instances { model, tenant, id_field, name_field });
        }
        if let Some((tenant, _)) = split("cc_InstAsst_") {
            return Some(Self::Links { tenant });
        }
        match name {
            "cc_idgenerator" => Some(Self::IdGenerator),
            "cc_ObjDes" => Some(Self::Models),
            "cc_AsstDes" => Some(Self::Kinds),
            "cc_ObjAsst" => Some(Self::ModelAssociations),
            _ => None,
        }
    }

    /// The stage of its rows.
    pub(super) fn stage(&self) -> Stage {
        match self {
            Self::IdGenerator => Stage::AssignedIds,
            Self::Models => Stage::Models,
            Self::Kinds => Stage::Kinds,
            Self::ModelAssociations => Stage::ModelAssociations,
            Self::Instances { .. } => Stage::Instances,
            Self::Links { .. } => Stage::Links,
        }
    }

    /// The valid association id of a document whose row is rejected.
    pub(super) fn assigned_id(&self, document: &Document) -> Option<i64> {
        match self {
            Self::Links { .. } => Fields(document).association_id("id").ok(),
            _ => None,
        }
    }

    /// The row of a document, or `None` if the document is not imported.
    pub(super) fn row(&self, document: &Document) -> Result<Option<Row>, RowError> {
        let fields = Fields(document);
        let shared = Tenant::SHARED;
        let row = Row::default();
        Ok(Some(match self {
            Self::IdGenerator => {
                if fields.optional_text("_id") != Some("cc_InstAsst") {
                    return Ok(None);
                }
                row.integer(fields.association_id("SequenceID")?)
            }
            Self::Models => row
                .text(&fields.tenant(shared)?)
                .text(fields.key("bk_obj_id", MODEL_KEY_LIMIT)?)
                .optional_text(fields.optional_text("bk_obj_name"))
                .optional_integer(fields.optional_integer("id")?),
            Self::Kinds => row
                .text(fields.key("bk_asst_id", MODEL_KEY_LIMIT)?)
                .optional_text(fields.optional_text("bk_asst_name"))
                .optional_integer(fields.optional_integer("id")?),
            Self::ModelAssociations => {
                let mapping = fields.text("mapping")?;
                if Mapping::parse(mapping).is_none() {
                    let reason = format!("mapping is {mapping:?}, not 1:1, 1:n or n:n");
                    return Err(RowError::Invalid(reason));
                }
                row.text(&fields.tenant(shared)?)
                    .text(fields.key("bk_obj_asst_id", MODEL_ASSOCIATION_KEY_LIMIT)?)
                    .optional_text(fields.optional_text("bk_obj_asst_name"))
                    .text(fields.key("bk_obj_id", MODEL_KEY_LIMIT)?)
                    .text(fields.key("bk_asst_obj_id", MODEL_KEY_LIMIT)?)
                    .text(fields.key("bk_asst_id", MODEL_KEY_LIMIT)?)
                    .text(mapping)
                    .optional_integer(fields.optional_integer("id")?)
            }
            Self::Instances { model, tenant, id_field, name_field } => {
                let model = match fields.optional_text("bk_obj_id") {
                    Some(_) => fields.key("bk_obj_id", MODEL_KEY_LIMIT)?,
                    None => model,
                };
                let id = fields.integer(id_field)?;
                if id < 0 {
                    return Err(RowError::Invalid(format!("{id_field} {id} is negative")));
                }
                row.text(&fields.tenant(tenant)?)
                    .text(model)
                    .integer(id)
                    .optional_text(fields.optional_text(name_field))
            }
            Self::Links { tenant } => row
                .text(&fields.tenant(tenant)?)
                .integer(fields.association_id("id")?)
                .text(fields.key("bk_obj_asst_id", MODEL_ASSOCIATION_KEY_LIMIT)?)
                .text(fields.key("bk_obj_id", MODEL_KEY_LIMIT)?)
                .text(fields.key("bk_asst_obj_id", MODEL_KEY_LIMIT)?)
                .integer(fields.integer("bk_inst_id")?)
                .integer(fields.integer("bk_asst_inst_id")?),
        }))
    }
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

    fn text(&self, field: &str) -> Result<&'a str, RowError> {
        self.required(field, self.optional_text(field), "a string")
    }

    /// A valid key of at most `limit` characters.
    fn key(&self, field: &str, limit: usize) -> Result<&'a str, RowError> {
        let key = self.text(field)?;
        if is_valid_key(key, limit) {
            return Ok(key);
        }
        let start: String = key.chars().take(40).collect();
        let problem = format!("is empty, longer than {limit} characters or contains NUL");
        Err(RowError::Invalid(format!("{field} {start:?} {problem}")))
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
        let tenant = match self.get("bk_supplier_account") {
            Some(Value::String(tenant)) => tenant.clone(),
            Some(other) => {
                self.required("bk_supplier_account", integer(other), "a string")?.to_string()
            }
            None => default.to_owned(),
        };
        match Tenant::parse(&tenant) {
            Some(tenant) => Ok(tenant.as_str().to_owned()),
            None => {
                Err(RowError::Invalid("bk_supplier_account is too long or contains NUL".to_owned()))
            }
        }
    }
}

/// Reads an integer: `11`, `11.0`, `{"$numberLong":"11"}`, `{"$numberInt":"11"}` or
/// `{"$numberDouble":"11.0"}`.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| exact_integer(number.as_f64()?)),
        Value::Object(wrapper) if wrapper.len() == 1 => {
            let (kind, digits) = wrapper.iter().next()?;
            match (kind.as_str(), digits.as_str()?) {
                ("$numberLong" | "$numberInt", digits) => digits.parse().ok(),
                ("$numberDouble", digits) => exact_integer(digits.parse().ok()?),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Converts a number that is an integer of at most 53 bits, which `f64` represents exactly.
fn exact_integer(number: f64) -> Option<i64> {
    const LIMIT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "an integer of at most 53 bits")]
    (number.fract() == 0.0 && number.abs() <= LIMIT).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_integer_is_read_in_every_form_of_mongoexport() {
        for form in [
            json!(11),
            json!(11.0),
            json!({"$numberLong": "11"}),
            json!({"$numberInt": "11"}),
            json!({"$numberDouble": "11.0"}),
        ] {
            assert_eq!(integer(&form), Some(11), "{form}");
        }
        for other in [json!("11"), json!(11.5), json!({"$date": "11"}), json!(null), json!(1e300)] {
            assert_eq!(integer(&other), None, "{other}");
        }
        assert_eq!(
            integer(&json!({"$numberLong": "9007199254740993"})),
            Some(9_007_199_254_740_993)
        );
    }

    #[test]
    fn the_name_of_a_collection_determines_its_content() {
        let Some(Collection::Instances { model, tenant, .. }) =
            Collection::from_name("cc_ObjectBase_tenant_1_pub_bk_switch")
        else {
            panic!("not a collection of instances")
        };
        assert_eq!((model.as_str(), tenant.as_str()), ("bk_switch", "tenant_1"));
        assert_eq!(
            Collection::from_name("cc_InstAsst_0_pub_host"),
            Some(Collection::Links { tenant: "0".to_owned() })
        );
        for unknown in ["cc_ObjectBase", "cc_InstAsst", "cc_ModuleHostConfig", "cc_objdes", ""] {
            assert_eq!(Collection::from_name(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn each_built_in_model_has_its_own_id_field() {
        let ids: Vec<_> = BUILT_IN
            .iter()
            .filter_map(|(name, ..)| match Collection::from_name(name) {
                Some(Collection::Instances { id_field, .. }) => Some(id_field),
                _ => None,
            })
            .collect();
        assert_eq!(
            ids,
            [
                "bk_host_id",
                "bk_biz_id",
                "bk_set_id",
                "bk_module_id",
                "bk_process_id",
                "bk_cloud_id",
                "bk_biz_set_id",
                "id"
            ]
        );
    }
}
