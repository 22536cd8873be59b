//! Streamed answers: lists that are too long to be held at once are sent page by page.
//!
//! A stream holds no permit for a request. How many run at once has a limit of its own.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::channel::{Channel, Sender};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{sleep, timeout};

use super::success::{Counts, Success};
use crate::domain::error::RequestError;
use crate::service::Error;
use crate::service::context::RequestContext;
use crate::service::pages::Pages;

/// How long a chunk may wait until the client has read the chunk before it.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// How long streams go on after the server has begun to drain: not longer than the drain, so that
/// the end of each is logged.
const STREAM_DRAIN_TIMEOUT: Duration = Duration::from_secs(15);

/// The most bytes that are sent at once.
const CHUNK_BYTES: usize = 64 << 10;

/// A page: the list of its rows as JSON, and their number; `None` after the last one. So a task
/// that panics is not taken for the end of the list.
type Page = Result<Option<(Vec<u8>, usize)>, Error>;

/// The pages of a list after the first one, and what is held until the last one is sent.
pub(super) struct RemainingPages {
    pages: mpsc::Receiver<Page>,
    held: Vec<OwnedSemaphorePermit>,
}

impl RemainingPages {
    /// Holds a permit until the last page is sent.
    pub(super) fn hold(&mut self, permit: OwnedSemaphorePermit) {
        self.held.push(permit);
    }
}

/// Answers with the first page of a list, and streams the others if there are any. `to_rows` makes
/// the rows. `to_data` wraps them into the `data`: the list itself, or an object whose last member
/// is the list.
pub(super) async fn list<P: Pages, R: Serialize, T>(
    cx: &RequestContext<'_>, mut pages: P,
    mut to_rows: impl FnMut(Vec<P::Row>) -> Vec<R> + Send + 'static,
    to_data: impl FnOnce(Vec<R>) -> T,
) -> Result<Success<T>, Error> {
    let first = to_rows(pages.next_page().await?);
    let counts = Counts { rows: Some(first.len()), ..Counts::default() };
    let success = Success::new(to_data(first), counts);
    if pages.are_done() {
        return Ok(success);
    }
    let permit = cx.service.acquire_stream_permit()?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        while !pages.are_done() {
            let page = pages.next_page().await.map(|rows| {
                let rows = to_rows(rows);
                Some((to_json(&rows), rows.len()))
            });
            let has_failed = page.is_err();
            if sender.send(page).await.is_err() || has_failed {
                return;
            }
        }
        // An error means that the client is gone.
        let _ = sender.send(Ok(None)).await;
    });
    Ok(Success { pages: Some(RemainingPages { pages: receiver, held: vec![permit] }), ..success })
}

/// The body of a streamed answer, and the task that sends it: `answer`, whose last list is the
/// first page, and the other pages in that list. It returns the final counts.
///
/// If a page fails, the body ends without its last chunk, so that no client takes it for complete.
/// A client that is gone or does not read is not a failure of the request.
pub(super) fn body(
    answer: Vec<u8>, pages: RemainingPages, counts: Counts, draining: watch::Receiver<bool>,
) -> (Body, impl Future<Output = Result<Counts, Error>>) {
    let (mut sender, channel) = Channel::new(1);
    let sending = async move {
        let (is_sent, result) = tokio::select! {
            sent = send(&mut sender, answer, pages, counts) => sent,
            () = end_of_drain(draining) => (false, Ok(counts)),
        };
        if !is_sent {
            sender.abort(io::ErrorKind::ConnectionAborted.into());
        }
        result.map(|counts| Counts { is_cut_off: !is_sent, ..counts })
    };
    (Body::new(channel), sending)
}

async fn end_of_drain(mut draining: watch::Receiver<bool>) {
    // An error means that the server has ended.
    let _ = draining.wait_for(|draining| *draining).await;
    sleep(STREAM_DRAIN_TIMEOUT).await;
}

/// Sends an answer, and returns whether all of it was sent.
async fn send(
    sender: &mut Sender<Bytes, io::Error>, mut answer: Vec<u8>, pages: RemainingPages,
    mut counts: Counts,
) -> (bool, Result<Counts, Error>) {
    let RemainingPages { mut pages, held: _held } = pages;
    let mut send = async |bytes: Vec<u8>| {
        let mut bytes = Bytes::from(bytes);
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK_BYTES));
            let sent = timeout(READ_TIMEOUT, sender.send_data(chunk)).await;
            if !matches!(sent, Ok(Ok(()))) {
                return false;
            }
        }
        true
    };
    let end_of_list = answer.iter().rposition(|byte| *byte == b']').unwrap_or(answer.len());
    let end = answer.split_off(end_of_list);
    let mut is_sent = send(answer).await;
    while is_sent {
        let (mut rows, number) = match pages.recv().await {
            Some(Ok(Some(page))) => page,
            Some(Ok(None)) => return (send(end).await, Ok(counts)),
            Some(Err(error)) => return (false, Err(error)),
            None => return (false, Err(RequestError::Internal.into())),
        };
        // All rows of a page may have been deleted since the page before it was read.
        if number > 0 {
            counts.rows = counts.rows.map(|before| before + number);
            // The rows of `[…]`, after those of the page before.
            rows.pop();
            rows.splice(..1, *b",");
            is_sent = send(rows).await;
        }
    }
    (false, Ok(counts))
}

/// Serializing the types of answers cannot fail.
pub(super) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt;
    use tokio::sync::Semaphore;

    use super::*;

    const COUNTS: Counts =
        Counts { created: None, refused: None, deleted: None, rows: Some(1), is_cut_off: false };

    /// A stream of `[1]` and the pages that are sent.
    fn stream_of(permits: &Arc<Semaphore>) -> (RemainingPages, mpsc::Sender<Page>) {
        let (sender, pages) = mpsc::channel(1);
        let permit = Arc::clone(permits).try_acquire_owned().unwrap();
        (RemainingPages { pages, held: vec![permit] }, sender)
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is what is sent")]
    fn page() -> Page {
        Ok(Some((b"[2,3]".to_vec(), 2)))
    }

    #[tokio::test]
    async fn the_rows_of_all_pages_are_one_list() {
        let permits = Arc::new(Semaphore::new(1));
        let (pages, sender) = stream_of(&permits);
        let (_drain, draining) = watch::channel(false);
        let (body, sending) = body(br#"{"info":[1]}"#.to_vec(), pages, COUNTS, draining);
        let send = async {
            sender.send(page()).await.unwrap();
            sender.send(Ok(Some((b"[]".to_vec(), 0)))).await.unwrap();
            sender.send(page()).await.unwrap();
            sender.send(Ok(None)).await.unwrap();
        };
        let (counts, received, ()) = tokio::join!(sending, body.collect(), send);
        assert_eq!(received.unwrap().to_bytes(), r#"{"info":[1,2,3,2,3]}"#);
        assert_eq!(counts.unwrap().rows, Some(5));
        assert_eq!(permits.available_permits(), 1);
    }

    #[tokio::test]
    async fn pages_that_end_without_the_last_one_are_a_failure() {
        let (pages, sender) = stream_of(&Arc::new(Semaphore::new(1)));
        let (_drain, draining) = watch::channel(false);
        let (body, sending) = body(b"[1]".to_vec(), pages, COUNTS, draining);
        drop(sender);
        let (counts, received) = tokio::join!(sending, body.collect());
        assert!(counts.is_err() && received.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_for_20_s_is_cut_off() {
        let permits = Arc::new(Semaphore::new(1));
        let (pages, sender) = stream_of(&permits);
        let (_drain, draining) = watch::channel(false);
        let (body, sending) = body(b"[1]".to_vec(), pages, COUNTS, draining);
        let send = async { while sender.send(page()).await.is_ok() {} };
        let began = tokio::time::Instant::now();
        let (counts, ()) = tokio::join!(sending, send);
        assert!(counts.unwrap().is_cut_off && began.elapsed() >= READ_TIMEOUT);
        assert!(began.elapsed() < READ_TIMEOUT + Duration::from_secs(1));
        assert!(body.collect().await.is_err());
        assert_eq!(permits.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_cut_off_before_the_drain_ends() {
        let (pages, sender) = stream_of(&Arc::new(Semaphore::new(1)));
        let (drain, draining) = watch::channel(false);
        let (body, sending) = body(b"[1]".to_vec(), pages, COUNTS, draining);
        let read = tokio::spawn(body.collect());
        let sending = tokio::spawn(sending);
        sleep(Duration::from_mins(1)).await;
        assert!(!sending.is_finished());
        drain.send_replace(true);
        let began = tokio::time::Instant::now();
        assert!(sending.await.unwrap().unwrap().is_cut_off);
        assert_eq!(began.elapsed(), STREAM_DRAIN_TIMEOUT);
        assert!(read.await.unwrap().is_err());
        drop(sender);
    }
}
