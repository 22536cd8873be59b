//! How many statements a request takes. The number does not depend on the number of details.

use axum::body::Body;
use axum::http::Request;
use cmdb_associations::http::ClientAddr;
use serde_json::json;
use sqlx::PgPool;

use crate::app::{TestApp, batch, pool_of};
use crate::deletions::{MANY, many};
use crate::permissions::{grant, model};
use crate::proxy::Proxy;
use crate::related_links;

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_number_of_statements_does_not_depend_on_the_number_of_details(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let proxy = Proxy::to(&pool.connect_options()).await;
    let app = TestApp::on(pool_of(proxy.options.clone(), 1)).connect().await;
    let statements = async |headers: &[(&str, &str)], pairs: &[(i64, i64)]| {
        let before = proxy.statements();
        let reply = app.post_with(headers, batch("bk_switch_default_host", pairs)).await;
        assert_eq!(reply.json["code"], 0);
        proxy.statements() - before
    };
    let pairs = |source: i64, length: i64| (1..=length).map(|n| (source, n)).collect::<Vec<_>>();
    // The application, the model association, the user's permissions, the tenant, and the write.
    assert_eq!(statements(&[], &[(300, 1)]).await, 5, "the first request, with empty caches");
    for (source, length) in [(1, 1), (2, 20), (3, 199)] {
        let new = pairs(source, length);
        // Everything but the write is cached.
        assert_eq!(statements(&[], &new).await, 1, "{length} new pairs");
        // The first statement writes nothing, the second one reads the stored state.
        assert_eq!(statements(&[], &new).await, 2, "{length} pairs that exist");
        // The next batch is expected to be like it, so its first statement reads the stored state.
        assert_eq!(statements(&[], &new).await, 1, "{length} pairs that exist, again");
        let mixed = [&new[..], &pairs(10 + source, 1)].concat();
        assert_eq!(statements(&[], &mixed).await, 2, "{length} mixed after a refused batch");
        // Otherwise the third one writes the pairs that do not exist.
        let mixed = [new, pairs(30 + source, 1)].concat();
        assert_eq!(statements(&[], &mixed).await, 3, "{length} mixed");
        // With a key: the stored answer, and the write unless there is one.
        let key = [("idempotency-key", &*source.to_string())];
        let keyed = pairs(20 + source, length);
        assert_eq!(statements(&key, &keyed).await, 2, "{length} with a key");
        assert_eq!(statements(&key, &keyed).await, 1, "{length} with a key, again");
    }
    app.serving.close().await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_number_of_statements_of_a_deletion_does_not_depend_on_the_number_of_ids(pool: PgPool) {
    let setup = TestApp::new(pool.clone()).await;
    let keys = ["bk_switch_default_host", "bk_switch_connect_host", "bk_switch_run_host"];
    for key in keys {
        setup.post(batch(key, &(1..=200).map(|n| (n, n)).collect::<Vec<_>>())).await.ids();
    }
    grant(&setup, "user", &[model("bk_switch"), model("host")]).await;
    let proxy = Proxy::to(&pool.connect_options()).await;
    let app = TestApp::on(pool_of(proxy.options.clone(), 1)).connect().await;
    let delete = async |user: &str, headers: &[(&str, &str)], ids: &[i64]| {
        let before = proxy.statements();
        let mut body = many("host", ids);
        body["bk_username"] = user.into();
        let reply = app.post_to(MANY, headers, body).await;
        assert_eq!(reply.json["code"], 0);
        (proxy.statements() - before, reply.json["data"].as_u64().unwrap())
    };
    // The application, the model, the permissions, the tenant, and the deletion.
    assert_eq!(delete("admin", &[], &[1]).await, (5, 1), "the first request, with empty caches");
    // Of three model associations.
    let ids: Vec<_> = (2..=480).collect();
    assert_eq!(delete("admin", &[], &ids).await, (1, 479));
    assert_eq!(delete("admin", &[], &ids).await, (1, 0), "links that do not exist");
    // With a key: the stored answer, and the deletion unless there is one.
    let key = [("idempotency-key", "k")];
    assert_eq!(delete("admin", &key, &[481, 482]).await, (2, 2));
    assert_eq!(delete("admin", &key, &[481, 482]).await, (1, 2));
    // The permissions of another user. The instances are looked up unless all may be edited.
    assert_eq!(delete("user", &[], &[483]).await, (3, 1));
    let ids: Vec<_> = (484..=600).collect();
    assert_eq!(delete("user", &[], &ids).await, (2, 117));
    app.serving.close().await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_search_with_warm_caches_takes_one_statement(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let proxy = Proxy::to(&pool.connect_options()).await;
    let app = TestApp::on(pool_of(proxy.options.clone(), 1)).connect().await;
    let path = related_links::PATH;
    let search = |user: &str| {
        let condition = json!({"bk_obj_id": "host", "bk_inst_id": 1});
        json!({"condition": condition, "fields": ["id"], "bk_username": user})
    };
    // The application, the model, the permissions, the tenant, the model's associations and the
    // links. Then only the links.
    for (user, code, expected) in [("admin", 0, 6), ("admin", 0, 1), ("nobody", 9_900_403, 1)] {
        let before = proxy.statements();
        let reply = app.post_to(path, &[], search(user)).await;
        assert_eq!(reply.json["code"], code);
        assert_eq!(proxy.statements() - before, expected, "{user}");
    }
    // A refusal on cached state alone takes a comparison of the version.
    let before = proxy.statements();
    assert_eq!(app.post_to(path, &[], search("nobody")).await.json["code"], 9_900_403);
    assert_eq!(proxy.statements() - before, 1);
    app.serving.close().await;
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn that_an_application_is_not_registered_is_cached(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let proxy = Proxy::to(&pool.connect_options()).await;
    let app = TestApp::build(pool_of(proxy.options.clone(), 1), |setup| {
        setup.authenticator.trusted_peers = vec!["10.0.0.0/8".parse().unwrap()];
    })
    .connect()
    .await;
    let body = batch("bk_switch_default_host", &[(1, 1)]);
    // The pair exists after the first request.
    for expected in [5, 2] {
        let mut request = Request::post("/api/v3/createmany/instassociation")
            .header("x-bkcmdb-user", "admin")
            .header("x-bkcmdb-app-code", "not_registered")
            .body(Body::from(body.to_string()))
            .unwrap();
        request.extensions_mut().insert(ClientAddr("10.1.2.3".parse().unwrap()));
        let before = proxy.statements();
        assert_eq!(app.send(request).await.json["bk_error_code"], 0);
        assert_eq!(proxy.statements() - before, expected);
    }
    app.serving.close().await;
}
