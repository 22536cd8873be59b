//! Who sends a request, and who changes models: an application and a user, or a command.

/// The verified sender of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The application's code; empty if a trusted peer named none.
    pub app: String,
    /// The user's name.
    pub user: String,
}

/// Who changes models, association kinds or model associations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Author<'a> {
    /// A request.
    Request {
        /// The request's id.
        id: &'a str,
        /// Its sender.
        caller: &'a Caller,
    },
    /// A command. The database knows its user.
    Command,
}

impl<'a> Author<'a> {
    /// The request's id; `None` for a command.
    pub fn request_id(self) -> Option<&'a str> {
        if let Self::Request { id, .. } = self { Some(id) } else { None }
    }

    /// The application's code; `None` for a command.
    pub fn app(self) -> Option<&'a str> {
        if let Self::Request { caller, .. } = self { Some(&caller.app) } else { None }
    }

    /// The user's name; `None` for a command.
    pub fn user(self) -> Option<&'a str> {
        if let Self::Request { caller, .. } = self { Some(&caller.user) } else { None }
    }
}
