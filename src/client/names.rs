//! Names of instances: the search of the server finds their ids.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use moka::sync::Cache;
use reqwest::Client;
use serde_json::{Value, json};

use super::api::{Api, CallError, body};
use super::input::Cell;
use super::{ResolvedBatch, RowError};
use crate::domain::instance::{FixedFields, HOST};
use crate::domain::model::BUILT_IN_MODELS;

/// How many names are cached.
const CACHE_CAPACITY: u64 = 50_000;

/// The most instances that a search returns.
const PAGE_LIMIT: usize = 500;

/// How many instances have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameMatch {
    None,
    One(i64),
    Several,
}

impl NameMatch {
    fn and(self, id: i64) -> Self {
        match self {
            Self::None => Self::One(id),
            Self::One(_) | Self::Several => Self::Several,
        }
    }
}

/// Finds the ids of names, and caches them.
pub struct Resolver {
    models: [String; 2],
    cache: Cache<(String, String), NameMatch>,
}

impl Resolver {
    /// For sources and targets of these models.
    pub fn new(models: [String; 2]) -> Self {
        Self { models, cache: Cache::new(CACHE_CAPACITY) }
    }

    /// A batch with the ids of its rows.
    pub async fn resolve(
        &self, api: &Api, client: &Client, batch: u64, rows: Vec<Result<[Cell; 2], RowError>>,
        retry_timeout: Duration,
    ) -> Result<ResolvedBatch, CallError> {
        let mut found = HashMap::new();
        for (end, model) in self.models.iter().enumerate() {
            let cells = rows.iter().flatten().filter_map(|cells| cells.get(end));
            let names = cells.filter_map(|cell| match cell {
                Cell::Name(name) => Some(name.clone()),
                Cell::Id(_) => None,
            });
            let names: Vec<String> = names.collect();
            self.find(api, client, model, names, &mut found, retry_timeout).await?;
        }
        let mut resolved = ResolvedBatch { batch, ..ResolvedBatch::default() };
        let [source, target] = &self.models;
        for (row, cells) in rows.into_iter().enumerate() {
            let ids = cells.and_then(|[of_source, of_target]| {
                Ok([id_of(&found, source, of_source)?, id_of(&found, target, of_target)?])
            });
            match ids {
                Ok(ids) => drop(resolved.pairs.insert(row, ids)),
                Err(error) => drop(resolved.refused.insert(row, error)),
            }
        }
        Ok(resolved)
    }

    /// Finds what these names are the names of.
    async fn find(
        &self, api: &Api, client: &Client, model: &str, mut names: Vec<String>,
        found: &mut HashMap<(String, String), NameMatch>, retry_timeout: Duration,
    ) -> Result<(), CallError> {
        let key = |name: String| (model.to_owned(), name);
        names.sort_unstable();
        names.dedup();
        names.retain(|name| match self.cache.get(&key(name.clone())) {
            Some(cached) => {
                found.insert(key(name.clone()), cached);
                false
            }
            None => !found.contains_key(&key(name.clone())),
        });
        let mut searches = vec![names];
        while let Some(names) = searches.pop().filter(|names| !names.is_empty()) {
            let instances = search(api, client, model, &names, retry_timeout).await?;
            if instances.len() >= PAGE_LIMIT && names.len() > 1 {
                // There may be more on another page.
                let (first, second) = names.split_at(names.len() / 2);
                searches.extend([first.to_vec(), second.to_vec()]);
                continue;
            }
            let mut ids: BTreeMap<String, NameMatch> =
                names.into_iter().map(|name| (name, NameMatch::None)).collect();
            for (id, name) in instances {
                // The original finds a host by each of its addresses, and returns all of them.
                let addresses =
                    name.split(',').filter(|_| model == HOST && !ids.contains_key(&name));
                let names: Vec<_> = addresses.chain([name.as_str()]).collect();
                for name in names {
                    if let Some(known) = ids.get_mut(name) {
                        *known = known.and(id);
                    }
                }
            }
            for (name, known) in ids {
                self.cache.insert(key(name.clone()), known);
                found.insert(key(name), known);
            }
        }
        Ok(())
    }
}

/// The id of a cell, or why its row is not sent.
fn id_of(
    found: &HashMap<(String, String), NameMatch>, model: &str, cell: Cell,
) -> Result<i64, RowError> {
    let name = match cell {
        Cell::Id(id) => return Ok(id),
        Cell::Name(name) => name,
    };
    match found.get(&(model.to_owned(), name.clone())) {
        Some(NameMatch::One(id)) => Ok(*id),
        Some(NameMatch::Several) => {
            let text = format!("several instances of model {model} have the name {name}");
            Err(RowError::unsent("ambiguous_name", text))
        }
        Some(NameMatch::None) | None => {
            let text = format!("no instance of model {model} has the name {name}");
            Err(RowError::unsent("unknown_name", text))
        }
    }
}

/// Whether a search finds instances of a model by their names.
pub fn has_search(model: &str) -> bool {
    model == HOST || !BUILT_IN_MODELS.contains(&model)
}

/// The ids and names of instances that have one of these names, a page at most.
async fn search(
    api: &Api, client: &Client, model: &str, names: &[String], retry_timeout: Duration,
) -> Result<Vec<(i64, String)>, CallError> {
    let fields = FixedFields::of(model);
    let rule = json!({"field": fields.name, "operator": "in", "value": names});
    let filter = json!({"condition": "AND", "rules": [rule]});
    let mut body = body(json!({
        "fields": [fields.id, fields.name],
        "page": {"limit": PAGE_LIMIT},
        "read_from": "primary",
    }));
    // The search for instances refuses built-in models.
    let endpoint = if model == HOST {
        body.insert("host_property_filter".to_owned(), filter);
        "list_hosts_without_biz"
    } else {
        body.insert("bk_obj_id".to_owned(), model.into());
        body.insert("conditions".to_owned(), filter);
        "search_object_instances"
    };
    let data = api.call(client, endpoint, body, retry_timeout).await?;
    let instances = data.get("info").and_then(Value::as_array).cloned().unwrap_or_default();
    let known = instances.iter().filter_map(|instance| {
        let name = instance.get(fields.name)?.as_str()?;
        Some((instance.get(fields.id)?.as_i64()?, name.to_owned()))
    });
    Ok(known.collect())
}
