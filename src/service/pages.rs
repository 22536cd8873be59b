//! Lists that are read page by page, because they may be too long to be held at once.

use super::Error;

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
