//! Lists that are read page by page, because they may be too long to be held at once.

use std::vec;

use super::Error;

/// The most rows of one page of a list that is returned as a whole.
pub(super) const PAGE_SIZE: i64 = 5_000;

/// The pages of a list. No connection is held between them, so rows that are created or deleted
/// meanwhile may be present or missing.
pub trait Pages: Send + 'static {
    /// A row of the list.
    type Row: Send;

    /// Whether all pages were returned.
    fn are_done(&self) -> bool;

    /// The next page. It may be empty, if rows were deleted since the page before.
    fn next_page(&mut self) -> impl Future<Output = Result<Vec<Self::Row>, Error>> + Send;
}

/// The next page of what is known already.
pub(super) fn take_page<T>(rest: &mut vec::IntoIter<T>) -> Vec<T> {
    rest.by_ref().take(usize::try_from(PAGE_SIZE).unwrap_or(usize::MAX)).collect()
}

/// Cuts rows to the size of a page, and returns whether there were more: others follow.
pub(super) fn cut_page<T>(rows: &mut Vec<T>, size: i64) -> bool {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let has_more = rows.len() > size;
    rows.truncate(size);
    has_more
}
