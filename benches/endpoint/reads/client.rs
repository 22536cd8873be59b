//! What is compared: a request over HTTP, and a statement through the driver.

use std::time::{Duration, Instant};

use axum::body::Bytes;
use futures_util::TryStreamExt;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use sqlx::{AssertSqlSafe, PgConnection};

use super::row::{Request, Statement};
use crate::dataset::{SECRET, USER};

/// What a request or a statement has done.
pub(super) struct Answer {
    /// The number of links that it returned or deleted, or the number that it counted.
    pub(super) number: i64,
    /// The time until the whole answer was there.
    pub(super) duration: Duration,
    /// The time until its first part was there.
    pub(super) first: Duration,
    /// The bytes of its body.
    pub(super) size: usize,
}

/// Sends a request, and reads the answer without keeping it.
pub(super) async fn send(sender: &mut SendRequest<Full<Bytes>>, request: &Request) -> Answer {
    let mut body = request.body.clone();
    for (name, value) in
        [("bk_app_code", "bench"), ("bk_app_secret", SECRET), ("bk_username", USER)]
    {
        body[name] = value.into();
    }
    let http = hyper::Request::post(format!("/api/c/compapi/v2/cc/{}/", request.name))
        .header("host", "bench")
        .body(Full::from(body.to_string()))
        .unwrap();
    sender.ready().await.unwrap();
    let started = Instant::now();
    let mut response = sender.send_request(http).await.unwrap().into_body();
    let (mut start, mut objects, mut size) = (Vec::new(), 0, 0);
    let mut first = None;
    while let Some(frame) = response.frame().await {
        let chunk = frame.unwrap().into_data().unwrap_or_default();
        first.get_or_insert_with(|| started.elapsed());
        if start.len() < 200 {
            start.extend(chunk.iter().take(200));
        }
        // The parts are counted without parsing the answer, because the client shares the machine.
        objects += chunk.split(|byte| *byte == b'{').count() - 1;
        size += chunk.len();
    }
    let duration = started.elapsed();
    let start = String::from_utf8_lossy(&start);
    assert!(start.starts_with(r#"{"result":true,"code":0,"#), "{start}");
    let objects = i64::try_from(objects).unwrap();
    let number = match request.name {
        "count_instance_associations" => integer_after(&start, r#""count":"#),
        "delete_related_inst_asso" => integer_after(&start, r#""data":"#),
        // The answer and its `data` are objects, too.
        "search_instance_associations" => objects - 2,
        _ => objects - 1,
    };
    Answer { number, duration, first: first.unwrap(), size }
}

fn integer_after(text: &str, name: &str) -> i64 {
    let (_, rest) = text.split_once(name).unwrap();
    let digits = rest.chars().take_while(char::is_ascii_digit);
    digits.collect::<String>().parse().unwrap()
}

/// Executes a statement.
pub(super) async fn execute(conn: &mut PgConnection, statement: Statement) -> Answer {
    let started = Instant::now();
    let number = match statement {
        Statement::List(sql, parameters) => {
            let mut query = sqlx::query_as::<_, (i64, i32, i64, i64)>(AssertSqlSafe(sql));
            for parameter in parameters {
                query = query.bind(parameter);
            }
            let count = async |count: i64, _| Ok(count + 1);
            query.fetch(conn).try_fold(0, count).await
        }
        Statement::Count(sql, parameters) => {
            let mut query = sqlx::query_scalar(AssertSqlSafe(sql));
            for parameter in parameters {
                query = query.bind(parameter);
            }
            query.fetch_one(conn).await
        }
        Statement::Delete(ids) => {
            let sql = "delete from cmdb.instance_association where id = any ($1)";
            let deleted = sqlx::query(sql).bind(ids).execute(conn).await;
            deleted.map(|deleted| i64::try_from(deleted.rows_affected()).unwrap())
        }
    };
    let duration = started.elapsed();
    Answer { number: number.unwrap(), duration, first: duration, size: 0 }
}
