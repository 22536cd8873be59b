//! How many statements a request takes: a fixed number, so that none can hide in a loop.

use sqlx::PgPool;

use crate::app::{TestApp, batch, few};
use crate::proxy::Proxy;

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn a_request_takes_as_many_statements_whatever_its_size(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let proxy = Proxy::to(&pool.connect_options()).await;
    let app = TestApp::on(few(proxy.options.clone(), 1));
    let cost = async |headers: &[(&str, &str)], pairs: &[(i64, i64)]| {
        let before = proxy.statements();
        let reply = app.post_with(headers, batch("bk_switch_default_host", pairs)).await;
        assert_eq!(reply.json["code"], 0);
        proxy.statements() - before
    };
    let pairs = |source: i64, length: i64| (1..=length).map(|n| (source, n)).collect::<Vec<_>>();
    // What the request is judged by; the batch.
    assert_eq!(cost(&[], &[(300, 1)]).await, 2, "the first request of its kind");
    for (source, length) in [(1, 1), (2, 20), (3, 199)] {
        let given = pairs(source, length);
        // What it is judged by is remembered.
        assert_eq!(cost(&[], &given).await, 1, "{length} new pairs");
        assert_eq!(cost(&[], &given).await, 1, "{length} pairs that exist");
        // Once more, now that it is known what is in the way.
        let mixed = [given, pairs(10 + source, 1)].concat();
        assert_eq!(cost(&[], &mixed).await, 2, "{length} mixed");
        // Nothing is remembered where an answer may be repeated; that answer; the batch.
        let key = [("idempotency-key", &*source.to_string())];
        assert_eq!(cost(&key, &pairs(20 + source, length)).await, 3, "{length} with a key");
    }
    app.serving.close().await;
}
