//! What an endpoint returns: typed data, or the first rows of a list and a stream of the others.

use std::time::Duration;

use super::stream::RemainingPages;
use crate::domain::error::RequestError;
use crate::domain::language::Language;
use crate::service::idempotency::Replay;

/// The result of a request that was carried out, or of which a part was.
pub(super) struct Success<T> {
    /// The `data` of the answer; of a streamed list, its first page.
    pub(super) data: T,
    /// The other pages of a list that is too long to be held at once.
    pub(super) pages: Option<RemainingPages>,
    /// Why the answer is a refusal, although it has `data`: a part of the request was refused.
    pub(super) error: Option<RequestError>,
    /// What the log line says about it.
    pub(super) counts: Counts,
    /// How long the steps took, if the caller asks for it.
    pub(super) timing: Option<Timing>,
    /// The first request, if this is the stored answer to it.
    pub(super) replay_of: Option<ReplayOf>,
}

/// Numbers for the log line of a request: created links, refused details, deleted links,
/// returned rows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) created: Option<usize>,
    pub(super) refused: Option<usize>,
    pub(super) deleted: Option<i64>,
    pub(super) rows: Option<usize>,
    /// Whether a streamed answer was cut off before its end.
    pub(super) is_cut_off: bool,
}

/// How long steps of a request took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// To verify the application and the user.
    pub(super) auth: Duration,
    /// To use the database, for that, too.
    pub(super) database: Duration,
}

/// The request whose stored answer is sent again: its id and the language of the answer.
pub(super) struct ReplayOf {
    pub(super) request_id: String,
    pub(super) language: Language,
}

impl<T> Success<T> {
    pub(super) fn new(data: T, counts: Counts) -> Self {
        Self { data, pages: None, error: None, counts, timing: None, replay_of: None }
    }

    /// The stored answer to an earlier request. `success` makes it from the outcome.
    pub(super) fn replayed<O>(replay: Replay<O>, success: impl FnOnce(O) -> Self) -> Self {
        let Replay { outcome, request_id, language } = replay;
        Self { replay_of: Some(ReplayOf { request_id, language }), ..success(outcome) }
    }
}
