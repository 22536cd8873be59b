//! The rows of the table: requests, and the bare statements that do the same.

use serde_json::{Value, json};

use super::data::{Data, Model};

/// A request, and the statement beside it.
pub(super) struct Row {
    pub(super) name: &'static str,
    /// The highest median duration of the request that is wanted, in milliseconds.
    pub(super) goal: Option<f64>,
    /// How often it is measured in a round.
    pub(super) repeats: i64,
    /// The request with a number.
    pub(super) request: fn(&Data, i64) -> Request,
    /// The statement with a number.
    pub(super) statement: fn(&Data, i64) -> Statement,
}

/// A request without credentials.
pub(super) struct Request {
    /// The endpoint.
    pub(super) name: &'static str,
    pub(super) body: Value,
}

/// A statement.
pub(super) enum Statement {
    /// Returns links.
    List(String, Vec<i64>),
    /// Returns a number.
    Count(String, Vec<i64>),
    /// Deletes links by their ids.
    Delete(Vec<i64>),
}

/// The rows that only read.
pub(super) const READS: [Row; 12] = [
    Row {
        name: "page 1 of 500, 1 model association",
        goal: Some(3.0),
        repeats: 50,
        request: |_, _| page(Model::Of1, 0, &json!([])),
        statement: |data, _| page_statement(data, Model::Of1, 0, 0),
    },
    Row {
        name: "page 1 of 500, 20 model associations",
        goal: Some(3.0),
        repeats: 50,
        request: |_, _| page(Model::Of20, 0, &json!([])),
        statement: |data, _| page_statement(data, Model::Of20, 0, 0),
    },
    Row {
        name: "page 1 of 500, 200 model associations",
        goal: None,
        repeats: 10,
        request: |_, _| page(Model::Host, 0, &json!([])),
        statement: |data, _| page_statement(data, Model::Host, 0, 0),
    },
    Row {
        name: "page 1,000 of 500, by `start`, 20 model associations",
        goal: Some(150.0),
        repeats: 5,
        request: |data, _| page(Model::Of20, late_start(data), &json!([])),
        statement: |data, _| page_statement(data, Model::Of20, late_start(data), 0),
    },
    Row {
        name: "page 1,000 of 500, by `id` greater than the last, 20 model associations",
        goal: None,
        repeats: 50,
        request: |data, _| page(Model::Of20, 0, &rule("id", "greater", id_before_late_page(data))),
        statement: |data, _| page_statement(data, Model::Of20, 0, id_before_late_page(data)),
    },
    Row {
        name: "count, 20 model associations",
        goal: Some(100.0),
        repeats: 5,
        request: |_, _| count(&json!([])),
        statement: |data, _| {
            let associations = list(data, Model::Of20);
            let sql = format!(
                "select count(*) from cmdb.instance_association
                 where model_association_id in ({associations}) and tenant_id = 0"
            );
            Statement::Count(sql, Vec::new())
        },
    },
    Row {
        name: "count of the links of a source",
        goal: None,
        repeats: 50,
        request: |data, n| count(&rule("bk_inst_id", "equal", source(data, n))),
        statement: |data, n| {
            let associations = list(data, Model::Of20);
            let sql = format!(
                "select count(*) from cmdb.instance_association_by_source
                 where model_association_id in ({associations}) and source_id = $1"
            );
            Statement::Count(sql, vec![source(data, n)])
        },
    },
    Row {
        name: "76 links of a source, 20 model associations, `find_instance_association`",
        goal: Some(2.0),
        repeats: 50,
        request: |data, n| find(Model::Of20, &json!({"bk_inst_id": source(data, n)})),
        statement: |data, n| instance_statement(data, Model::Of20, "source", source(data, n)),
    },
    Row {
        name: "76 links of an instance, 20 model associations, `search_related_inst_asso`",
        goal: Some(2.0),
        repeats: 50,
        request: |data, n| related(Model::Of20, source(data, n)),
        statement: |data, n| instance_statement(data, Model::Of20, "source", source(data, n)),
    },
    Row {
        name: "about 200 links of an instance, 200 model associations, `search_related_inst_asso`",
        goal: Some(2.0),
        repeats: 50,
        request: |data, n| related(Model::Host, pseudo_random(n, data.instances())),
        statement: |data, n| {
            instance_statement(data, Model::Host, "target", pseudo_random(n, data.instances()))
        },
    },
    Row {
        name: "all links of 10 model associations, streamed",
        goal: None,
        repeats: 1,
        request: |_, _| find(Model::Of10, &json!({})),
        statement: |data, _| links(data, Model::Of10, 0, 0, data.links_of(Model::Of10)),
    },
    Row {
        name: "a few links, by a condition that no index serves, 20 model associations",
        goal: None,
        repeats: 2,
        request: |data, _| {
            find(Model::Of20, &json!({"bk_asst_inst_id": {"$gt": data.instances() - 10}}))
        },
        statement: |data, _| {
            let associations = list(data, Model::Of20);
            let sql = format!(
                "select id, model_association_id, source_id, target_id
                 from cmdb.instance_association
                 where model_association_id in ({associations}) and tenant_id = 0
                     and target_id > $1
                 order by id"
            );
            Statement::List(sql, vec![data.instances() - 10])
        },
    },
];

/// The rows that delete links.
pub(super) const DELETIONS: [Row; 1] = [Row {
    name: "500 deletions by id",
    goal: Some(20.0),
    repeats: 20,
    request: |data, n| Request {
        name: "delete_related_inst_asso",
        body: json!({"bk_obj_id": Model::Of169.key(), "id": unused_ids(data, 2 * n)}),
    },
    statement: |data, n| Statement::Delete(unused_ids(data, 2 * n + 1)),
}];

/// How many links of the model with 20 model associations are before page 1,000: half of them.
fn late_start(data: &Data) -> i64 {
    data.links_of(Model::Of20) / 2 - 500
}

fn id_before_late_page(data: &Data) -> i64 {
    Model::Of20.link_id(late_start(data) - 1)
}

fn page(model: Model, start: i64, rules: &Value) -> Request {
    let mut body = json!({
        "bk_obj_id": model.key(), "page": {"start": start, "limit": 500, "sort": "id"},
    });
    add_rules(&mut body, rules);
    Request { name: "search_instance_associations", body }
}

fn count(rules: &Value) -> Request {
    let mut body = json!({"bk_obj_id": Model::Of20.key()});
    add_rules(&mut body, rules);
    Request { name: "count_instance_associations", body }
}

fn rule(field: &str, operator: &str, value: i64) -> Value {
    json!([{"field": field, "operator": operator, "value": value}])
}

fn add_rules(body: &mut Value, rules: &Value) {
    if !rules.as_array().unwrap().is_empty() {
        body["conditions"] = json!({"condition": "AND", "rules": rules});
    }
}

fn find(model: Model, condition: &Value) -> Request {
    let body = json!({"bk_obj_id": model.key(), "condition": condition});
    Request { name: "find_instance_association", body }
}

fn related(model: Model, instance: i64) -> Request {
    let fields = [
        "id",
        "bk_inst_id",
        "bk_obj_id",
        "bk_asst_inst_id",
        "bk_asst_obj_id",
        "bk_supplier_account",
        "bk_obj_asst_id",
        "bk_asst_id",
    ];
    let condition = json!({"bk_obj_id": model.key(), "bk_inst_id": instance});
    let body = json!({"condition": condition, "fields": fields});
    Request { name: "search_related_inst_asso", body }
}

/// The model associations of a model, for a statement.
fn list(data: &Data, model: Model) -> String {
    let associations = data.associations(model).iter().map(ToString::to_string);
    associations.collect::<Vec<_>>().join(", ")
}

/// The first links of a model, with one branch for each model association. PostgreSQL merges them
/// in the order of their ids.
fn links(data: &Data, model: Model, start: i64, after: i64, limit: i64) -> Statement {
    // Without parameters: the plan that is kept for a statement with parameters would not be one
    // for these numbers.
    let branch = |association: &i32| {
        format!(
            "(select id, model_association_id, source_id, target_id
             from cmdb.instance_association
             where model_association_id = {association} and tenant_id = 0 and id > {after}
             order by id limit {})",
            start + limit
        )
    };
    let branches: Vec<_> = data.associations(model).iter().map(branch).collect();
    let branches = branches.join(" union all ");
    let sql = format!("select * from ({branches}) link order by id offset {start} limit {limit}");
    Statement::List(sql, Vec::new())
}

fn page_statement(data: &Data, model: Model, start: i64, after: i64) -> Statement {
    links(data, model, start, after, 500)
}

fn instance_statement(data: &Data, model: Model, role: &str, instance: i64) -> Statement {
    let associations = list(data, model);
    let sql = format!(
        "select id, model_association_id, source_id, target_id
         from cmdb.instance_association_by_{role}
         where model_association_id in ({associations}) and {role}_id = $1
         order by id"
    );
    Statement::List(sql, vec![instance])
}

/// An instance that is the source of links in every model association of its model.
fn source(data: &Data, n: i64) -> i64 {
    pseudo_random(n, data.sources())
}

/// The ids of 500 links that are scattered over the table, others for each `n`.
fn unused_ids(data: &Data, n: i64) -> Vec<i64> {
    let links = data.links_of(Model::Of169);
    assert!((n + 1) * 500 <= links, "too few links");
    // 7919 is a prime number, so no link is named twice.
    let number = |position: i64| (n * 500 + position) * 7_919 % links;
    (0..500).map(|position| Model::Of169.link_id(number(position))).collect()
}

/// A number from 1 to `bound`.
fn pseudo_random(n: i64, bound: i64) -> i64 {
    1 + n * 7_919 % bound
}
