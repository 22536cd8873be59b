//! How connections to the database are lent.

use cmdb_associations::config::serving_pool;
use sqlx::{PgConnection, PgPool};

async fn process(conn: &mut PgConnection) -> i32 {
    sqlx::query_scalar("select pg_backend_pid()").fetch_one(conn).await.unwrap()
}

#[sqlx::test]
async fn the_connection_that_came_back_last_is_lent_first(pool: PgPool) {
    let serving = serving_pool(pool.connect_options().as_ref().clone(), 2);
    let (mut one, mut other) = (serving.get().await.unwrap(), serving.get().await.unwrap());
    let (first, last) = (process(&mut one).await, process(&mut other).await);
    assert_ne!(first, last);
    one.give_back();
    other.give_back();
    for _ in 0..2 {
        let mut loan = serving.get().await.unwrap();
        assert_eq!(process(&mut loan).await, last);
        loan.give_back();
    }
}

#[sqlx::test]
async fn a_connection_that_is_not_given_back_is_cut_and_replaced(pool: PgPool) {
    let serving = serving_pool(pool.connect_options().as_ref().clone(), 1);
    let mut lost = serving.get().await.unwrap();
    let before = process(&mut lost).await;
    drop(lost);
    assert_eq!((serving.status().in_use, serving.status().idle), (0, 0));
    assert_ne!(process(&mut serving.get().await.unwrap()).await, before);
}
