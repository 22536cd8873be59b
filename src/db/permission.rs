//! What users may edit.

use sqlx::PgConnection;

use super::background::Found;
use crate::domain::association::Tenant;
use crate::domain::permission::{Needed, Scope};

/// A grant as it is listed.
pub struct Grant {
    /// Who.
    pub user: String,
    /// May edit what.
    pub scope: Scope,
}

/// An instance that details name, and whether the user may edit it.
pub struct Named {
    /// Our number for its model.
    pub model_id: i32,
    /// It, as a refusal would list it.
    pub instance: Needed,
    /// Whether the user may.
    pub may_edit: bool,
}

/// The instances that exist of those that details name: sources first, then by their ids.
#[tracing::instrument(skip_all, name = "db.permission.list_named")]
pub async fn list_named(
    conn: &mut PgConnection,
    user: &str,
    found: &Found,
    account: &Tenant,
    sources: &[i64],
    targets: &[i64],
) -> sqlx::Result<Vec<Named>> {
    let rows = sqlx::query!(
        r#"select model.id as model_id, model.key as model, model.name as model_name,
               coalesce(export_number, model.id) as "model_number!", instance.instance_id, instance.name,
               wanted.may_edit_all or exists (
                   select from permission_grant
                   where user_name = $1 and permission_grant.model_id = wanted.model_id
                       and permission_grant.instance_id = wanted.id) as "may_edit!"
           from (
               select $2::integer as model_id, id, $7::boolean as may_edit_all, 0 as side
               from unnest($3::bigint[]) id
               union
               select $4::integer, id, $8::boolean, case when $2 = $4 then 0 else 1 end
               from unnest($5::bigint[]) id
           ) wanted
           join instance on instance.model_id = wanted.model_id and instance.instance_id = wanted.id
           join model on model.id = wanted.model_id
           where instance.tenant_id in (0, (select id from tenant where key = $6))
           order by side, instance_id"#,
        user,
        found.model_association.source_model_id,
        sources,
        found.model_association.target_model_id,
        targets,
        account.as_str(),
        found.may_edit_sources,
        found.may_edit_targets,
    )
    .fetch_all(conn)
    .await?;
    let named = rows.into_iter().map(|row| Named {
        model_id: row.model_id,
        instance: Needed {
            model: row.model,
            model_name: row.model_name,
            model_number: row.model_number,
            instance_id: row.instance_id,
            name: row.name,
        },
        may_edit: row.may_edit,
    });
    Ok(named.collect())
}

/// Adds grants to a user; false if a model is unknown. What is granted already stays so.
pub async fn insert(conn: &mut PgConnection, user: &str, scopes: &[Scope]) -> sqlx::Result<bool> {
    let (models, instances) = columns(scopes);
    let known = sqlx::query_scalar!(
        r#"with wanted as (
               select key, instance_id, model.id as model_id
               from unnest($2::text[], $3::bigint[]) wanted (key, instance_id)
               left join model using (key)
           ),
           added as (
               insert into permission_grant (user_name, model_id, instance_id)
               select $1, model_id, instance_id from wanted
               where not exists (select from wanted where key is not null and model_id is null)
               on conflict do nothing
           )
           select not exists (select from wanted where key is not null and model_id is null) as "known!""#,
        user,
        &models as &[Option<String>],
        &instances as &[Option<i64>],
    );
    known.fetch_one(conn).await
}

/// Takes grants from a user; how many were there.
pub async fn delete(conn: &mut PgConnection, user: &str, scopes: &[Scope]) -> sqlx::Result<u64> {
    let (models, instances) = columns(scopes);
    let deleted = sqlx::query!(
        "delete from permission_grant
         using unnest($2::text[], $3::bigint[]) unwanted (key, instance_id)
         left join model using (key)
         where user_name = $1
             and (unwanted.key is null) = (permission_grant.model_id is null)
             and (permission_grant.model_id, permission_grant.instance_id)
                 is not distinct from (model.id, unwanted.instance_id)",
        user,
        &models as &[Option<String>],
        &instances as &[Option<i64>],
    );
    Ok(deleted.execute(conn).await?.rows_affected())
}

/// Every grant, or those of one user.
pub async fn list(conn: &mut PgConnection, user: Option<&str>) -> sqlx::Result<Vec<Grant>> {
    let rows = sqlx::query!(
        r#"select user_name, model.key as "model?", instance_id
           from permission_grant left join model on model.id = model_id
           where user_name = $1 or $1 is null
           order by user_name, model.key nulls first, instance_id nulls first"#,
        user,
    )
    .fetch_all(conn)
    .await?;
    let grant = |(user, model, instance): (String, Option<String>, Option<i64>)| {
        let scope = match (model, instance) {
            (None, _) => Scope::All,
            (Some(model), None) => Scope::Model(model),
            (Some(model), Some(instance)) => Scope::Instance(model, instance),
        };
        Grant { user, scope }
    };
    Ok(rows.into_iter().map(|row| grant((row.user_name, row.model, row.instance_id))).collect())
}

fn columns(scopes: &[Scope]) -> (Vec<Option<String>>, Vec<Option<i64>>) {
    let columns = |scope: &Scope| match scope {
        Scope::All => (None, None),
        Scope::Model(model) => (Some(model.clone()), None),
        Scope::Instance(model, id) => (Some(model.clone()), Some(*id)),
    };
    scopes.iter().map(columns).unzip()
}
