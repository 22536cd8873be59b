//! The pool of connections to PostgreSQL.

use cmdb_associations::service::Pool;
use sqlx::{PgConnection, PgPool};

use crate::app::server_database;

async fn backend_pid(conn: &mut PgConnection) -> i32 {
    sqlx::query_scalar("select pg_backend_pid()").fetch_one(conn).await.unwrap()
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_connection_released_last_is_acquired_first(pool: PgPool) {
    let pool = Pool::new(server_database(pool.connect_options().as_ref().clone()), 2);
    let mut one = pool.acquire().await.unwrap();
    let mut other = pool.acquire().await.unwrap();
    let (first, last) = (backend_pid(&mut one).await, backend_pid(&mut other).await);
    assert_ne!(first, last);
    one.release();
    other.release();
    for _ in 0..2 {
        let mut conn = pool.acquire().await.unwrap();
        assert_eq!(backend_pid(&mut conn).await, last);
        conn.release();
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_connection_that_is_dropped_without_release_is_replaced(pool: PgPool) {
    let pool = Pool::new(server_database(pool.connect_options().as_ref().clone()), 1);
    let mut conn = pool.acquire().await.unwrap();
    let before = backend_pid(&mut conn).await;
    drop(conn);
    assert_eq!(pool.status().size, 0);
    assert_ne!(backend_pid(&mut pool.acquire().await.unwrap()).await, before);
}
