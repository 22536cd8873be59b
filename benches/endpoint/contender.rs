//! What is compared: a bare insert, the endpoint's own statement, the original's algorithm, an HTTP
//! request without work, and the endpoint.

use axum::body::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::http::request::Builder;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use sqlx::{Executor, PgConnection};
use tokio::net::TcpStream;

use crate::batches::Batch;
use crate::dataset::{Dataset, SECRET, USER};

/// A way to create links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    /// One insert of all pairs into a table that checks only that each pair is unique.
    Floor,
    /// The endpoint's own statement, with the settings of the server's connections.
    Statement,
    /// The original's algorithm on our tables: several statements for each detail.
    Baseline,
    /// A request without a body to a path whose handler does nothing.
    Empty,
    /// The endpoint over HTTP, with credentials and permission.
    Endpoint,
}

/// A connection to a contender.
pub(crate) enum Client {
    Floor(PgConnection),
    Statement(PgConnection, Association),
    Baseline(PgConnection),
    Empty(SendRequest<Full<Bytes>>),
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
            Self::Statement => {
                let mut conn = dataset.connect().await;
                conn.execute(REQUEST_SETTINGS).await.unwrap();
                let association = sqlx::query_as(
                    "select id, source_model_id, target_model_id, version
                     from cmdb.model_association, cmdb.cache_version where key = 'bench_n:n'",
                );
                let association = association.fetch_one(&mut conn).await.unwrap();
                Client::Statement(conn, association)
            }
            Self::Baseline => Client::Baseline(dataset.connect().await),
            Self::Empty => Client::Empty(connect(&dataset.server.address).await),
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
            Self::Floor(conn) => Answer::Created(insert(conn, pairs).await),
            Self::Statement(conn, association) => {
                Answer::Created(create(conn, *association, pairs).await)
            }
            Self::Baseline(conn) => {
                Answer::Created(detail_by_detail(conn, association, pairs).await)
            }
            Self::Empty(sender) => {
                let request = Request::get("/healthz");
                let (status, _) = exchange(sender, request, String::new()).await;
                assert_eq!(status, 200);
                Answer::Created(0)
            }
            Self::Endpoint(sender) => post(sender, association, pairs).await,
        }
    }
}

const FLOOR: &str = "
    insert into public.bare (association, source, target)
    select 1, source, target from unnest($1::bigint[], $2::bigint[]) pair (source, target)
    on conflict do nothing returning id, source, target";

/// Inserts pairs into the table of the floor.
async fn insert(conn: &mut PgConnection, pairs: &[(i64, i64)]) -> usize {
    let (sources, targets): (Vec<i64>, Vec<i64>) = pairs.iter().copied().unzip();
    let query = sqlx::query_as::<_, (i64, i64, i64)>(FLOOR).bind(sources).bind(targets);
    query.fetch_all(conn).await.unwrap().len()
}

/// Those of the server's settings for requests that affect plans.
const REQUEST_SETTINGS: &str = "
    set plan_cache_mode = force_generic_plan; set enable_seqscan = off;
    set enable_bitmapscan = off; set jit = off";

const CREATE_LINKS: &str = include_str!("../../src/db/create_links.sql");

/// The ids of an n:n model association and its models, and the cache version.
type Association = (i32, i32, i32, i64);

/// Creates n:n links as the server does once it knows all instances. Nothing is written if a pair
/// exists.
async fn create(conn: &mut PgConnection, association: Association, pairs: &[(i64, i64)]) -> usize {
    let (id, source_model, target_model, version) = association;
    let (sources, targets): (Vec<i64>, Vec<i64>) = pairs.iter().copied().unzip();
    let created: Option<Vec<i64>> = sqlx::query_scalar(CREATE_LINKS)
        .bind(id)
        .bind(source_model)
        .bind(false)
        .bind(target_model)
        .bind(true)
        .bind(0)
        .bind(version)
        .bind(sources)
        .bind(targets)
        .bind([0_i64; 0])
        .bind([0_i64; 0])
        .bind("0123456789abcdef0123456789abcdef")
        .bind("bench")
        .bind(USER)
        .bind(None::<&str>)
        .bind(None::<&[u8]>)
        .bind(None::<&str>)
        .bind(vec![None::<i32>; pairs.len()])
        .bind(None::<i64>)
        .bind(None::<&str>)
        .bind(None::<&str>)
        .bind(None::<Vec<i16>>)
        .bind(None::<&str>)
        .fetch_optional(conn)
        .await
        .unwrap();
    created.map_or(0, |ids| ids.len())
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
    let path = "/api/c/compapi/v2/cc/batch_create_instance_association/";
    let (status, body) = exchange(sender, Request::post(path), body_of(association, pairs)).await;
    let body = std::str::from_utf8(&body).unwrap();
    if status == 503 {
        return Answer::Refused;
    }
    assert!(body.starts_with(r#"{"result":true,"code":0,"#), "{body}");
    // The ids are counted without parsing the answer, because the client shares the machine.
    let created = body.split_once("success_created").unwrap().1.split_once('}').unwrap().0;
    Answer::Created(created.matches("\":").count().saturating_sub(1))
}

fn body_of(association: &str, pairs: &[(i64, i64)]) -> String {
    let details: Vec<_> = pairs
        .iter()
        .map(|(source, target)| format!(r#"{{"bk_inst_id":{source},"bk_asst_inst_id":{target}}}"#))
        .collect();
    format!(
        r#"{{"bk_app_code":"bench","bk_app_secret":"{SECRET}","bk_username":"{USER}",
           "bk_obj_id":"bk_switch","bk_asst_obj_id":"host","bk_obj_asst_id":"{association}",
           "details":[{}]}}"#,
        details.join(",")
    )
}

/// Sends a request and returns the status and the body of its response.
async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>, request: Builder, body: String,
) -> (StatusCode, Bytes) {
    let request = request.header("host", "bench").body(Full::from(body)).unwrap();
    sender.ready().await.unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status();
    (status, response.into_body().collect().await.unwrap().to_bytes())
}
