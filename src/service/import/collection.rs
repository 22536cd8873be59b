//! Which collections an export has, and what a document of each says.

use serde_json::{Map, Value};

use crate::db::import::{Row, Stage};
use crate::domain::association::Mapping;
use crate::domain::keys::{MODEL_ASSOCIATION_KEY_LIMIT, MODEL_KEY_LIMIT, Tenant, is_valid_key};

/// A document as `mongoexport` wrote it.
pub(super) type Document = Map<String, Value>;

/// The highest association id that leaves the sequence room to go on.
const ASSOCIATION_ID_LIMIT: i64 = 1 << 62;

/// What a file holds, as its name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Collection {
    IdGenerator,
    Models,
    Kinds,
    ModelAssociations,
    /// Instances of a model, unless a document names another.
    Instances {
        model: String,
        account: String,
        id: &'static str,
        name: &'static str,
    },
    Links {
        account: String,
    },
}

/// Why a document does not become a row.
#[derive(Debug)]
pub(super) enum Bad {
    /// It is not what its collection holds. That stops the import.
    Unreadable(String),
    /// It cannot stand. It is left out and reported.
    Unfit(String),
}

/// The collections that hold one model's instances: the model, and the fields of its id and its name.
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
    /// What the collection of this name holds; none if it means nothing to us.
    pub(super) fn named(name: &str) -> Option<Self> {
        if let Some((_, model, id, name)) =
            BUILT_IN.iter().find(|(collection, ..)| *collection == name)
        {
            let account = Tenant::SHARED.to_owned();
            return Some(Self::Instances { model: (*model).to_owned(), account, id, name });
        }
        let sharded = |prefix| {
            let (account, model) = name.strip_prefix(prefix)?.split_once("_pub_")?;
            Some((account.to_owned(), model.to_owned()))
        };
        if let Some((account, model)) = sharded("cc_ObjectBase_") {
            return Some(Self::Instances {
                model,
                account,
                id: "bk_inst_id",
                name: "bk_inst_name",
            });
        }
        if let Some((account, _)) = sharded("cc_InstAsst_") {
            return Some(Self::Links { account });
        }
        match name {
            "cc_idgenerator" => Some(Self::IdGenerator),
            "cc_ObjDes" => Some(Self::Models),
            "cc_AsstDes" => Some(Self::Kinds),
            "cc_ObjAsst" => Some(Self::ModelAssociations),
            _ => None,
        }
    }

    /// Where its rows are gathered.
    pub(super) fn stage(&self) -> Stage {
        match self {
            Self::IdGenerator => Stage::HighestIds,
            Self::Models => Stage::Models,
            Self::Kinds => Stage::Kinds,
            Self::ModelAssociations => Stage::ModelAssociations,
            Self::Instances { .. } => Stage::Instances,
            Self::Links { .. } => Stage::Links,
        }
    }

    /// The association id that a document gives away, also if it makes no row.
    pub(super) fn given_id(&self, document: &Document) -> Option<i64> {
        match self {
            Self::Links { .. } => Fields(document).association_id("id").ok(),
            _ => None,
        }
    }

    /// The row that a document makes; none if it means nothing to us.
    pub(super) fn row(&self, document: &Document) -> Result<Option<Row>, Bad> {
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
                .text(&fields.account(shared)?)
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
                    return Err(Bad::Unfit(format!(
                        "its mapping is {mapping:?}, not 1:1, 1:n or n:n"
                    )));
                }
                row.text(&fields.account(shared)?)
                    .text(fields.key("bk_obj_asst_id", MODEL_ASSOCIATION_KEY_LIMIT)?)
                    .optional_text(fields.optional_text("bk_obj_asst_name"))
                    .text(fields.key("bk_obj_id", MODEL_KEY_LIMIT)?)
                    .text(fields.key("bk_asst_obj_id", MODEL_KEY_LIMIT)?)
                    .text(fields.key("bk_asst_id", MODEL_KEY_LIMIT)?)
                    .text(mapping)
                    .optional_integer(fields.optional_integer("id")?)
            }
            Self::Instances { model, account, id, name } => {
                let model = match fields.optional_text("bk_obj_id") {
                    Some(_) => fields.key("bk_obj_id", MODEL_KEY_LIMIT)?,
                    None => model,
                };
                let id = fields.integer(id)?;
                if id < 0 {
                    return Err(Bad::Unfit(format!("its id {id} is negative")));
                }
                row.text(&fields.account(account)?)
                    .text(model)
                    .integer(id)
                    .optional_text(fields.optional_text(name))
            }
            Self::Links { account } => row
                .text(&fields.account(account)?)
                .integer(fields.association_id("id")?)
                .text(fields.key("bk_obj_asst_id", MODEL_ASSOCIATION_KEY_LIMIT)?)
                .text(fields.key("bk_obj_id", MODEL_KEY_LIMIT)?)
                .text(fields.key("bk_asst_obj_id", MODEL_KEY_LIMIT)?)
                .integer(fields.integer("bk_inst_id")?)
                .integer(fields.integer("bk_asst_inst_id")?),
        }))
    }
}

/// Reads fields of a document as leniently as exports are written.
struct Fields<'a>(&'a Document);

impl<'a> Fields<'a> {
    /// Null counts as absent.
    fn get(&self, field: &str) -> Option<&'a Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    fn required<T>(&self, field: &str, value: Option<T>, wanted: &str) -> Result<T, Bad> {
        value.ok_or_else(|| {
            Bad::Unreadable(match self.get(field) {
                Some(value) => format!("{field} is {value}, not {wanted}"),
                None => format!("{field} is missing"),
            })
        })
    }

    fn optional_text(&self, field: &str) -> Option<&'a str> {
        self.get(field).and_then(Value::as_str)
    }

    fn text(&self, field: &str) -> Result<&'a str, Bad> {
        self.required(field, self.optional_text(field), "a text")
    }

    /// A text that can name something.
    fn key(&self, field: &str, limit: usize) -> Result<&'a str, Bad> {
        let key = self.text(field)?;
        if is_valid_key(key, limit) {
            return Ok(key);
        }
        let start: String = key.chars().take(40).collect();
        let problem = format!("is empty, longer than {limit} characters or contains NUL");
        Err(Bad::Unfit(format!("{field} {start:?} {problem}")))
    }

    fn optional_integer(&self, field: &str) -> Result<Option<i64>, Bad> {
        self.get(field).map(|_| self.integer(field)).transpose()
    }

    fn integer(&self, field: &str) -> Result<i64, Bad> {
        self.required(field, self.get(field).and_then(integer), "an integer")
    }

    fn association_id(&self, field: &str) -> Result<i64, Bad> {
        let id = self.integer(field)?;
        if (0..=ASSOCIATION_ID_LIMIT).contains(&id) {
            return Ok(id);
        }
        Err(Bad::Unfit(format!("{field} {id} is not between 0 and {ASSOCIATION_ID_LIMIT}")))
    }

    /// The document's own account, else the one that its collection is named after.
    fn account(&self, default: &str) -> Result<String, Bad> {
        let account = match self.get("bk_supplier_account") {
            Some(Value::String(account)) => account.clone(),
            Some(other) => {
                self.required("bk_supplier_account", integer(other), "a text")?.to_string()
            }
            None => default.to_owned(),
        };
        match Tenant::parse(&account) {
            Some(account) => Ok(account.as_str().to_owned()),
            None => Err(Bad::Unfit("bk_supplier_account is too long or contains NUL".to_owned())),
        }
    }
}

/// `11`, `11.0`, `{"$numberLong":"11"}`, `{"$numberInt":"11"}` and `{"$numberDouble":"11.0"}` are 11.
fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| whole(number.as_f64()?)),
        Value::Object(wrapper) if wrapper.len() == 1 => {
            let (kind, digits) = wrapper.iter().next()?;
            match (kind.as_str(), digits.as_str()?) {
                ("$numberLong" | "$numberInt", digits) => digits.parse().ok(),
                ("$numberDouble", digits) => whole(digits.parse().ok()?),
                _ => None,
            }
        }
        _ => None,
    }
}

/// A floating-point number that is an integer, within what such numbers count exactly.
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 53 bits")]
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_integer_may_be_written_in_any_of_the_export_forms() {
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
    fn a_collection_is_known_by_its_name() {
        let Some(Collection::Instances { model, account, .. }) =
            Collection::named("cc_ObjectBase_tenant_1_pub_bk_switch")
        else {
            panic!("not a collection of instances")
        };
        assert_eq!((model.as_str(), account.as_str()), ("bk_switch", "tenant_1"));
        assert_eq!(
            Collection::named("cc_InstAsst_0_pub_host"),
            Some(Collection::Links { account: "0".to_owned() })
        );
        for unknown in ["cc_ObjectBase", "cc_InstAsst", "cc_ModuleHostConfig", "cc_objdes", ""] {
            assert_eq!(Collection::named(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn built_in_models_have_id_fields_of_their_own() {
        let ids: Vec<_> = BUILT_IN
            .iter()
            .filter_map(|(name, ..)| match Collection::named(name) {
                Some(Collection::Instances { id, .. }) => Some(id),
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
