//! Changes of models, association kinds, model associations and instances, by requests and by
//! commands.
//!
//! A change has two statements: one reads what decides about it, the other writes. The second
//! writes nothing if the cache version has changed since the first. Then the change is tried again.
//! A server makes one change at a time, but for new and changed instances: those leave the version.

use sqlx::PgConnection;
use tokio::time::Instant;

use super::context::RequestContext;
use super::permission::user_permissions;
use super::{Error, with_connection};
use crate::db;
use crate::db::cache_version::CacheVersion;
use crate::domain::error::RequestError;
use crate::domain::identity::Author;
use crate::domain::keys::Tenant;
use crate::domain::permission::{Action, MissingPermission};

/// How often a command tries a change at most.
const MAX_ATTEMPTS: usize = 100;

/// Who makes a change, and for which tenant.
pub struct Change<'a> {
    pub(super) author: Author<'a>,
    pub(super) tenant: &'a Tenant,
    /// The version of what the user was authorized on, if anything was looked up.
    authorized_on: Option<CacheVersion>,
    /// After this time, nothing may be written.
    deadline: Option<Instant>,
}

impl<'a> Change<'a> {
    /// A change by a request whose user was authorized.
    pub(super) fn of_request(cx: &'a RequestContext<'_>) -> Self {
        Self {
            author: Author::Request { id: cx.request_id, caller: &cx.caller },
            tenant: &cx.tenant,
            authorized_on: cx.lookups.version(),
            deadline: Some(cx.deadline),
        }
    }

    /// Fails with [`Error::Stale`] if the user was authorized on another version than that of the
    /// statement that reads what decides about the change.
    pub(super) fn require_version(&self, version: CacheVersion) -> Result<(), Error> {
        let is_current = self.authorized_on.is_none_or(|authorized| authorized == version);
        if is_current { Ok(()) } else { Err(Error::Stale) }
    }

    /// The surrogate key of the tenant, for a write. Stores the tenant if it is new, and fails with
    /// [`Error::Stale`] then, because that changes the cache version.
    pub(super) async fn require_tenant(
        &self, conn: &mut PgConnection, id: Option<i32>,
    ) -> Result<i32, Error> {
        self.require_time()?;
        if let Some(id) = id {
            return Ok(id);
        }
        db::tenant::insert(conn, self.tenant).await?;
        Err(Error::Stale)
    }

    /// Fails if a write could still run at the deadline.
    pub(super) fn require_time(&self) -> Result<(), Error> {
        let is_late = |deadline| Instant::now() + db::STATEMENT_TIMEOUT > deadline;
        if self.deadline.is_some_and(is_late) { Err(Error::OutOfTime) } else { Ok(()) }
    }
}

/// Makes a change for a request, if its user may change models.
pub(super) async fn by_request<T>(
    cx: &RequestContext<'_>, action: Action,
    make: impl AsyncFnOnce(&mut PgConnection, &Change<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let permissions = user_permissions(cx).await?;
    if permissions.is_some_and(|permissions| !permissions.may_change_models) {
        let missing = MissingPermission { action, ..MissingPermission::default() };
        return Err(RequestError::PermissionDenied(vec![missing]).into());
    }
    let change = Change::of_request(cx);
    let _lock = cx.lookups.lock_for_change().await?;
    let work = async |conn: &mut PgConnection| make(conn, &change).await;
    let result = with_connection(&cx.service.pool, cx.deadline, work).await?;
    cx.lookups.set_changed();
    Ok(result)
}

/// Makes a change for a command.
pub async fn by_command<T>(
    conn: &mut PgConnection, tenant: &Tenant,
    mut make: impl AsyncFnMut(&mut PgConnection, &Change<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let change = Change { author: Author::Command, tenant, authorized_on: None, deadline: None };
    for _ in 0..MAX_ATTEMPTS {
        match make(conn, &change).await {
            Err(Error::Stale | Error::Conflict) => {}
            result => return result,
        }
    }
    Err(Error::Conflict)
}
