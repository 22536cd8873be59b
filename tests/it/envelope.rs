//! The envelope of every answer, and the answers to errors of the server and the database.

use std::time::{Duration, Instant};

use axum::http::{Method, Request, StatusCode};
use cmdb_associations::db::STATEMENT_TIMEOUT;
use cmdb_associations::service;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::app::{PATH, TestApp, batch, pool_of};
use crate::binary::Program;
use crate::constraints::block_link_writers;

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_unknown_path_is_answered_in_the_envelope(pool: PgPool) {
    let app = TestApp::on(pool);
    for path in
        ["/", "/api/c/compapi/v2/cc/create_biz/", "/api/v3/createmany/instassociation", "/healthz/"]
    {
        for method in [Method::GET, Method::POST] {
            let request = Request::builder().method(method).uri(path).body("{".into()).unwrap();
            app.send(request).await.assert_refused(404, 1_306_404, "The content does not exist");
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_method_other_than_post_is_answered_in_the_envelope(pool: PgPool) {
    let app = TestApp::on(pool);
    for method in
        [Method::GET, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS, Method::HEAD]
    {
        let request = Request::builder().method(method.clone()).uri(PATH).body("".into()).unwrap();
        let reply = app.send(request).await;
        assert_eq!(reply.headers["allow"], "POST");
        if method == Method::HEAD {
            assert_eq!(reply.status, 405);
        } else {
            reply.assert_refused(
                405,
                1_306_209,
                "The interface does not support the request method",
            );
        }
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn repeated_slashes_and_one_at_the_end_make_no_difference_at_both_apis(pool: PgPool) {
    let app = TestApp::with(pool, |setup| {
        setup.authenticator.trusted_peers = vec!["10.1.2.3/32".parse().unwrap()];
    })
    .await;
    let status = async |path: &str| {
        app.send(Request::post(path).body("{}".into()).unwrap()).await.status.as_u16()
    };
    let gateway = "/api/c/compapi/v2/cc/batch_create_instance_association";
    let cmdb = "/api/v3/createmany/instassociation";
    for path in [gateway, cmdb] {
        let doubled = path.replace('/', "//");
        for same in [path, &format!("{path}/"), &doubled, &format!("{doubled}//?a=b")] {
            assert_eq!(status(same).await, 200, "{same}");
        }
        for other in [&format!("{path}/."), &format!("{path}%2F"), &path.to_uppercase()] {
            assert_eq!(status(other).await, 404, "{other}");
        }
        let (start, end) = path.rsplit_once('/').unwrap();
        assert_eq!(status(&format!("{start}{end}")).await, 404);
    }
    assert_eq!(app.status("/healthz").await, 200);
    assert_eq!(app.status("//healthz").await, 404);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_body_over_the_limit_is_answered_in_the_envelope(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let message = "Parameters error, the request body is larger than 1048576 bytes";
    let body = |length: usize| format!("{{\"x\":\"{}\"}}", "x".repeat(length - 8));
    app.post_raw(body((1 << 20) + 1)).await.assert_refused(413, 1_306_406, message);
    app.post_raw(body(9 << 20)).await.assert_refused(413, 1_306_406, message);
    assert_eq!(app.post_raw(body(1 << 20)).await.status, StatusCode::OK);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn every_request_has_an_id_of_its_own(pool: PgPool) {
    let app = TestApp::on(pool);
    let send = || app.post_raw("x");
    assert_ne!(send().await.request_id(), send().await.request_id());
    // The gateway API does not adopt the request ids of its clients.
    let request = Request::post(PATH).header("x-request-id", "0".repeat(32)).body("x".into());
    assert_ne!(app.send(request.unwrap()).await.request_id(), "0".repeat(32));
}

#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn the_language_is_taken_from_headers_and_cookie(pool: PgPool) {
    let app = TestApp::new(pool).await;
    let chinese = "数据 details 不能为空";
    let english = "details must not be empty";
    let body = r#"{"bk_app_code":"esb_test","bk_app_secret":"xxx","bk_username":"admin",
        "bk_obj_id":"a","bk_asst_obj_id":"b","bk_obj_asst_id":"c"}"#;
    for (header, value, message) in [
        ("blueking-language", "zh-cn", chinese),
        ("blueking-language", "en", english),
        ("accept-language", "zh-Hans,en;q=0.5", chinese),
        ("accept-language", "de", english),
        ("cookie", "a=b; blueking_language=zh-cn", chinese),
        ("cookie", "blueking_language=en", english),
        ("http_blueking_language", "zh-cn", english), // the CMDB API's header
    ] {
        let request = Request::post(PATH).header(header, value).body(body.into()).unwrap();
        app.send(request).await.assert_refused(200, 1_199_038, message);
    }
    // Credential refusals are English only.
    let request =
        Request::post(PATH).header("blueking-language", "zh-cn").body("{}".into()).unwrap();
    let message = "APP Code [bk_app_code] and APP Secret [bk_app_secret] cannot be empty";
    app.send(request).await.assert_refused(200, 1_306_000, message);
}

#[tokio::test]
async fn an_unreachable_database_is_answered_with_503_long_before_the_deadline() {
    let nowhere = PgConnectOptions::new().host("127.0.0.1").port(1).username("x").database("x");
    let pool = pool_of(nowhere, 2);
    let app = TestApp::on(pool);
    let started = Instant::now();
    let reply = app.post(batch("bk_switch_connect_host", &[(1, 1)])).await;
    reply.assert_refused(503, 1_306_201, "Postgres is unavailable, please try again later");
    assert_eq!(reply.headers["retry-after"], "2");
    // The pool waits 1.5 s. A busy machine gets more, but not the request's whole deadline.
    assert!(started.elapsed() < Duration::from_secs(8));
    assert_eq!(app.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(app.get("/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_request_is_refused_with_503_when_the_pool_has_no_free_connection(
    _: PgPoolOptions, options: PgConnectOptions,
) {
    let app = TestApp::new(pool_of(options, 1)).await;
    let held = app.serving.acquire().await.unwrap();
    let reply = app.post(batch("bk_switch_connect_host", &[(1, 1)])).await;
    reply.assert_refused(503, 1_306_201, "Postgres is unavailable, please try again later");
    held.release();
    // The next request succeeds without a restart.
    let reply = app.post(batch("bk_switch_connect_host", &[(1, 1)])).await;
    assert_eq!(reply.status, StatusCode::OK);
    app.serving.close().await;
}

/// A lock on the table of links blocks the write until the statement timeout.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_write_that_times_out_is_answered_with_503_and_writes_nothing(pool: PgPool) {
    let app = TestApp::new(pool_of(pool.connect_options().as_ref().clone(), 1)).await;
    // This request prepares the statements, so that the next one waits in its write.
    assert_eq!(app.post(batch("bk_switch_connect_host", &[(1, 1)])).await.ids().len(), 1);
    let holder = block_link_writers(&pool).await;
    let reply = app.post(batch("bk_switch_connect_host", &[(2, 2)])).await;
    reply.assert_refused(503, 1_306_201, "Postgres is unavailable, please try again later");
    holder.rollback().await.unwrap();
    assert_eq!(app.post(batch("bk_switch_connect_host", &[(3, 3)])).await.ids().len(), 1);
    assert_eq!(app.count("select count(*) from cmdb.instance_association").await, 2);
    assert_eq!(app.count("select count(*) from cmdb.audit_log").await, 2);
}

/// Links must not be created after the caller was told that the request failed.
#[sqlx::test(migrator = "crate::MIGRATOR", fixtures(path = "../fixtures", scripts("world")))]
async fn a_write_is_not_started_when_it_could_outlast_the_deadline(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let app = TestApp::with_timeout(pool, STATEMENT_TIMEOUT);
    let reply = app.post(batch("bk_switch_connect_host", &[(1, 1)])).await;
    reply.assert_refused(503, 1_306_201, "Postgres is unavailable, please try again later");
    assert_eq!(app.count("select count(*) from cmdb.instance_association").await, 0);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_draining_server_is_not_ready(pool: PgPool) {
    let app = TestApp::on(pool);
    assert_eq!(app.get("/readyz").await, (StatusCode::OK, "ready\n".into()));
    app.drain.send_replace(true);
    let draining = (StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned());
    assert_eq!(app.get("/readyz").await, draining);
    assert_eq!(app.get("/healthz").await.0, StatusCode::OK);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn incomplete_credentials_are_refused_without_the_database(pool: PgPool) {
    let app = TestApp::on(pool.clone());
    pool.close().await;
    let message = "APP Code [bk_app_code] and APP Secret [bk_app_secret] cannot be empty";
    app.post_raw("{}").await.assert_refused(200, 1_306_000, message);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_body_that_does_not_arrive_in_time_is_refused_as_invalid_json(pool: PgPool) {
    let app = TestApp::with_timeout(pool, Duration::from_millis(100));
    let never = futures_util::stream::pending::<Result<Vec<u8>, std::convert::Infallible>>();
    let message = "Request JSON string is wrong in format, which cannot be analyzed.";
    app.post_raw(axum::body::Body::from_stream(never))
        .await
        .assert_refused(200, 1_306_000, message);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_internal_error_is_answered_without_internals(pool: PgPool) {
    let app = TestApp::new(pool).await;
    sqlx::query("alter table cmdb.app alter column trusts_username type text")
        .execute(&app.pool)
        .await
        .unwrap();
    app.post(batch("bk_switch_connect_host", &[(1, 1)])).await.assert_refused(
        500,
        1_306_000,
        "Internal error, please try again later or contact the administrator",
    );
}

#[sqlx::test(migrations = false)]
async fn a_server_is_ready_once_its_migrations_are_applied(pool: PgPool) {
    let app = TestApp::on(pool);
    assert_eq!(
        app.get("/readyz").await,
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the database has no tables of this program: run `cmdb-associations migrate` first\n"
                .into()
        )
    );
    let mut conn = app.pool.acquire().await.unwrap();
    service::database::migrate(&mut conn, "0").await.unwrap();
    assert_eq!(app.get("/readyz").await, (StatusCode::OK, "ready\n".into()));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_server_is_not_ready_while_its_database_is_read_only(pool: PgPool) {
    let sql = "do $$ begin execute format(
        'alter database %I set default_transaction_read_only to on', current_database()); end $$";
    sqlx::query(sql).execute(&pool).await.unwrap();
    let answer = TestApp::on(pool).get("/readyz").await;
    assert_eq!(
        answer,
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the database is read-only: default_transaction_read_only is on\n".into()
        )
    );
}

/// Every migration keeps the previous version of the program working.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_server_starts_on_a_schema_newer_than_itself(pool: PgPool) {
    let newer =
        "insert into cmdb._sqlx_migrations (version, description, success, checksum, execution_time)
                 values (9999, 'of a newer program', true, '', 0)";
    sqlx::query(newer).execute(&pool).await.unwrap();
    let server = Program::on(&pool).serve(&[]);
    assert_eq!(reqwest::get(server.url("/readyz")).await.unwrap().status(), 200);
}
