//! Instance associations (links).

use sqlx::PgConnection;

use super::cache_version::CacheVersion;
use super::model_association::ModelAssociation;
use crate::domain::batch::{Detail, Link, LinkedEnd, StoredState};
use crate::domain::identity::Caller;

/// Links to create.
pub struct NewLinks<'a> {
    /// The model association of all links, with the cache version on which the request was
    /// authorized.
    pub association: &'a ModelAssociation,
    /// The surrogate key of the tenant of the links. No link is written without it.
    pub tenant_id: Option<i32>,
    /// The links.
    pub links: &'a [Link],
    /// The sources that are looked up, each once.
    pub unknown_sources: &'a [i64],
    /// The targets that are looked up, each once.
    pub unknown_targets: &'a [i64],
    /// The batch that has found the last of the other instances, under the same cache version.
    pub found_by: Option<&'a AuditRecord>,
    /// The request id in the audit record.
    pub request_id: &'a str,
    /// The caller in the audit record.
    pub caller: &'a Caller,
    /// What to store under the request's `Idempotency-Key`, if it has one.
    pub idempotency: Option<IdempotencyEntry<'a>>,
    /// What the idempotency record says of each detail: the code of its error, or that it is one of
    /// the links.
    pub error_codes: &'a [Option<i32>],
    /// Why the links are created, if the request says so.
    pub reason: Option<&'a str>,
    /// The index of each link's detail in the request; `None` if they are 0, 1, 2 and so on.
    pub detail_indexes: Option<Vec<i16>>,
    /// What was in the way of each detail, as JSON, if the answer says so.
    pub explanations: Option<String>,
}

/// The audit record of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its id, which a database that was restored from a backup may assign again.
    pub id: i64,
    /// The request's id.
    pub request_id: String,
}

/// What was created.
#[derive(Debug)]
pub struct CreatedLinks {
    /// The ids of the links, in order.
    pub ids: Vec<i64>,
    /// The id of the audit record; `None` if there are no links.
    pub audit_record_id: Option<i64>,
}

/// What identifies an idempotency record and describes its answer.
#[derive(Clone, Copy)]
pub struct IdempotencyEntry<'a> {
    /// The caller's key.
    pub key: &'a str,
    /// SHA-256 of what the request asks for.
    pub request_hash: [u8; 32],
    /// The tag of the answer's language.
    pub language: &'static str,
}

/// Creates links with their audit and idempotency records. Returns `None` and writes nothing if a
/// link conflicts with a stored one, an instance does not exist, the cache version has changed, or
/// the database has lost the audit record of `found_by`.
///
/// A single statement, so a single commit. A conflicting commit of another transaction makes it
/// fail with [`ErrorClass::Conflict`](super::ErrorClass::Conflict), and nothing is written.
#[tracing::instrument(skip_all, name = "db.instance_association.create")]
pub async fn create(
    conn: &mut PgConnection, new: &NewLinks<'_>,
) -> sqlx::Result<Option<CreatedLinks>> {
    let NewLinks { association, links, idempotency, .. } = new;
    let source_ids: Vec<_> = links.iter().map(|link| link.source).collect();
    let target_ids: Vec<_> = links.iter().map(|link| link.target).collect();
    // In the groups that the statement's header lists.
    sqlx::query_file_as!(
        CreatedLinks,
        "src/db/create_links.sql",
        // model association, models
        association.id,
        association.source_model_id,
        association.source_is_built_in,
        association.target_model_id,
        association.target_is_built_in,
        // caller
        new.tenant_id,
        association.version.0,
        // links
        &source_ids,
        &target_ids,
        // instances
        new.unknown_sources,
        new.unknown_targets,
        // audit record
        new.request_id,
        new.caller.app,
        new.caller.user,
        // idempotency record
        idempotency.as_ref().map(|entry| entry.key),
        idempotency.as_ref().map(|entry| entry.request_hash.as_slice()),
        idempotency.as_ref().map(|entry| entry.language),
        new.error_codes as &[Option<i32>],
        // instances
        new.found_by.map(|record| record.id),
        new.found_by.map(|record| record.request_id.as_str()),
        // audit record
        new.reason,
        new.detail_indexes.as_deref(),
        // idempotency record
        new.explanations.as_deref(),
    )
    .fetch_optional(conn)
    .await
}

/// The stored state of each detail, without the ids of links, and the cache version when it was
/// read.
#[tracing::instrument(skip_all, name = "db.instance_association.find_state")]
pub async fn find_state(
    conn: &mut PgConnection, association: &ModelAssociation, tenant_id: Option<i32>,
    details: &[Detail],
) -> sqlx::Result<(Vec<StoredState>, CacheVersion)> {
    let source_ids: Vec<_> = details.iter().map(|detail| detail.source).collect();
    let target_ids: Vec<_> = details.iter().map(|detail| detail.target).collect();
    // In the groups that the statement's header lists.
    let row = sqlx::query_file!(
        "src/db/stored_state.sql",
        // model association, models
        association.id,
        association.source_model_id,
        association.source_is_built_in,
        association.target_model_id,
        association.target_is_built_in,
        // caller
        tenant_id,
        // details
        &source_ids as &[Option<i64>],
        &target_ids as &[Option<i64>],
    )
    .fetch_one(conn)
    .await?;
    let end = |instance_id| LinkedEnd { instance_id, link_id: None };
    let ends = row.source_of_target.into_iter().zip(row.target_of_source);
    let missing = row.source_missing.into_iter().zip(row.target_missing);
    let states = missing.zip(ends).map(
        |((source_missing, target_missing), (source_of_target, target_of_source))| StoredState {
            source_missing,
            target_missing,
            source_of_target: source_of_target.map(end),
            target_of_source: target_of_source.map(end),
        },
    );
    Ok((states.collect(), row.version))
}

/// Adds the ids of the tenant's links to the stored state of each detail. Returns whether the links
/// still exist.
#[tracing::instrument(skip_all, name = "db.instance_association.find_link_ids")]
pub async fn find_link_ids(
    conn: &mut PgConnection, association: &ModelAssociation, tenant_id: Option<i32>,
    details: &[Detail], states: &mut [StoredState],
) -> sqlx::Result<bool> {
    let mut links = Vec::new();
    for (detail, state) in details.iter().zip(states) {
        let StoredState { source_of_target, target_of_source, .. } = state;
        if let (Some(end), Some(target)) = (source_of_target, detail.target) {
            links.push((end.instance_id, target, &mut end.link_id));
        }
        if let (Some(end), Some(source)) = (target_of_source, detail.source) {
            links.push((source, end.instance_id, &mut end.link_id));
        }
    }
    let sources: Vec<_> = links.iter().map(|(source, ..)| *source).collect();
    let targets: Vec<_> = links.iter().map(|(_, target, _)| *target).collect();
    let row = sqlx::query_file!("src/db/link_ids.sql", association.id, &sources, &targets)
        .fetch_one(conn)
        .await?;
    let tenant_id = tenant_id.map(i64::from);
    for ((.., link_id), (id, tenant)) in links.into_iter().zip(row.ids.iter().zip(row.tenants)) {
        *link_id = id.filter(|_| tenant == tenant_id);
    }
    Ok(row.ids.iter().all(Option::is_some))
}
