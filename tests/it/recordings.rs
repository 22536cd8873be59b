//! The exchanges recorded from BlueKing CMDB, in `tests/golden/`, and how the program's answers
//! deviate from them, in `tests/golden/deviations.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::fs;
use std::path::Path;

use cmdb_associations::http::Api;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

pub(crate) const FOLDER: &str = "tests/golden";

/// A line of a recording.
pub(crate) enum Step {
    Exchange(Exchange),
    Deletion(Deletion),
}

/// A deletion of an instance of `gd_server` in the database, behind the back of the CMDB.
#[derive(Deserialize)]
pub(crate) struct Deletion {
    db_step: DeletedRow,
}

#[derive(Deserialize)]
struct DeletedRow {
    collection: String,
    delete: BTreeMap<String, i64>,
}

impl Deletion {
    /// The id of the instance.
    pub(crate) fn server_id(&self) -> i64 {
        assert_eq!(self.db_step.collection, "cc_ObjectBase_0_pub_gd_server");
        self.db_step.delete["bk_inst_id"]
    }
}

/// A recorded request and its answer.
#[derive(Deserialize)]
pub(crate) struct Exchange {
    /// The line in its file, from 1.
    #[serde(skip)]
    pub(crate) line: usize,
    section: String,
    pub(crate) name: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    body: Option<Box<RawValue>>,
    status: u16,
    answer: Value,
}

impl Step {
    /// The steps of a file, in order.
    pub(crate) fn read(file: &str) -> Vec<Self> {
        let text = fs::read_to_string(Path::new(FOLDER).join(file)).unwrap();
        let step = |(line, text)| match serde_json::from_str(text) {
            Ok(deletion) => Self::Deletion(deletion),
            Err(_) => Self::Exchange(Exchange { line, ..serde_json::from_str(text).unwrap() }),
        };
        (1..).zip(text.lines()).map(step).collect()
    }
}

impl Exchange {
    /// The body as it was sent; empty if there was none.
    pub(crate) fn body(&self) -> String {
        let body = self.body.as_ref().map_or("", |body| body.get());
        self.raw_body().unwrap_or_else(|| body.to_owned())
    }

    /// Whether the body was recorded as a text.
    pub(crate) fn is_raw(&self) -> bool {
        self.raw_body().is_some()
    }

    fn raw_body(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Raw {
            #[serde(rename = "_raw")]
            text: String,
        }
        serde_json::from_str(self.body.as_ref()?.get()).ok().map(|Raw { text }| text)
    }

    /// Whether the request was sent to a path or with a method that no endpoint has.
    pub(crate) fn is_unrouted(&self) -> bool {
        self.section == "door" || self.answer.get("_raw").is_some()
    }

    pub(crate) fn answer(&self) -> Answer {
        Answer { status: self.status, body: self.answer.clone() }
    }

    /// The lists of the answer whose order neither the contract nor the request determines.
    fn unordered_lists(&self) -> &'static [&'static str] {
        let path = self.path.trim_start_matches("/api/v3/");
        let body: Value = serde_json::from_str(&self.body()).unwrap_or_default();
        match path.split('/').take(2).collect::<Vec<_>>().join("/").as_str() {
            // Section 4: without a sort.
            "search/instance_associations" if body["page"]["sort"].is_null() => &["/data/info"],
            // Section 7 sorts by id.
            _ if path == "find/instassociation/related" => &[],
            // Sections 6, 11 and 9, whose groups have no order, and the first of section 16.5.
            "find/instassociation" | "find/objectassociation" | "find/insttopo" | "find/object" => {
                &["/data"]
            }
            "find/associationtype" if body["page"]["sort"].is_null() => &["/data/info"],
            // The groups of section 16.5.
            "find/instassttopo" => &["/data/0/prev", "/data/0/next"],
            "find/topoassociationtype" => &["/data/associations"],
            _ => &[],
        }
    }
}

/// An answer in the form of the CMDB API.
#[derive(Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    fn is_refusal(&self) -> bool {
        self.body["result"] == false
    }

    /// Sorts some lists of the body.
    fn sort(&mut self, lists: &[&str]) {
        for list in lists {
            if let Some(Value::Array(elements)) = self.body.pointer_mut(list) {
                elements.sort_by_key(Value::to_string);
            }
        }
    }

    /// Sorts all lists of the body.
    fn sort_all(&mut self) {
        sort_all(&mut self.body);
    }
}

fn sort_all(value: &mut Value) {
    match value {
        Value::Array(elements) => {
            elements.iter_mut().for_each(sort_all);
            elements.sort_by_key(Value::to_string);
        }
        Value::Object(fields) => fields.values_mut().for_each(sort_all),
        _ => {}
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.body)
    }
}

/// Why an answer may deviate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reason {
    /// The message is ours.
    Text,
    /// A body of a wrong form is refused before the endpoint reads it.
    Body,
    /// A defect of BlueKing CMDB is corrected.
    #[serde(rename = "corrected defect")]
    CorrectedDefect,
    /// A list has our order.
    Order,
    /// The permission is checked.
    Permission,
    /// The tenant sees other rows.
    Tenant,
    /// The answer is that of the database that stood in for the original one.
    #[serde(rename = "stand-in")]
    StandIn,
    /// The rules of a model's attributes.
    #[serde(rename = "attribute rule")]
    AttributeRule,
    /// There is no such endpoint.
    #[serde(rename = "no endpoint")]
    NoEndpoint,
}

impl Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Body => "body",
            Self::CorrectedDefect => "corrected defect",
            Self::Order => "order",
            Self::Permission => "permission",
            Self::Tenant => "tenant",
            Self::StandIn => "stand-in",
            Self::AttributeRule => "attribute rule",
            Self::NoEndpoint => "no endpoint",
        })
    }
}

/// The exchanges of a file that deviate for one reason and in one way.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Deviation {
    /// The number with which the name of the file begins.
    file: String,
    /// Lines and ranges of lines, such as `1-4, 7`.
    lines: String,
    pub(crate) reason: Reason,
    /// The only API that deviates: `cmdb` or `gateway`.
    api: Option<String>,
    /// Our status, if it is another one.
    status: Option<u16>,
    /// The code of our refusal.
    code: Option<u32>,
    /// Our `data`, as JSON.
    data: Option<String>,
    /// What differs in our answer, by its JSON pointer.
    #[serde(default)]
    edits: BTreeMap<String, Value>,
    /// A body that we accept in place of the recorded one. Its answer is the recorded one.
    pub(crate) plain: Option<String>,
}

impl Deviation {
    /// Our answer: the recorded one, but for what the reason excuses.
    fn expected(&self, recorded: &Answer, actual: &Answer) -> Result<Answer, &'static str> {
        let message = &actual.body["bk_error_msg"];
        if message.as_str().is_none_or(str::is_empty) {
            return Err("the answer has no message");
        }
        let mut expected = recorded.clone();
        expected.status = self.status.unwrap_or(recorded.status);
        match (self.reason, self.code, &self.data) {
            (Reason::Text, None, None) if recorded.is_refusal() => {
                expected.body["bk_error_msg"] = message.clone();
            }
            (Reason::Order, None, None) => expected.sort_all(),
            (Reason::Text | Reason::Order, ..) => return Err("the reason excuses no such answer"),
            (Reason::Body, ..) if !recorded.is_refusal() && self.plain.is_none() => {
                return Err("the recorded answer is no refusal");
            }
            (_, Some(code), None) => {
                let permission = match self.reason {
                    Reason::Permission => actual.body["permission"].clone(),
                    _ => Value::Null,
                };
                expected.body = json!({
                    "result": false, "bk_error_code": code, "bk_error_msg": message,
                    "permission": permission, "data": null,
                });
            }
            (_, None, Some(data)) => {
                expected.body = json!({
                    "result": true, "bk_error_code": 0, "bk_error_msg": "success",
                    "permission": null, "data": serde_json::from_str::<Value>(data).unwrap(),
                });
            }
            (_, None, None) if !self.edits.is_empty() => {
                for (pointer, value) in &self.edits {
                    *expected.body.pointer_mut(pointer).ok_or("no such place")? = value.clone();
                }
            }
            _ => return Err("the entry states neither code nor data nor edits"),
        }
        Ok(expected)
    }
}

/// Replaces known times, which are those of the recording.
fn mask_times(value: &mut Value) {
    match value {
        Value::Array(elements) => elements.iter_mut().for_each(mask_times),
        Value::Object(fields) => {
            for (name, field) in fields {
                let names = ["create_time", "last_time", "bk_created_at", "bk_updated_at"];
                let is_time = names.contains(&name.as_str());
                match field {
                    Value::String(time) if is_time && time.starts_with("20") => {
                        *field = json!("a time");
                    }
                    other => mask_times(other),
                }
            }
        }
        _ => {}
    }
}

/// Compares an answer with the recorded one, of which a deviation is excused.
pub(crate) fn compare(
    exchange: &Exchange, actual: &Answer, deviation: Option<&Deviation>,
) -> Result<(), String> {
    let lists = exchange.unordered_lists();
    let sorted = |mut answer: Answer| {
        mask_times(&mut answer.body);
        answer.sort(lists);
        answer
    };
    let recorded = exchange.answer();
    let is_equal = sorted(actual.clone()) == sorted(recorded.clone());
    let Some(deviation) = deviation else {
        let difference = || format!("\n  recorded {recorded}\n  answered {actual}");
        return if is_equal { Ok(()) } else { Err(difference()) };
    };
    if is_equal {
        return Err("listed as a deviation, and equal".to_owned());
    }
    let expected = deviation.expected(&recorded, actual).map_err(|problem| {
        format!("{}: {problem}\n  recorded {recorded}\n  answered {actual}", deviation.reason)
    })?;
    let mut compared = actual.clone();
    if deviation.reason == Reason::Order {
        compared.sort_all();
    }
    if sorted(compared) == sorted(expected.clone()) {
        return Ok(());
    }
    Err(format!("{}\n  expected {expected}\n  answered {actual}", deviation.reason))
}

/// The deviations at one API, by file and line.
pub(crate) struct Deviations(BTreeMap<(String, usize), Deviation>);

impl Deviations {
    pub(crate) fn at(api: Api) -> Self {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Document {
            deviation: Vec<toml::Value>,
        }
        let text = fs::read_to_string(Path::new(FOLDER).join("deviations.toml")).unwrap();
        let mut deviations = BTreeMap::new();
        for entry in toml::from_str::<Document>(&text).unwrap().deviation {
            let read = || entry.clone().try_into::<Deviation>().unwrap();
            let Deviation { file, lines, api: only, .. } = read();
            let is_here = match only.as_deref() {
                None => true,
                Some("cmdb") => api == Api::Cmdb,
                Some("gateway") => api == Api::Gateway,
                Some(other) => panic!("{other} is no API"),
            };
            for line in numbers(&lines).filter(|_| is_here) {
                let previous = deviations.insert((file.clone(), line), read());
                assert!(previous.is_none(), "{file}:{line} is listed twice");
            }
        }
        Self(deviations)
    }

    /// Takes the deviation of an exchange out of the list.
    pub(crate) fn take(&mut self, file: &str, line: usize) -> Option<Deviation> {
        self.0.remove(&(file.to_owned(), line))
    }

    /// Keeps the deviations of one file.
    pub(crate) fn only(&mut self, file: &str) {
        self.0.retain(|(number, _), _| file.starts_with(&format!("{number}_")));
    }

    /// Drops the deviations of one file.
    pub(crate) fn without(&mut self, file: &str) {
        self.0.retain(|(number, _), _| !file.starts_with(&format!("{number}_")));
    }

    /// The exchanges whose deviations were not taken.
    pub(crate) fn remaining(&self) -> BTreeSet<String> {
        self.0.keys().map(|(file, line)| format!("{file}:{line}")).collect()
    }
}

/// The numbers of a list such as `1-4, 7`.
pub(crate) fn numbers(list: &str) -> impl Iterator<Item = usize> {
    list.split(',').flat_map(|range| {
        let (start, end) = range.split_once('-').unwrap_or((range, range));
        let [start, end] = [start, end].map(|number| number.trim().parse().unwrap());
        start..=end
    })
}
