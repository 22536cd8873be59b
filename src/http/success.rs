//! What an endpoint returns: typed data, or the first rows of a list and the pages that follow.

use std::marker::PhantomData;
use std::pin::Pin;

use serde::Serialize;

use crate::domain::language::Language;
use crate::service::Error;

/// The result of a request that was carried out.
pub(super) struct Success<T> {
    /// The `data` of the answer; of a longer list, the first rows.
    pub(super) data: T,
    /// The other rows of a list that is too long to be held at once.
    pub(super) more_rows: Option<Box<dyn JsonPages>>,
    /// What the log line says about it.
    pub(super) counts: Counts,
    /// The first request, if this is the stored answer to it.
    pub(super) replay_of: Option<ReplayOf>,
}

/// Numbers for the log line of a request.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Created links.
    pub(super) created: Option<usize>,
    /// Refused details.
    pub(super) refused: Option<usize>,
    /// Returned rows.
    pub(super) rows: Option<usize>,
}

/// The request whose stored answer is sent again.
pub(super) struct ReplayOf {
    /// The request id in the answer.
    pub(super) request_id: String,
    /// The language of the answer.
    pub(super) language: Language,
}

impl<T> Success<T> {
    pub(super) fn new(data: T, counts: Counts) -> Self {
        Self { data, more_rows: None, counts, replay_of: None }
    }

    /// Marks it as the stored answer to an earlier request.
    pub(super) fn replayed(self, request_id: String, language: Language) -> Self {
        Self { replay_of: Some(ReplayOf { request_id, language }), ..self }
    }
}

impl<T: Serialize + Send + 'static> Success<Vec<T>> {
    /// A list whose rows are sent page by page. `first` is not empty.
    pub(super) fn rows(first: Vec<T>, pages: impl RowPages<T>) -> Self {
        let counts = Counts { rows: Some(first.len()), ..Counts::default() };
        let more_rows: Box<dyn JsonPages> = Box::new(Pages { pages, row: PhantomData });
        Self { more_rows: Some(more_rows), ..Self::new(first, counts) }
    }
}

/// The pages of a list after the first one. The last page is followed by an empty one.
pub(super) trait RowPages<T>: Send + 'static {
    fn next_page(&mut self) -> impl Future<Output = Result<Vec<T>, Error>> + Send;
}

/// Pages whose rows were serialized, whatever their type.
pub(super) trait JsonPages: Send {
    /// The rows of the next page, separated by commas, and their number; `None` after the last.
    fn next(&mut self) -> JsonPage<'_>;
}

type JsonPage<'a> =
    Pin<Box<dyn Future<Output = Result<Option<(Vec<u8>, usize)>, Error>> + Send + 'a>>;

struct Pages<T, P> {
    pages: P,
    row: PhantomData<fn() -> T>,
}

impl<T: Serialize + Send, P: RowPages<T>> JsonPages for Pages<T, P> {
    fn next(&mut self) -> JsonPage<'_> {
        Box::pin(async {
            let rows = self.pages.next_page().await?;
            // Serializing these types cannot fail.
            let mut json = serde_json::to_vec(&rows).unwrap_or_default();
            json.pop();
            Ok((!rows.is_empty()).then(|| (json.split_off(1), rows.len())))
        })
    }
}
