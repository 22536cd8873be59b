//! What users may edit: judging it, granting it, and taking it back.

use std::collections::HashSet;

use sqlx::PgConnection;

use crate::db;
use crate::db::background::Found;
pub use crate::db::permission::Grant;
use crate::domain::association::{Tenant, is_valid_key};
use crate::domain::batch::{Detail, Fact};
use crate::domain::caller::USERNAME_LIMIT;
use crate::domain::error::RequestError;
use crate::domain::permission::Scope;

/// The instances that permission was judged for.
pub(super) enum Seen {
    /// Whatever there is.
    Everything,
    /// These sources and targets. No others existed then.
    Only {
        /// Source instances.
        sources: HashSet<i64>,
        /// Target instances.
        targets: HashSet<i64>,
    },
}

/// Refuses a batch with instances that the user may not edit, all of it.
pub(super) async fn judge(
    conn: &mut PgConnection,
    user: &str,
    found: &Found,
    account: &Tenant,
    details: &[Detail],
) -> Result<Seen, super::Error> {
    if found.may_edit_sources && found.may_edit_targets {
        return Ok(Seen::Everything);
    }
    let sources: Vec<i64> = details.iter().filter_map(|detail| detail.source).collect();
    let targets: Vec<i64> = details.iter().filter_map(|detail| detail.target).collect();
    let named = db::permission::list_named(conn, user, found, account, &sources, &targets).await?;
    let missing = named.iter().filter(|named| !named.may_edit);
    let missing: Vec<_> = missing.map(|named| named.instance.clone()).collect();
    if !missing.is_empty() {
        return Err(RequestError::NoPermission(missing).into());
    }
    let of = |model_id| {
        let of_model = named.iter().filter(move |named| named.model_id == model_id);
        of_model.map(|named| named.instance.instance_id).collect()
    };
    let association = &found.model_association;
    let (sources, targets) = (of(association.source_model_id), of(association.target_model_id));
    Ok(Seen::Only { sources, targets })
}

impl Seen {
    /// What to foresee: nothing in the way, or that what was not seen does not exist.
    pub(super) fn expect(&self, details: &[Detail]) -> Vec<Fact> {
        let Self::Only { sources, targets } = self else { return Vec::new() };
        let is_missing =
            |id: Option<i64>, seen: &HashSet<i64>| id.is_none_or(|id| !seen.contains(&id));
        let fact = |detail: &Detail| Fact {
            source_missing: is_missing(detail.source, sources),
            target_missing: is_missing(detail.target, targets),
            ..Fact::default()
        };
        details.iter().map(fact).collect()
    }

    /// Whether everything that exists by now was seen. Where a pair stands, nothing was looked for, and nothing is
    /// created.
    pub(super) fn covers(&self, details: &[Detail], facts: &[Fact]) -> bool {
        self.expect(details).iter().zip(facts).zip(details).all(|((expected, fact), detail)| {
            let stands = detail.source.is_some() && fact.source_of_target == detail.source;
            stands
                || (fact.source_missing || !expected.source_missing)
                    && (fact.target_missing || !expected.target_missing)
        })
    }
}

/// Why grants could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such model.
    #[error("there is no such model")]
    UnknownModel,
    /// Not a user's name.
    #[error("a user's name has 1 to {USERNAME_LIMIT} characters, none of them a control character")]
    BadUser,
    /// The database failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
}

/// Lets a user edit; what it may already, it may.
pub async fn add(conn: &mut PgConnection, user: &str, scopes: &[Scope]) -> Result<(), Error> {
    if !is_valid_key(user, USERNAME_LIMIT) || user.chars().any(char::is_control) {
        return Err(Error::BadUser);
    }
    if db::permission::insert(conn, user, scopes).await? {
        Ok(())
    } else {
        Err(Error::UnknownModel)
    }
}

/// Takes from a user exactly what was granted in these words; whether anything was.
pub async fn remove(conn: &mut PgConnection, user: &str, scopes: &[Scope]) -> Result<bool, Error> {
    Ok(db::permission::delete(conn, user, scopes).await? > 0)
}

/// What is granted, to everybody or to one user.
pub async fn list(conn: &mut PgConnection, user: Option<&str>) -> Result<Vec<Grant>, Error> {
    Ok(db::permission::list(conn, user).await?)
}
