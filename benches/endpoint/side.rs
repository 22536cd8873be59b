//! Who does the work: a bare insert, the original's algorithm, or the endpoint.

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use sqlx::postgres::PgArguments;
use sqlx::query::QueryAs;
use sqlx::{PgConnection, Postgres};
use tokio::net::TcpStream;

use crate::batches::Batch;
use crate::world::{SECRET, USER, World};

/// Who.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// One insert of all pairs into a table that checks nothing but that a pair stands once.
    Floor,
    /// What the endpoint's promises cost in SQL alone: the same keys, and the same looking for pairs and instances,
    /// in one statement that can do nothing else.
    Checked,
    /// The original's algorithm on our tables: statement after statement, detail after detail.
    Twin,
    /// The endpoint over HTTP, with credentials and permission.
    Endpoint,
}

/// A connection to it.
pub(crate) enum Client {
    Floor(PgConnection),
    Checked(PgConnection),
    Twin(PgConnection),
    Endpoint(SendRequest<Full<Bytes>>),
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// So many links.
    Created(usize),
    /// Too many at once.
    Shed,
}

impl Side {
    pub(crate) async fn connect(self, world: &World) -> Client {
        match self {
            Self::Floor => Client::Floor(world.connect().await),
            Self::Checked => Client::Checked(world.connect().await),
            Self::Twin => Client::Twin(world.connect().await),
            Self::Endpoint => {
                let stream = TcpStream::connect(&world.server.address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
                tokio::spawn(connection);
                Client::Endpoint(sender)
            }
        }
    }
}

impl Client {
    /// Sends a request and waits for all of its answer.
    pub(crate) async fn send(&mut self, batch: &Batch) -> Answer {
        let Batch { association, pairs } = batch;
        match self {
            Self::Floor(conn) => Answer::Created(insert(conn, sqlx::query_as(FLOOR), pairs).await),
            Self::Checked(conn) => {
                let query = sqlx::query_as(CHECKED).bind(association);
                Answer::Created(insert(conn, query, pairs).await)
            }
            Self::Twin(conn) => Answer::Created(one_by_one(conn, association, pairs).await),
            Self::Endpoint(sender) => post(sender, association, pairs).await,
        }
    }
}

const FLOOR: &str = "
    insert into bare (association, source, target)
    select 1, source, target from unnest($1::bigint[], $2::bigint[]) given (source, target)
    on conflict do nothing returning id, source, target";

const CHECKED: &str = "
    with association as materialized (
        select id, source_model_id, target_model_id from model_association where key = $1
    )
    insert into instance_association (model_association_id, source_id, target_id)
    select (select id from association), source, target
    from unnest($2::bigint[], $3::bigint[]) given (source, target)
    where not exists (
            select from unnest($2::bigint[], $3::bigint[]) given (source, target)
            where (select link.source_id from instance_association link
                where link.model_association_id = (select id from association) and link.target_id = target
                    and case when link.model_association_id & 3 = 3 then link.source_id else 0 end = source
            ) is not null)
        and 0 < (select count(*) from instance
            where model_id = (select source_model_id from association) and instance_id = any ($2))
        and 0 < (select count(*) from instance
            where model_id = (select target_model_id from association) and instance_id = any ($3))
        and (select set_config('cmdb.guard_may_skip', 'yes', true)) = 'yes'
    order by target, source
    returning id, source_id, target_id";

/// The ids and ends of what was created.
type Created<'q> = QueryAs<'q, Postgres, (i64, i64, i64), PgArguments>;

/// Carries out an insert that takes the sources and the targets at last.
async fn insert(conn: &mut PgConnection, query: Created<'_>, pairs: &[(i64, i64)]) -> usize {
    let (sources, targets): (Vec<i64>, Vec<i64>) = pairs.iter().copied().unzip();
    query.bind(sources).bind(targets).fetch_all(conn).await.unwrap().len()
}

/// As the original does it for each detail of an n:n association: is the pair there, is the source, is the target, what
/// is the association; insert; write the audit record.
async fn one_by_one(conn: &mut PgConnection, association: &str, pairs: &[(i64, i64)]) -> usize {
    let mut created = 0;
    for (source, target) in pairs {
        let (id, source_model, target_model): (i32, i32, i32) = sqlx::query_as(
            "select id, source_model_id, target_model_id from model_association where key = $1",
        )
        .bind(association)
        .fetch_one(&mut *conn)
        .await
        .unwrap();
        let stands: i64 = sqlx::query_scalar(
            "select count(*) from instance_association
             where model_association_id = $1 and source_id = $2 and target_id = $3",
        )
        .bind(id)
        .bind(source)
        .bind(target)
        .fetch_one(&mut *conn)
        .await
        .unwrap();
        let mut exist = stands == 0;
        for (model, instance) in [(source_model, source), (target_model, target)] {
            let count: i64 = sqlx::query_scalar(
                "select count(*) from instance where model_id = $1 and instance_id = $2",
            )
            .bind(model)
            .bind(instance)
            .fetch_one(&mut *conn)
            .await
            .unwrap();
            exist &= count == 1;
        }
        if !exist {
            continue;
        }
        let link: i64 = sqlx::query_scalar(
            "insert into instance_association (model_association_id, source_id, target_id)
             values ($1, $2, $3) returning id",
        )
        .bind(id)
        .bind(source)
        .bind(target)
        .fetch_one(&mut *conn)
        .await
        .unwrap();
        sqlx::query(
            "insert into audit_log
                 (origin, request_id, app, user_name, tenant_id, model_association_id,
                  association_ids, source_ids, target_ids)
             values ('request', 'twin', 'bench', 'bench', 0, $1, int8multirange(int8range($2, $2, '[]')),
                 array[$3::bigint], array[$4::bigint])",
        )
        .bind(id)
        .bind(link)
        .bind(source)
        .bind(target)
        .execute(&mut *conn)
        .await
        .unwrap();
        created += 1;
    }
    created
}

async fn post(
    sender: &mut SendRequest<Full<Bytes>>,
    association: &str,
    pairs: &[(i64, i64)],
) -> Answer {
    let details: Vec<_> = pairs
        .iter()
        .map(|(source, target)| format!(r#"{{"bk_inst_id":{source},"bk_asst_inst_id":{target}}}"#))
        .collect();
    let body = format!(
        r#"{{"bk_app_code":"bench","bk_app_secret":"{SECRET}","bk_username":"{USER}","bk_obj_id":"bk_switch",
           "bk_asst_obj_id":"host","bk_obj_asst_id":"{association}","details":[{}]}}"#,
        details.join(",")
    );
    let request = Request::post("/api/c/compapi/v2/cc/batch_create_instance_association/")
        .header("host", "bench")
        .body(Full::from(body))
        .unwrap();
    sender.ready().await.unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body = std::str::from_utf8(&body).unwrap();
    if status == 503 {
        return Answer::Shed;
    }
    assert!(body.starts_with(r#"{"result":true,"code":0,"#), "{body}");
    // Counted, not parsed: the machine is the server's as well.
    let created = body.split_once("success_created").unwrap().1.split_once('}').unwrap().0;
    Answer::Created(created.matches("\":").count().saturating_sub(1))
}
