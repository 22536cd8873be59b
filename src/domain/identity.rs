//! Who sends a request: the application and the user.

/// The verified sender of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The application's code; empty if a trusted peer named none.
    pub app: String,
    /// The user's name.
    pub user: String,
}
