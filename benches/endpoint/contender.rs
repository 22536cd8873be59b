//! What is compared: a bare insert, a checked insert, the original's algorithm, and the endpoint.

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
use crate::dataset::{Dataset, SECRET, USER};

/// A way to create links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    /// One insert of all pairs into a table that checks only that each pair is unique.
    Floor,
    /// One insert with the endpoint's indexes and its look-ups of pairs and instances: what its
    /// guarantees cost in SQL alone.
    Checked,
    /// The original's algorithm on our tables: several statements for each detail.
    Baseline,
    /// The endpoint over HTTP, with credentials and permission.
    Endpoint,
}

/// A connection to a contender.
pub(crate) enum Client {
    Floor(PgConnection),
    Checked(PgConnection),
    Baseline(PgConnection),
    Endpoint(SendRequest<Full<Bytes>>),
}

/// The outcome of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The number of links that were created.
    Created(usize),
    /// The server was over its capacity.
    Refused,
}

impl Contender {
    pub(crate) async fn connect(self, dataset: &Dataset) -> Client {
        match self {
            Self::Floor => Client::Floor(dataset.connect().await),
            Self::Checked => Client::Checked(dataset.connect().await),
            Self::Baseline => Client::Baseline(dataset.connect().await),
            Self::Endpoint => Client::Endpoint(connect(&dataset.server.address).await),
        }
    }
}

/// Opens an HTTP connection.
pub(crate) async fn connect(address: &str) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

impl Client {
    /// Sends a request and waits for its whole answer.
    pub(crate) async fn send(&mut self, batch: &Batch) -> Answer {
        let Batch { association, pairs } = batch;
        match self {
            Self::Floor(conn) => Answer::Created(insert(conn, sqlx::query_as(FLOOR), pairs).await),
            Self::Checked(conn) => {
                let query = sqlx::query_as(CHECKED).bind(association);
                Answer::Created(insert(conn, query, pairs).await)
            }
            Self::Baseline(conn) => {
                Answer::Created(detail_by_detail(conn, association, pairs).await)
            }
            Self::Endpoint(sender) => post(sender, association, pairs).await,
        }
    }
}

const FLOOR: &str = "
    insert into public.bare (association, source, target)
    select 1, source, target from unnest($1::bigint[], $2::bigint[]) pair (source, target)
    on conflict do nothing returning id, source, target";

const CHECKED: &str = "
    with association as materialized (
        select id, source_model_id, target_model_id from cmdb.model_association where key = $1
    )
    insert into cmdb.instance_association (model_association_id, source_id, target_id)
    select (select id from association), source, target
    from unnest($2::bigint[], $3::bigint[]) pair (source, target)
    where not exists (
            select from unnest($2::bigint[], $3::bigint[]) pair (source, target)
            where (
                select link.source_id from cmdb.instance_association link
                where link.model_association_id = (select id from association)
                    and link.source_id = source and link.target_id = target
                    and link.model_association_id & 3 <> 1
            ) is not null)
        and 0 < (select count(*) from cmdb.instance
            where model_id = (select source_model_id from association)
                and instance_id = any ($2))
        and 0 < (select count(*) from cmdb.instance
            where model_id = (select target_model_id from association)
                and instance_id = any ($3))
        and (select set_config('cmdb.guard_may_skip', 'yes', true)) = 'yes'
    order by target, source
    returning id, source_id, target_id";

/// The id, source and target of each created link.
type Created<'q> = QueryAs<'q, Postgres, (i64, i64, i64), PgArguments>;

/// Executes an insert whose last two parameters are the sources and the targets.
async fn insert(conn: &mut PgConnection, query: Created<'_>, pairs: &[(i64, i64)]) -> usize {
    let (sources, targets): (Vec<i64>, Vec<i64>) = pairs.iter().copied().unzip();
    query.bind(sources).bind(targets).fetch_all(conn).await.unwrap().len()
}

/// For each detail, as the original does for n:n: look up the model association, the pair, the
/// source and the target; insert the link; insert the audit record.
async fn detail_by_detail(
    conn: &mut PgConnection, association: &str, pairs: &[(i64, i64)],
) -> usize {
    let mut created = 0;
    for (source, target) in pairs {
        let (id, source_model, target_model): (i32, i32, i32) = sqlx::query_as(
            "select id, source_model_id, target_model_id from cmdb.model_association where key = $1",
        )
        .bind(association)
        .fetch_one(&mut *conn)
        .await
        .unwrap();
        let stored: i64 = sqlx::query_scalar(
            "select count(*) from cmdb.instance_association
             where model_association_id = $1 and source_id = $2 and target_id = $3
                 and model_association_id & 3 <> 1",
        )
        .bind(id)
        .bind(source)
        .bind(target)
        .fetch_one(&mut *conn)
        .await
        .unwrap();
        let mut is_valid = stored == 0;
        for (model, instance) in [(source_model, source), (target_model, target)] {
            let count: i64 = sqlx::query_scalar(
                "select count(*) from cmdb.instance where model_id = $1 and instance_id = $2",
            )
            .bind(model)
            .bind(instance)
            .fetch_one(&mut *conn)
            .await
            .unwrap();
            is_valid &= count == 1;
        }
        if !is_valid {
            continue;
        }
        let link: i64 = sqlx::query_scalar(
            "insert into cmdb.instance_association (model_association_id, source_id, target_id)
             values ($1, $2, $3) returning id",
        )
        .bind(id)
        .bind(source)
        .bind(target)
        .fetch_one(&mut *conn)
        .await
        .unwrap();
        sqlx::query(
            "insert into cmdb.audit_log
                 (origin, request_id, app, user_name, tenant_id, model_association_id,
                  association_ids, source_ids, target_ids)
             values ('request', 'baseline', 'bench', 'bench', 0, $1,
                 int8multirange(int8range($2, $2, '[]')), array[$3::bigint], array[$4::bigint])",
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
    sender: &mut SendRequest<Full<Bytes>>, association: &str, pairs: &[(i64, i64)],
) -> Answer {
    let details: Vec<_> = pairs
        .iter()
        .map(|(source, target)| format!(r#"{{"bk_inst_id":{source},"bk_asst_inst_id":{target}}}"#))
        .collect();
    let body = format!(
        r#"{{"bk_app_code":"bench","bk_app_secret":"{SECRET}","bk_username":"{USER}",
           "bk_obj_id":"bk_switch","bk_asst_obj_id":"host","bk_obj_asst_id":"{association}",
           "details":[{}]}}"#,
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
        return Answer::Refused;
    }
    assert!(body.starts_with(r#"{"result":true,"code":0,"#), "{body}");
    // The ids are counted without parsing the answer, because the client shares the machine.
    let created = body.split_once("success_created").unwrap().1.split_once('}').unwrap().0;
    Answer::Created(created.matches("\":").count().saturating_sub(1))
}
