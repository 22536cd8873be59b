//! Permissions: which instances a user may edit, and which models a user may view.

use axum::http::Request;
use cmdb_associations::domain::permission::{Authorization, GrantAction, Scope};
use cmdb_associations::service;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{PATH, Reply, TestApp, batch};
use crate::binary::Program;
use crate::constraints::wait_until_blocked;

async fn as_user(app: &TestApp, user: &str, body: &Value, language: &str) -> Reply {
    let credentials =
        json!({"bk_app_code": "esb_test", "bk_app_secret": "xxx", "bk_username": user});
    let request = Request::post(PATH)
        .header("x-bkapi-authorization", credentials.to_string())
        .header("blueking-language", language);
    app.send(request.body(body.to_string().into()).unwrap()).await
}

pub(crate) async fn grant(app: &TestApp, user: &str, scopes: &[Scope]) {
    let mut conn = app.pool.acquire().await.unwrap();
    service::permission::add(&mut conn, user, scopes).await.unwrap();
}

pub(crate) fn model(key: &str) -> Scope {
    Scope { model: Some(key.to_owned()), ..Scope::default() }
}

pub(crate) fn instance(key: &str, id: i64) -> Scope {
    Scope { instance: Some(id), ..model(key) }
}

pub(crate) fn view(scope: Scope) -> Scope {
    Scope { action: GrantAction::View, ..scope }
}

/// The instances that a refusal lists, by action.
pub(crate) fn missing(reply: &Reply) -> Vec<(String, Vec<String>)> {
    assert_eq!(reply.json["code"], 9_900_403, "{}", reply.text);
    let id = |path: &Value| {
        assert_eq!(path.as_array().unwrap().len(), 1);
        path[0]["id"].as_str().unwrap().to_owned()
    };
    let action = |action: &Value| {
        let resources = action["related_resource_types"].as_array().unwrap();
        assert_eq!(resources.len(), 1);
        let ids = resources[0]["instances"].as_array().unwrap().iter().map(id).collect();
        (action["id"].as_str().unwrap().to_owned(), ids)
    };
    let permission = &reply.json["permission"];
    permission["actions"].as_array().unwrap().iter().map(action).collect()
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_refusal_lists_the_missing_permissions_in_the_form_of_the_original(pool: PgPool) {
    let app = TestApp::new(pool).await;
    sqlx::query("update cmdb.model set export_number = 77 where key = 'bk_switch'")
        .execute(&app.pool)
        .await
        .unwrap();
    let body = batch("bk_switch_connect_host", &[(11, 21)]);
    for (language, message) in
        [("en", "Do not have access permission."), ("zh-cn", "没有操作的权限")]
    {
        let reply = as_user(&app, "nobody", &body, language).await;
        let switch = r#"{"id":"edit_comobj_77","name":"交换机实例编辑","related_resource_types":[{"system_id":"bk_cmdb","system_name":"配置平台","type":"comobj_77","type_name":"交换机","instances":[[{"type":"comobj_77","type_name":"交换机","id":"11","name":"bk_switch-11"}]]}]}"#;
        let host = r#"{"id":"edit_biz_host","name":"业务主机编辑","related_resource_types":[{"system_id":"bk_cmdb","system_name":"配置平台","type":"host","type_name":"主机","instances":[[{"type":"host","type_name":"主机","id":"21","name":"host-21"}]]}]}"#;
        assert_eq!(
            reply.body(),
            format!(
                r#"{{"result":false,"code":9900403,"message":"{message}","permission":{{"system_id":"bk_cmdb","system_name":"配置平台","actions":[{switch},{host}]}},"request_id":"<id>","data":null}}"#
            )
        );
        assert_eq!(reply.status, 200);
    }
    assert_eq!(app.count("select count(*) from cmdb.instance_association").await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_batch_is_refused_as_a_whole_when_one_instance_may_not_be_edited(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let all_except = |key: &str, missing: i64| -> Vec<_> {
        (1..=200).filter(|id| *id != missing).map(|id| instance(key, id)).collect()
    };
    let details: Vec<_> = (1..=200).map(|n| (n, n)).collect();
    let body = batch("bk_switch_connect_host", &details);
    for (user, id) in [("first", 1), ("middle", 100), ("last", 200)] {
        grant(&app, user, &[model("bk_switch")]).await;
        grant(&app, user, &all_except("host", id)).await;
        let reply = as_user(&app, user, &body, "en").await;
        assert_eq!(missing(&reply), [("edit_biz_host".to_owned(), vec![id.to_string()])], "{user}");
        grant(&app, user, &[instance("host", id)]).await;
    }
    assert_eq!(app.count("select count(*) from cmdb.instance_association").await, 0);
    assert_eq!(as_user(&app, "last", &body, "en").await.ids().len(), 200);
}

/// The original checks only the last detail.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn every_detail_is_checked_when_a_model_is_associated_with_itself(pool: PgPool) {
    let app = TestApp::new(pool).await;
    grant(&app, "user", &[instance("bk_switch", 3), instance("bk_switch", 4)]).await;
    let body = batch("bk_switch_default_bk_switch", &[(2, 1), (1, 3), (3, 4)]);
    let reply = as_user(&app, "user", &body, "en").await;
    let id = app.count("select number from cmdb.model where key = 'bk_switch'").await;
    let action = format!("edit_comobj_{id}");
    assert_eq!(missing(&reply), [(action, vec!["1".to_owned(), "2".to_owned()])]);
    grant(&app, "user", &[instance("bk_switch", 1), instance("bk_switch", 2)]).await;
    assert_eq!(as_user(&app, "user", &body, "en").await.ids().len(), 3);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_missing_instance_needs_no_permission(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut body = batch("bk_switch_connect_host", &[(999, 998), (997, 1)]);
    grant(&app, "user", &[instance("host", 1)]).await;
    let source = "Association instance does not exist";
    let reply = as_user(&app, "user", &body, "en").await;
    assert_eq!(reply.maps(), (vec![], json!({"0": source, "1": source})));
    body["details"][0] = json!({"bk_inst_id": null, "bk_asst_inst_id": 2});
    let reply = as_user(&app, "user", &body, "en").await;
    assert_eq!(missing(&reply), [("edit_biz_host".to_owned(), vec!["2".to_owned()])]);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn permission_is_checked_after_the_model_association(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let mut body = batch("bk_switch_connect_host", &[(1, 1)]);
    body["bk_obj_asst_id"] = json!("bk_switch_belong_host");
    let reply = as_user(&app, "nobody", &body, "en").await;
    reply.assert_refused(200, 1_101_046, "object association does not exist.");
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn every_user_may_edit_everything_when_authorization_is_off(pool: PgPool) {
    let app = TestApp::with(pool, |setup| setup.authorization = Authorization::Off).await;
    let body = batch("bk_switch_connect_host", &[(1, 1)]);
    assert_eq!(as_user(&app, "nobody", &body, "en").await.ids().len(), 1);
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_grant_applies_as_soon_as_it_is_added_or_removed(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let program = Program::on(&app.pool);
    let run = |args: &str| program.run(&args.split(' ').collect::<Vec<_>>());
    let allowed = async |n: i64| {
        let reply = as_user(&app, "user", &batch("bk_switch_default_host", &[(n, n)]), "en").await;
        reply.json["code"] == 0
    };
    assert!(!allowed(1).await);
    for (scope, n) in
        [("--all", 1), ("--model bk_switch", 2), ("--model bk_switch --instance 3 --instance 4", 3)]
    {
        if n > 1 {
            assert_eq!(run("grant add --user user --model host").status, 0);
        }
        assert_eq!(run(&format!("grant add --user user {scope}")).status, 0);
        assert_eq!(run(&format!("grant add --user user {scope}")).status, 0, "a second time");
        assert!(allowed(n).await, "{scope}");
        assert_eq!(run(&format!("grant remove --user user {scope}")).status, 0);
        assert!(!allowed(n + 10).await, "{scope}");
        let again = run(&format!("grant remove --user user {scope}"));
        assert_eq!((again.status, again.stderr.as_str()), (1, "user has no such grant\n"));
    }
    run("grant add --user user --model bk_switch --instance 7");
    let listed = run("grant list --user user").stdout;
    assert_eq!(listed, "user\tbk_switch\t7\tedit\nuser\thost\t*\tedit\n");
    assert_eq!(run("grant list").stdout, format!("admin\t*\t*\tedit\n{listed}"));
    let unknown = run("grant add --user user --model nonsense");
    assert_eq!(unknown.status, 2);
    assert!(unknown.stderr.contains("there is no such model"), "{}", unknown.stderr);
    for wrong in [
        "grant add --user user",
        "grant add --user user --all --model host",
        "grant add --user user --instance 7",
        "grant add --user user --view",
        "grant add --user user --view --model host --instance 7",
        "grant add --all",
    ] {
        assert_eq!(run(wrong).status, 2, "{wrong}");
    }
}

/// An import commits the instance between the authorization and the look-up of the stored state,
/// which reads the cache version, too.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn an_instance_that_appears_during_a_request_needs_permission(pool: PgPool) {
    let app = TestApp::new(pool.clone()).await;
    grant(&app, "user", &[instance("bk_switch", 1), instance("host", 1)]).await;
    as_user(&app, "user", &batch("bk_switch_default_host", &[(1, 999)]), "en").await;
    let mut importing = pool.begin().await.unwrap();
    for sql in [
        "lock table cmdb.cache_version in access exclusive mode",
        "insert into cmdb.instance (model_id, instance_id) select id, 5001 from cmdb.model where key = 'host'",
    ] {
        sqlx::query(sql).execute(&mut *importing).await.unwrap();
    }
    let sending = tokio::spawn(async move {
        let body = batch("bk_switch_default_host", &[(1, 1), (1, 5001)]);
        let reply = as_user(&app, "user", &body, "en").await;
        (missing(&reply), app.count("select count(*) from cmdb.instance_association").await)
    });
    wait_until_blocked(&pool, 1).await;
    importing.commit().await.unwrap();
    let host = ("edit_biz_host".to_owned(), vec!["5001".to_owned()]);
    assert_eq!(sending.await.unwrap(), (vec![host], 0));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn models_with_the_same_action_are_listed_under_one_action(pool: PgPool) {
    let app = TestApp::new(pool).await;
    for sql in [
        "insert into cmdb.instance (model_id, instance_id)
         select id, 1 from cmdb.model where key in ('set', 'module')",
        "insert into cmdb.model_association
             (key, source_model_id, target_model_id, association_kind_id, mapping)
         select 'set_group_module', source.id, target.id, kind.id, 'n:n'
         from cmdb.model source, cmdb.model target, cmdb.association_kind kind
         where source.key = 'set' and target.key = 'module' and kind.key = 'group'",
    ] {
        sqlx::query(sql).execute(&app.pool).await.unwrap();
    }
    let body = json!({
        "bk_obj_id": "set", "bk_asst_obj_id": "module", "bk_obj_asst_id": "set_group_module",
        "details": [{"bk_inst_id": 1, "bk_asst_inst_id": 1}],
    });
    let reply = as_user(&app, "nobody", &body, "en").await;
    let actions = reply.json["permission"]["actions"].as_array().unwrap();
    assert_eq!((actions.len(), &actions[0]["id"]), (1, &json!("edit_biz_topology")));
    let resources = actions[0]["related_resource_types"].as_array().unwrap();
    let kinds: Vec<_> =
        resources.iter().map(|resource| resource["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["set", "module"]);
}

/// For the caller they do not exist: no permission is required, and no name is disclosed.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_refusal_does_not_list_instances_of_another_tenant(pool: PgPool) {
    let app = TestApp::new(pool).await;
    for sql in [
        "insert into cmdb.tenant (key) values ('tenant')",
        "update cmdb.instance set tenant_id = (select id from cmdb.tenant where key = 'tenant')
         where instance_id = 2",
    ] {
        sqlx::query(sql).execute(&app.pool).await.unwrap();
    }
    let mut body = batch("bk_switch_connect_host", &[(1, 1), (2, 2)]);
    grant(&app, "user", &[model("bk_switch")]).await;
    let reply = as_user(&app, "user", &body, "en").await;
    assert_eq!(missing(&reply), [("edit_biz_host".to_owned(), vec!["1".to_owned()])]);
    body["bk_supplier_account"] = json!("tenant");
    let reply = as_user(&app, "user", &body, "en").await;
    assert_eq!(
        missing(&reply),
        [("edit_biz_host".to_owned(), vec!["1".to_owned(), "2".to_owned()])]
    );
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_user_without_grants_gets_the_refusals_of_missing_instances(pool: PgPool) {
    let app = TestApp::new(pool).await;
    for mapping in ["bk_switch_default_host", "bk_switch_connect_host", "bk_switch_run_host"] {
        let mut body = batch(mapping, &[(999_999, 999_999)]);
        body["bk_username"] = "nobody".into();
        let details = body["details"].as_array_mut().unwrap();
        details.extend([
            json!({}),
            json!({"bk_inst_id": 999_999}),
            json!({"bk_asst_inst_id": 999_999}),
            json!({"bk_inst_id": null, "bk_asst_inst_id": 0}),
        ]);
        let missing = "Association instance does not exist";
        let all = json!({"0": missing, "1": missing, "2": missing, "3": missing, "4": missing});
        assert_eq!(app.post(body).await.maps(), (vec![], all), "{mapping}");
    }
}

const SEARCH_PATH: &str = "/api/c/compapi/v2/cc/search_related_inst_asso/";

/// Searches for the links of an instance of the model.
async fn search(app: &TestApp, user: &str, model: &str) -> Reply {
    let body = json!({
        "bk_username": user,
        "condition": {"bk_obj_id": model, "bk_inst_id": 1},
        "fields": ["id"],
    });
    app.post_to(SEARCH_PATH, &[], body).await
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_user_may_view_the_models_granted_as_a_whole_to_view_or_to_edit(pool: PgPool) {
    let app = TestApp::new(pool).await;
    for (user, scope, sees_switches, sees_hosts) in [
        ("views everything", view(Scope::default()), true, true),
        ("edits everything", Scope::default(), true, true),
        ("views hosts", view(model("host")), false, true),
        ("edits hosts", model("host"), false, true),
        ("edits one host", instance("host", 1), false, false),
    ] {
        grant(&app, user, &[scope]).await;
        for (model, is_seen, action) in [
            ("bk_switch", sees_switches, "view_comobj_"),
            ("host", sees_hosts, "view_resource_pool_host"),
        ] {
            let reply = search(&app, user, model).await;
            if is_seen {
                assert_eq!(reply.json["code"], 0, "{user}, {model}");
                continue;
            }
            assert_eq!(reply.json["code"], 9_900_403, "{user}, {model}");
            let missing = &reply.json["permission"]["actions"][0];
            assert!(missing["id"].as_str().unwrap().starts_with(action), "{missing}");
            assert_eq!(missing["related_resource_types"][0].get("instances"), None, "{missing}");
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_grant_to_view_does_not_let_a_user_edit(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let body = batch("bk_switch_default_host", &[(1, 1)]);
    for scopes in [vec![view(Scope::default())], vec![view(model("host")), model("bk_switch")]] {
        grant(&app, "user", &scopes).await;
        let reply = as_user(&app, "user", &body, "en").await;
        let host = ("edit_biz_host".to_owned(), vec!["1".to_owned()]);
        assert!(missing(&reply).contains(&host), "{}", reply.text);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_grant_to_view_is_added_listed_and_removed_apart_from_those_to_edit(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let program = Program::on(&app.pool);
    let run = |args: &str| program.run(&args.split(' ').collect::<Vec<_>>());
    for (user, scope) in [("first", "--all"), ("second", "--model host")] {
        let sees = async || search(&app, user, "host").await.json["code"] == 0;
        let [edit, view] = [scope.to_owned(), format!("{scope} --view")];
        let change = |how: &str, scope: &str| run(&format!("grant {how} --user {user} {scope}"));
        assert!(!sees().await);
        assert_eq!(change("add", &view).status, 0);
        assert_eq!(change("remove", &edit).status, 1, "it is not a grant to edit");
        assert!(sees().await);
        assert_eq!(change("add", &edit).status, 0);
        let model = scope.strip_prefix("--model ").unwrap_or("*");
        assert_eq!(
            run(&format!("grant list --user {user}")).stdout,
            format!("{user}\t{model}\t*\tedit\n{user}\t{model}\t*\tview\n")
        );
        assert_eq!(change("remove", &view).status, 0);
        assert!(sees().await, "who may edit may view");
        assert_eq!(change("remove", &view).status, 1, "it was removed");
        assert_eq!(change("remove", &edit).status, 0);
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_grant_to_view_one_instance_cannot_be_stored(pool: PgPool) {
    let insert = "insert into cmdb.permission_grant (user_name, action, model_id, instance_id)
                  select 'user', 'view', id, 1 from cmdb.model where key = 'host'";
    let error = sqlx::query(insert).execute(&pool).await.unwrap_err();
    let constraint = error.as_database_error().unwrap().constraint();
    assert_eq!(constraint, Some("permission_grant_view_check"));
}

/// The endpoints that change models, kinds and model associations, with a body, and the action
/// that they require.
const CHANGES: [(&str, &str, &str); 9] = [
    (
        "POST create/object",
        r#"{"bk_obj_id":"r","bk_obj_name":"r","bk_classification_id":"bk_network",
            "bk_obj_icon":"i"}"#,
        "create_sys_model",
    ),
    ("PUT update/object/7", r#"{"bk_obj_icon":"i"}"#, "edit_sys_model"),
    ("DELETE delete/object/10", "", "delete_sys_model"),
    (
        "POST create/objectassociation",
        r#"{"bk_obj_asst_id":"k","bk_obj_id":"host","bk_asst_obj_id":"biz","bk_asst_id":"run",
            "mapping":"n:n"}"#,
        "edit_sys_model",
    ),
    ("PUT update/objectassociation/5", r#"{"bk_obj_asst_name":"k"}"#, "edit_sys_model"),
    ("DELETE delete/objectassociation/5", "", "edit_sys_model"),
    ("POST create/associationtype", r#"{"bk_asst_id":"k"}"#, "create_association_type"),
    ("PUT update/associationtype/1", "", "edit_association_type"),
    ("DELETE delete/associationtype/999", "", "delete_association_type"),
];

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn changes_of_models_and_kinds_take_a_grant_of_their_own(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    grant(&app, "user", &[Scope::default(), view(Scope::default()), model("host")]).await;
    let state = "select jsonb_agg(to_jsonb(model)) from cmdb.model";
    let before = app.json(state).await;
    for (to, body, action) in CHANGES {
        let reply = app.cmdb_reply("user", "0", to, body.into()).await;
        assert_eq!(reply.json["bk_error_code"], 9_900_403, "{to}");
        let actions = reply.json["permission"]["actions"].as_array().unwrap();
        assert_eq!((actions.len(), &actions[0]["id"]), (1, &json!(action)), "{to}");
    }
    assert_eq!(app.json(state).await, before);
    assert_eq!(app.count("select count(*) from cmdb.audit_log").await, 0);
    for (to, body, _) in CHANGES {
        let (code, _) = app.cmdb_as("admin", "0", to, body).await;
        assert_eq!(code, 0, "{to}");
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_grant_to_change_models_allows_neither_to_view_nor_to_edit(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let program = Program::on(&app.pool);
    let run = |args: &str| program.run(&args.split(' ').collect::<Vec<_>>());
    assert_eq!(run("grant add --user user --models").status, 0);
    assert_eq!(run("grant list --user user").stdout, "user\t*\t*\tmodels\n");
    assert_eq!(search(&app, "user", "host").await.json["code"], 9_900_403);
    let body = json!({"bk_username": "user", "bk_obj_id": "host"});
    assert_eq!(app.gateway("search_objects", body).await.json["code"], 9_900_403);
    let batch = batch("bk_switch_default_host", &[(1, 1)]);
    assert_eq!(as_user(&app, "user", &batch, "en").await.json["code"], 9_900_403);
    let kind = async |key: &str| {
        let body = json!({"bk_asst_id": key}).to_string();
        app.cmdb_as("user", "0", "POST create/associationtype", body).await.0
    };
    assert_eq!(kind("a").await, 0);
    for wrong in ["--models --view", "--models --all", "--models --model host"] {
        assert_eq!(run(&format!("grant add --user user {wrong}")).status, 2, "{wrong}");
    }
    assert_eq!(run("grant remove --user user --all").status, 1);
    assert_eq!(run("grant remove --user user --models").status, 0);
    assert_eq!(kind("b").await, 9_900_403);
    assert_eq!(run("grant remove --user user --models").status, 1);
}

/// Requests that create, change, delete and view switches, with the body, what it
/// takes, and the action that a refusal lists.
const INSTANCES: [(&str, &str, GrantAction, &str); 8] = [
    (
        "POST create/instance/object/bk_switch",
        r#"{"bk_inst_name":"{n}"}"#,
        GrantAction::Create,
        "create_comobj_",
    ),
    (
        "POST createmany/instance/object/bk_switch",
        r#"{"details":[{"bk_inst_name":"many-{n}"}]}"#,
        GrantAction::Create,
        "create_comobj_",
    ),
    (
        "PUT update/instance/object/bk_switch/inst/1",
        r#"{"n":"{n}"}"#,
        GrantAction::Edit,
        "edit_comobj_",
    ),
    (
        "PUT updatemany/instance/object/bk_switch",
        r#"{"update":[{"inst_id":1,"datas":{"n":"{n}"}}]}"#,
        GrantAction::Edit,
        "edit_comobj_",
    ),
    (
        "DELETE delete/instance/object/bk_switch/inst/1{n}",
        "",
        GrantAction::Delete,
        "delete_comobj_",
    ),
    (
        "DELETE deletemany/instance/object/bk_switch",
        r#"{"delete":{"inst_ids":[2{n}]}}"#,
        GrantAction::Delete,
        "delete_comobj_",
    ),
    (
        "POST search/instances/object/bk_switch",
        r#"{"page":{"limit":1}}"#,
        GrantAction::View,
        "view_comobj_",
    ),
    ("POST count/instances/object/bk_switch", "{}", GrantAction::View, "view_comobj_"),
];

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_grant_allows_one_action_on_instances_but_that_who_may_edit_may_view(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    app.count("select setval('cmdb.instance_id_seq', 300)").await;
    let number = app.count("select number from cmdb.model where key = 'bk_switch'").await;
    let changes = "select count(*) from cmdb.audit_log where resource_type = 'instance'";
    let of = |action, model: Option<&str>| {
        vec![Scope { action, model: model.map(str::to_owned), instance: None }]
    };
    let (create, delete) = (GrantAction::Create, GrantAction::Delete);
    let (edit, view) = (GrantAction::Edit, GrantAction::View);
    let models = [Some("bk_switch"), None];
    let one = |action| models.map(|model| (of(action, model), vec![action]));
    let mut cases = [one(create), one(delete), one(view)].concat();
    cases.extend(models.map(|model| (of(edit, model), vec![edit, view])));
    cases.push((vec![instance("bk_switch", 1)], vec![edit]));
    cases.push((of(GrantAction::Models, None), vec![]));
    let others = [create, delete, edit, view].map(|action| of(action, Some("host")));
    cases.push((others.concat(), vec![]));
    let both = [of(create, None), of(delete, Some("bk_switch"))].concat();
    cases.push((both, vec![create, delete]));
    cases.push((vec![], vec![]));

    for (n, (scopes, allowed)) in cases.into_iter().enumerate() {
        let user = format!("user-{n}");
        grant(&app, &user, &scopes).await;
        for (to, body, action, missing) in INSTANCES {
            // Ids of instances, of which each is deleted at most once.
            let n = format!("{:02}", n + 10);
            let [to, body] = [to, body].map(|text| text.replace("{n}", &n));
            let before = app.count(changes).await;
            let reply = app.cmdb_reply(&user, "0", &to, body.into()).await;
            let place = format!("{scopes:?}: {to}: {}", reply.text);
            if allowed.contains(&action) {
                assert_eq!(reply.json["bk_error_code"], 0, "{place}");
                let made = app.count(changes).await - before;
                assert_eq!(made, i64::from(action != view), "{place}");
                continue;
            }
            assert_eq!(reply.json["bk_error_code"], 9_900_403, "{place}");
            let actions = reply.json["permission"]["actions"].as_array().unwrap();
            let missing = json!(format!("{missing}{number}"));
            assert_eq!((actions.len(), &actions[0]["id"]), (1, &missing), "{place}");
            assert_eq!(app.count(changes).await, before, "{place}");
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn grants_to_create_and_to_delete_are_added_listed_and_removed_apart(pool: PgPool) {
    let app = TestApp::of_models(pool).await;
    let program = Program::on(&app.pool);
    let run = |args: &str| program.run(&args.split(' ').collect::<Vec<_>>());
    let create = async |name: &str| {
        let body = json!({"bk_inst_name": name}).to_string();
        app.cmdb_as("user", "0", "POST create/instance/object/bk_switch", body).await.0
    };
    for (n, scope) in ["--all", "--model bk_switch"].into_iter().enumerate() {
        let change = |how: &str, action: &str| {
            let output = run(&format!("grant {how} --user user {action} {scope}"));
            let none = if output.status == 1 { "user has no such grant\n" } else { "" };
            assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", none));
            output.status
        };
        assert_eq!(create("x").await, 9_900_403);
        for action in ["--create", "--delete"] {
            assert_eq!(change("add", action), 0);
            assert_eq!(change("add", action), 0, "a second time");
        }
        for other in ["--view ", ""] {
            let output = run(&format!("grant remove --user user {other}{scope}"));
            assert_eq!(output.status, 1, "it is another grant");
        }
        let model = scope.strip_prefix("--model ").unwrap_or("*");
        assert_eq!(
            run("grant list --user user").stdout,
            format!("user\t{model}\t*\tcreate\nuser\t{model}\t*\tdelete\n")
        );
        assert_eq!(create(&format!("a-{n}")).await, 0);
        assert_eq!(change("remove", "--create"), 0);
        assert_eq!(create("x").await, 9_900_403);
        assert_eq!(change("remove", "--create"), 1);
        assert_eq!(change("remove", "--delete"), 0);
        assert_eq!(run("grant list --user user").stdout, "");
    }
    for wrong in [
        "--create",
        "--delete --model host --instance 7",
        "--create --delete --all",
        "--create --view --all",
        "--delete --view --model host",
        "--create --models",
        "--create --all --model host",
    ] {
        for how in ["add", "remove"] {
            assert_eq!(run(&format!("grant {how} --user user {wrong}")).status, 2, "{wrong}");
        }
    }
    let unknown = run("grant add --user user --create --model nonsense");
    assert_eq!(unknown.status, 2);
    assert!(unknown.stderr.contains("there is no such model"), "{}", unknown.stderr);
    assert_eq!(run("grant list --user user").stdout, "");
}
