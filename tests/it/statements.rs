//! How many statements a request takes. The number does not depend on the number of details.

use sqlx::PgPool;

use crate::app::{TestApp, batch, pool_of};
use crate::proxy::Proxy;

#[sqlx::test(fixtures(path = "../fixtures", scripts("world")))]
async fn the_number_of_statements_does_not_depend_on_the_number_of_details(pool: PgPool) {
    TestApp::new(pool.clone()).await;
    let proxy = Proxy::to(&pool.connect_options()).await;
    let app = TestApp::on(pool_of(proxy.options.clone(), 1));
    let statements = async |headers: &[(&str, &str)], pairs: &[(i64, i64)]| {
        let before = proxy.statements();
        let reply = app.post_with(headers, batch("bk_switch_default_host", pairs)).await;
        assert_eq!(reply.json["code"], 0);
        proxy.statements() - before
    };
    let pairs = |source: i64, length: i64| (1..=length).map(|n| (source, n)).collect::<Vec<_>>();
    // The application, the model association with the user's grants, and the write.
    assert_eq!(statements(&[], &[(300, 1)]).await, 3, "the first request, with empty caches");
    for (source, length) in [(1, 1), (2, 20), (3, 199)] {
        let new = pairs(source, length);
        // Application and model association are cached: one write.
        assert_eq!(statements(&[], &new).await, 1, "{length} new pairs");
        assert_eq!(statements(&[], &new).await, 1, "{length} pairs that exist");
        // The first statement finds existing pairs, the second one writes the others.
        let mixed = [new, pairs(10 + source, 1)].concat();
        assert_eq!(statements(&[], &mixed).await, 2, "{length} mixed");
        // With a key: the stored answer, and the write unless there is one.
        let key = [("idempotency-key", &*source.to_string())];
        let keyed = pairs(20 + source, length);
        assert_eq!(statements(&key, &keyed).await, 2, "{length} with a key");
        assert_eq!(statements(&key, &keyed).await, 1, "{length} with a key, again");
    }
    app.serving.close().await;
}
