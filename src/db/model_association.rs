//! Model associations.

use sqlx::PgConnection;

use crate::domain::association::{Mapping, ModelAssociation, SupplierAccount};

/// What a caller's words stand for in the database.
pub struct Found {
    /// The model association.
    pub model_association: ModelAssociation,
    /// Our number for the caller's account; none yet if nobody wrote under it.
    pub account_id: Option<i32>,
}

/// Finds what `key` names for an account: its own model association before the shared one.
#[tracing::instrument(skip_all, name = "db.model_association.find")]
pub async fn find(
    conn: &mut PgConnection,
    key: &str,
    account: &SupplierAccount,
) -> sqlx::Result<Option<Found>> {
    let row = sqlx::query!(
        r#"select association.id, source_model_id, target_model_id, mapping,
               source.key as source_model, target.key as target_model,
               (select id from supplier_account where key = $2) as account_id
           from model_association association
           join supplier_account owner on owner.id = association.supplier_account_id
           join model source on source.id = source_model_id
           join model target on target.id = target_model_id
           where association.key = $1 and owner.key in ($2, $3)
           order by owner.key = $2 desc
           limit 1"#,
        key,
        account.as_str(),
        SupplierAccount::SHARED,
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        let mapping = Mapping::parse(&row.mapping)
            .ok_or_else(|| sqlx::Error::Decode(format!("mapping {:?}", row.mapping).into()))?;
        Ok(Found {
            model_association: ModelAssociation {
                id: row.id,
                source_model_id: row.source_model_id,
                target_model_id: row.target_model_id,
                source_model: row.source_model,
                target_model: row.target_model,
                mapping,
            },
            account_id: row.account_id,
        })
    })
    .transpose()
}

/// Our number for an account, given to it now if it has none.
#[tracing::instrument(skip_all, name = "db.supplier_account.number")]
pub async fn number_account(
    conn: &mut PgConnection,
    account: &SupplierAccount,
) -> sqlx::Result<i32> {
    sqlx::query_scalar!(
        r#"with known as (select id from supplier_account where key = $1),
                added as (
                    insert into supplier_account (key)
                    select $1 where not exists (select from known)
                    on conflict (key) do update set key = excluded.key
                    returning id
                )
           select id as "id!" from known union all select id from added"#,
        account.as_str(),
    )
    .fetch_one(conn)
    .await
}
