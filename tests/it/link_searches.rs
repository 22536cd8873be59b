//! `search_instance_associations`, `count_instance_associations`, `find_instance_association`,
//! `find_biz_instance_association`: the links of a model that satisfy a condition.

use axum::body::Body;
use axum::http::Request;
use cmdb_associations::db::link_search::{
    FoundLink, Group, LinkColumn, LinkOrder, LinkSelection, Slice, SortKey, count_statement,
    list_statement,
};
use cmdb_associations::domain::condition::{Condition, Test};
use cmdb_associations::service::database::{Purpose, connect};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgPool};
use tower::ServiceExt;

use crate::app::{Reply, TestApp, server_database};
use crate::permissions::{grant, model, view};
use crate::query_plans::{assert_indexes, plan};

const SEARCH: &str = "/api/c/compapi/v2/cc/search_instance_associations/";
const COUNT: &str = "/api/c/compapi/v2/cc/count_instance_associations/";
const FIND: &str = "/api/c/compapi/v2/cc/find_instance_association/";

/// Links 1 to 4 go from switch 1 to hosts 1 to 4, under two model associations; link 5 from switch
/// 2 to switch 1, link 6 from switch 3 to itself, link 7 from host 1 to area 0.
async fn linked_app(pool: PgPool) -> TestApp {
    let app = TestApp::new(pool).await;
    for sql in [
        "insert into cmdb.instance (model_id, instance_id, name)
         select id, 0, 'default area' from cmdb.model where key = 'plat'",
        "insert into cmdb.instance_association (id, model_association_id, source_id, target_id)
         select link.id, association.id, source_id, target_id
         from (values (1, 'bk_switch_default_host', 1, 1), (2, 'bk_switch_connect_host', 1, 2),
                      (3, 'bk_switch_default_host', 1, 3), (4, 'bk_switch_connect_host', 1, 4),
                      (5, 'bk_switch_default_bk_switch', 2, 1),
                      (6, 'bk_switch_default_bk_switch', 3, 3), (7, 'host_belong_plat', 1, 0))
             link (id, key, source_id, target_id)
         join cmdb.model_association association using (key)",
    ] {
        sqlx::query(sql).execute(&app.pool).await.unwrap();
    }
    app
}

fn rules(rules: &Value) -> Value {
    json!({"condition": "AND", "rules": rules})
}

fn rule(field: &str, operator: &str, value: impl Into<Value>) -> Value {
    json!({"field": field, "operator": operator, "value": value.into()})
}

#[track_caller]
fn ids(reply: &Reply) -> Vec<i64> {
    let data = &reply.json["data"];
    let rows = data.as_array().or(data["info"].as_array()).expect(&reply.text);
    rows.iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

async fn search(app: &TestApp, model: &str, changes: Value) -> Reply {
    let mut body = json!({"bk_obj_id": model, "page": {"limit": 500}});
    body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    app.post_to(SEARCH, &[], body).await
}

async fn find(app: &TestApp, model: &str, condition: Value) -> Reply {
    app.post_to(FIND, &[], json!({"bk_obj_id": model, "condition": condition})).await
}

async fn count(app: &TestApp, model: &str, conditions: Value) -> i64 {
    let body = json!({"bk_obj_id": model, "conditions": conditions});
    let reply = app.post_to(COUNT, &[], body).await;
    reply.json["data"]["count"].as_i64().expect(&reply.text)
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_links_of_a_model_are_those_of_which_it_is_either_end(pool: PgPool) {
    let app = linked_app(pool).await;
    for (model, expected) in [
        ("bk_switch", &[1, 2, 3, 4, 5, 6][..]),
        ("host", &[1, 2, 3, 4, 7]),
        ("plat", &[7]),
        ("biz", &[]),
        ("unknown", &[]),
        ("BK_SWITCH", &[]),
    ] {
        assert_eq!(ids(&search(&app, model, json!({})).await), expected, "{model}");
        assert_eq!(ids(&find(&app, model, json!({})).await), expected, "{model}");
    }
    // Only those of which it is the source are counted.
    for (model, expected) in [("bk_switch", 6), ("host", 1), ("plat", 0), ("unknown", 0)] {
        assert_eq!(count(&app, model, Value::Null).await, expected, "{model}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn texts_of_a_condition_are_those_of_the_model_association(pool: PgPool) {
    let app = linked_app(pool).await;
    let default = "bk_switch_default_host";
    for (condition, expected) in [
        (json!({"bk_obj_asst_id": default}), &[1, 3][..]),
        (json!({"bk_obj_asst_id": default, "bk_asst_inst_id": 3}), &[3]),
        (json!({"bk_asst_id": "connect"}), &[2, 4]),
        (json!({"bk_asst_obj_id": {"$ne": "host"}}), &[5, 6]),
        (json!({"bk_asst_obj_id": {"$regex": "^H", "$options": "i"}}), &[1, 2, 3, 4]),
        // One part for each of two model associations, and one for all.
        (
            json!({"$or": [
                {"bk_obj_asst_id": default, "bk_asst_inst_id": 1},
                {"bk_asst_id": "connect", "id": {"$gt": 2}},
                {"bk_inst_id": 3},
            ]}),
            &[1, 4, 6],
        ),
        (json!({"$nor": [{"bk_inst_id": 1}, {"bk_asst_inst_id": 3}]}), &[5]),
        (json!({"bk_inst_id": {"$in": [1, 3]}, "bk_asst_inst_id": {"$gte": 3}}), &[3, 4, 6]),
        (json!({"id": {"$in": [6, 2, 7, 99]}}), &[2, 6]),
        (json!({"bk_inst_id": "1"}), &[]),
        (json!({"bk_supplier_account": "other"}), &[1, 2, 3, 4, 5, 6]),
    ] {
        assert_eq!(ids(&find(&app, "bk_switch", condition.clone()).await), expected, "{condition}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_search_returns_the_wanted_fields_of_one_page_in_the_wanted_order(pool: PgPool) {
    let app = linked_app(pool).await;
    let page = async |sort: &str, start: i64, limit: i64| {
        let page = json!({"sort": sort, "start": start, "limit": limit});
        ids(&search(&app, "bk_switch", json!({"page": page})).await)
    };
    assert_eq!(page("", 0, 2).await, [1, 2]);
    assert_eq!(page("id", 4, 500).await, [5, 6]);
    assert_eq!(page("-id", 1, 3).await, [5, 4, 3]);
    assert_eq!(page("bk_asst_inst_id,-id", 0, 4).await, [5, 1, 2, 6]);
    assert_eq!(page("-bk_inst_id", 0, 500).await, [6, 5, 1, 2, 3, 4]);
    assert_eq!(page("bk_obj_asst_id,-id", 0, 500).await, [4, 2, 6, 5, 3, 1]);
    assert_eq!(page("-bk_asst_obj_id,bk_asst_id", 0, 4).await, [2, 4, 1, 3]);
    assert_eq!(page("bk_supplier_account,nope", 0, 1).await, [1]);
    assert_eq!(page("id", 1_000, 2).await, [0; 0]);

    let fields = async |fields: Value| {
        let changes = json!({"fields": fields, "page": {"limit": 1, "sort": "-id"}});
        search(&app, "plat", changes).await.json["data"]["info"][0].clone()
    };
    // An id that is 0 is left out.
    assert_eq!(
        fields(json!(["bk_inst_id", "bk_asst_inst_id", "x"])).await,
        json!({"bk_inst_id": 1})
    );
    assert_eq!(fields(json!(["_id"])).await, json!({}));
    let all = json!({
        "id": 7, "bk_inst_id": 1, "bk_obj_id": "host", "bk_asst_obj_id": "plat",
        "bk_supplier_account": "0", "bk_obj_asst_id": "host_belong_plat", "bk_asst_id": "belong",
    });
    for names in [json!([]), Value::Null, json!([""])] {
        assert_eq!(fields(names).await, all);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_page_needs_a_limit_and_a_filter_its_form(pool: PgPool) {
    let app = linked_app(pool).await;
    let verified = |field: &str| format!("'{field}' data parameter verification does not pass");
    for (changes, code, message) in [
        (json!({"page": null}), 1_199_006, verified("page.limit")),
        (json!({"page": {"limit": 0}}), 1_199_006, verified("page.limit")),
        (json!({"page": {"limit": -1}}), 1_199_006, verified("page.limit")),
        (json!({"page": {"limit": 501}}), 1_199_006, verified("page.limit")),
        (json!({"page": {"limit": 1, "start": -1}}), 1_199_006, verified("page.start")),
        (
            json!({"page": {"limit": 1, "sort": "$x"}}),
            1_199_998,
            "Unknown or unrecognized error: page.sort: a field that begins with $".to_owned(),
        ),
        (
            json!({"page": {"limit": "1"}}),
            1_199_000,
            "Deserializing JSON data failed: page.limit: expected an integer, got a string"
                .to_owned(),
        ),
        (
            json!({"conditions": rules(&json!([rule("id", "between", 1)]))}),
            1_199_006,
            verified("conditions.rules[0].operator"),
        ),
    ] {
        search(&app, "bk_switch", changes).await.assert_refused(200, code, &message);
    }
    let missing = app.post_to(SEARCH, &[], json!({"page": {"limit": 1}})).await;
    missing.assert_refused(200, 1_306_406, "Parameters error, param bk_obj_id is required");
    let missing = app.post_to(FIND, &[], json!({"bk_obj_id": ""})).await;
    missing.assert_refused(200, 1_199_010, "'bk_obj_id' unassigned");
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_count_is_that_of_the_links_that_satisfy_the_filter(pool: PgPool) {
    let app = linked_app(pool).await;
    let connect = rule("bk_asst_id", "equal", "connect");
    assert_eq!(count(&app, "bk_switch", rules(&json!([connect]))).await, 2);
    let source = rule("bk_inst_id", "in", json!([1, 3]));
    assert_eq!(count(&app, "bk_switch", rules(&json!([source, connect]))).await, 2);
    assert_eq!(count(&app, "bk_switch", rules(&json!([source]))).await, 5);
    assert_eq!(count(&app, "bk_switch", rules(&json!([rule("id", "greater", 4)]))).await, 2);
    assert_eq!(count(&app, "bk_switch", rules(&json!([rule("bk_obj_id", "equal", "x")]))).await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn links_are_seen_by_their_own_tenant_only(pool: PgPool) {
    let app = linked_app(pool).await;
    for sql in [
        "insert into cmdb.tenant (key) values ('other')",
        "insert into cmdb.instance (model_id, tenant_id, instance_id)
         select model.id, tenant.id, 900 from cmdb.model, cmdb.tenant
         where model.key = 'bk_switch' and tenant.key = 'other'",
        "insert into cmdb.instance_association
             (id, model_association_id, tenant_id, source_id, target_id)
         select 20, association.id, tenant.id, 900, 7
         from cmdb.model_association association, cmdb.tenant
         where association.key = 'bk_switch_default_host' and tenant.key = 'other'",
    ] {
        sqlx::query(sql).execute(&app.pool).await.unwrap();
    }
    for (tenant, expected) in
        [("other", &[20][..]), ("0", &[1, 2, 3, 4, 5, 6]), ("third", &[]), ("superadmin", &[])]
    {
        let tenant = json!({"bk_supplier_account": tenant});
        assert_eq!(ids(&search(&app, "bk_switch", tenant.clone()).await), expected, "{tenant}");
        let body =
            json!({"bk_obj_id": "bk_switch", "bk_supplier_account": tenant["bk_supplier_account"]});
        let number = i64::try_from(expected.len()).unwrap();
        assert_eq!(app.post_to(COUNT, &[], body).await.json["data"]["count"], number, "{tenant}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_user_must_be_allowed_to_view_the_model(pool: PgPool) {
    let app = linked_app(pool).await;
    grant(&app, "viewer", &[view(model("host"))]).await;
    for (model, code) in [("host", 0), ("bk_switch", 9_900_403)] {
        for path in [SEARCH, COUNT, FIND] {
            let body = json!({"bk_obj_id": model, "page": {"limit": 1}, "bk_username": "viewer"});
            let reply = app.post_to(path, &[], body).await;
            assert_eq!(reply.json["code"], code, "{path} {}", reply.text);
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn at_the_cmdb_api_the_model_is_in_the_path(pool: PgPool) {
    let pool_of_app = pool.clone();
    linked_app(pool).await;
    let app = TestApp::build(pool_of_app, |setup| {
        setup.authenticator.trusted_peers = vec!["10.0.0.0/8".parse().unwrap()];
    });
    let page = json!({"page": {"limit": 2}, "bk_obj_id": "plat"});
    let path = "/api/v3/search/instance_associations/object/bk%5Fswitch/";
    assert_eq!(ids(&app.post_cmdb("admin", path, &page).await), [1, 2]);
    let path = "/api/v3/count/instance_associations/object/host";
    assert_eq!(app.post_cmdb("admin", path, &json!({})).await.json["data"], json!({"count": 1}));
    // A path that is not UTF-8 is unknown.
    let path = "/api/v3/count/instance_associations/object/%ff";
    assert_eq!(app.post_cmdb("admin", path, &json!({})).await.json["bk_error_code"], 1_306_404);

    let biz = |biz: &str| format!("/api/v3/find/instassociation/biz/{biz}");
    let body = json!({"bk_obj_id": "host", "condition": {"bk_asst_obj_id": "plat"}});
    assert_eq!(ids(&app.post_cmdb("admin", &biz("2"), &body).await), [7]);
    for (path, body, field) in
        [(biz("x"), body, "bk_biz_id"), (biz("2"), json!({"bk_obj_id": "plat"}), "bk_obj_id")]
    {
        let reply = app.post_cmdb("admin", &path, &body).await;
        assert_eq!(reply.json["bk_error_code"], 1_199_006);
        assert!(reply.json["bk_error_msg"].as_str().unwrap().contains(field));
    }
}

/// Adds links 1001, 1002, … from switch 1 to new hosts.
async fn link_many(app: &TestApp, count: i32) {
    for sql in [
        "insert into cmdb.instance (model_id, instance_id)
         select id, n from cmdb.model, generate_series(1001, 1000 + $1) n
         where key = 'host'",
        "insert into cmdb.instance_association (id, model_association_id, source_id, target_id)
         select number, id, 1, number
         from cmdb.model_association, generate_series(1001, 1000 + $1) number
         where key = 'bk_switch_default_host'",
    ] {
        sqlx::query(sql).bind(count).execute(&app.pool).await.unwrap();
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn all_links_are_sent_page_by_page(pool: PgPool) {
    let app = linked_app(pool).await;
    link_many(&app, 10_001).await;
    let expected: Vec<i64> = (1..=6).chain(1001..=11_001).collect();
    assert_eq!(ids(&find(&app, "bk_switch", json!({})).await), expected);
    let by_source = find(&app, "bk_switch", json!({"bk_inst_id": 1})).await;
    assert_eq!(ids(&by_source).len(), 4 + 10_001);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn streams_beyond_their_limit_are_refused_and_hold_no_permit(pool: PgPool) {
    let other = pool.clone();
    link_many(&TestApp::new(pool).await, 50_000).await;
    let app = TestApp::build(other, |setup| (setup.stream_permits, setup.permits) = (1, 1));
    let body = json!({
        "bk_obj_id": "bk_switch", "bk_app_code": "esb_test", "bk_app_secret": "xxx",
        "bk_username": "admin",
    });
    let request = Request::post(FIND).body(Body::from(body.to_string())).unwrap();
    let mut stream = app.router.clone().oneshot(request).await.unwrap().into_body();
    stream.frame().await.unwrap().unwrap();
    let second = find(&app, "bk_switch", json!({})).await;
    second.assert_refused(503, 1_306_201, "The server is overloaded, please try again later");
    // The permit is free: an answer of one page needs no stream.
    assert_eq!(ids(&find(&app, "bk_switch", json!({"id": 1001})).await), [1001]);
    drop(stream);
    let mut code = Value::Null;
    for _ in 0..100 {
        code = find(&app, "bk_switch", json!({})).await.json["code"].clone();
        if code == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(code, 0, "a stream whose client is gone ends");
}

fn group(condition: Condition<LinkColumn>) -> LinkSelection {
    let groups = vec![Group { associations: vec![4_005, 4_010, 4_015], condition }];
    LinkSelection { tenant_id: 0, groups }
}

fn is_in(column: LinkColumn, list: &[i64]) -> Condition<LinkColumn> {
    Condition::Test(column, Test::IntegerIn(list.to_vec()))
}

/// The shapes that the API guide documents.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn each_documented_shape_of_a_search_has_an_index(pool: PgPool) {
    let above = Condition::Test(LinkColumn::Id, Test::IntegerRange { min: 5, max: i64::MAX });
    let from = is_in(LinkColumn::Source, &[1, 2]);
    let to = is_in(LinkColumn::Target, &[3]);
    let (list, pkey) = ("instance_association_list_idx", "instance_association_pkey");
    let by_source = ["instance_association_pair_key", "instance_association_source_key"];
    let by_target = ["instance_association_target_idx", "instance_association_target_key"];
    let both = [by_source, by_target].concat();
    let id = LinkOrder::from([(SortKey::Column(LinkColumn::Id), false)]);
    let last = LinkOrder::from([(SortKey::Column(LinkColumn::Id), true)]);
    let slice = Slice { after: i64::MIN, skip: 10, limit: 500 };
    let next = Slice { after: 7, skip: 0, limit: 5_001 };
    let mut statements = Vec::new();
    for (condition, expected) in [
        (Condition::always(), vec![list]),
        (above.clone(), vec![list]),
        (is_in(LinkColumn::Id, &[4, 5]), vec![pkey]),
        (Condition::all([from.clone(), above]), by_source.to_vec()),
        (to.clone(), by_target.to_vec()),
        (Condition::all([from.clone(), Condition::not(to.clone())]), by_source.to_vec()),
        (Condition::any([from, to]), both),
    ] {
        let selection = group(condition);
        for (order, slice) in [(&LinkOrder::new(), next), (&id, slice), (&last, slice)] {
            let statement = list_statement(&selection, order, slice).sql().as_str().to_owned();
            let mut indexes = expected.clone();
            if expected == [list] && slice.skip > 0 {
                // Only the rows of the page are read, by their ids.
                indexes.push(pkey);
            }
            statements.push((statement, indexes));
        }
        let statement = count_statement(&selection).sql().as_str().to_owned();
        statements.push((statement, expected));
    }
    assert_indexes(&pool, &statements).await;
}

/// Each row is looked up in a hash table. In a generic plan, PostgreSQL compares it with each
/// element of an array instead.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn rows_are_not_compared_with_each_value_of_a_long_list(pool: PgPool) {
    let mut conn = pool.acquire().await.unwrap();
    let values: Vec<_> = (0..10_000).collect();
    let listed = is_in(LinkColumn::Target, &values);
    let slice = Slice { after: i64::MIN, skip: 0, limit: 500 };
    for condition in [
        listed.clone(),
        is_in(LinkColumn::Id, &values),
        Condition::not(listed.clone()),
        Condition::all([is_in(LinkColumn::Source, &[1]), listed]),
    ] {
        let selection = group(condition);
        for statement in
            [list_statement(&selection, &LinkOrder::new(), slice), count_statement(&selection)]
        {
            let plan = plan(&mut conn, statement.sql().as_str()).await;
            assert!(plan.iter().any(|line| line.contains("hashed SubPlan")), "{plan:#?}");
            let compares_all =
                |line: &String| line.starts_with("Filter:") && line.contains("ANY ($");
            assert!(!plan.iter().any(compares_all), "{plan:#?}");
        }
    }
}

/// Makes each link take 20 ms to read.
const SLOW_LINKS: &str = "
    alter table cmdb.instance_association rename to stored_link;
    create view cmdb.instance_association as
    select id, model_association_id, tenant_id, source_id, target_id
    from (
        select *, (select true from pg_sleep(0.02 + 0 * id)) as is_read
        from cmdb.stored_link offset 0
    ) slow_link
    where is_read";

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_search_without_an_index_that_takes_too_long_is_refused(pool: PgPool) {
    let app = linked_app(pool).await;
    link_many(&app, 1_000).await;
    sqlx::raw_sql(SLOW_LINKS).execute(&app.pool).await.unwrap();
    let reply = find(&app, "bk_switch", json!({"bk_asst_inst_id": {"$lt": 0}})).await;
    assert_eq!(reply.json["code"], 1_199_998);
    let message = reply.json["message"].as_str().unwrap();
    let expected = "Unknown or unrecognized error: condition too expensive: ";
    assert!(message.starts_with(expected), "{message}");
    // With an index it is the database that is too slow.
    let reply = find(&app, "bk_switch", json!({})).await;
    reply.assert_refused(503, 1_306_201, "Postgres is unavailable, please try again later");
}

/// How many rows of the links the transaction has read, and perhaps others before it.
const ROWS_READ: &str = "select seq_tup_read + idx_tup_fetch from pg_stat_xact_user_tables
                         where relid = 'cmdb.instance_association'::regclass";

/// The statistics are of a time when one of two model associations had 400 links, scattered among
/// those of the other. For so few, PostgreSQL prefers to read and sort them all.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_page_reads_few_links_whatever_the_statistics(pool: PgPool) {
    let database = server_database((*pool.connect_options()).clone());
    let mut conn = connect(&database, Purpose::Serve).await.unwrap();
    let insert = |from: i64, to: i64| {
        format!(
            "begin;
             set local session_replication_role = replica;
             insert into cmdb.instance_association (id, model_association_id, source_id, target_id)
             select number, case when number <= 50000 and number % 125 <> 0 then 4003 else 4007 end,
                 number, number
             from generate_series({from}, {to}) number;
             commit"
        )
    };
    let [earlier, later] = [insert(1, 50_000), insert(50_001, 100_000)];
    for sql in [earlier, "analyze cmdb.instance_association".to_owned(), later] {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await.unwrap();
    }
    for (associations, after, skip, most) in [
        (vec![4_003], 40_000, 0, 500),
        (vec![4_007], i64::MIN, 0, 500),
        (vec![4_003, 4_007], i64::MIN, 0, 1_000),
        // Those that are skipped are read, and of each page the rows.
        (vec![4_003, 4_007], i64::MIN, 10_000, 11_500),
    ] {
        let slice = Slice { after, skip, limit: 500 };
        let groups = vec![Group { associations, condition: Condition::always() }];
        let selection = LinkSelection { tenant_id: 0, groups };
        for descends in [false, true] {
            let order = LinkOrder::from([(SortKey::Column(LinkColumn::Id), descends)]);
            let mut statement = list_statement(&selection, &order, slice);
            let mut tx = conn.begin().await.unwrap();
            let before: i64 = sqlx::query_scalar(ROWS_READ).fetch_one(&mut *tx).await.unwrap();
            let found: Vec<FoundLink> =
                statement.build_query_as().persistent(false).fetch_all(&mut *tx).await.unwrap();
            assert_eq!(found.len(), 500);
            let after: i64 = sqlx::query_scalar(ROWS_READ).fetch_one(&mut *tx).await.unwrap();
            let read = after - before;
            assert!(read <= most, "{selection:?} {slice:?} {descends}: {read} rows read");
            tx.rollback().await.unwrap();
        }
    }
}
